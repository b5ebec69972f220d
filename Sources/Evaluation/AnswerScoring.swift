import Checkpoints
import Collectives
import Decoders
import Layers
import Samples
import Tensors

/// How well a model answers the questions of a task, by two ways of scoring.
///
/// - By label, as the authors' code does it: the logits at the prompt's last token, restricted to the last tokens of
///   " " + label for all labels of the task; the largest is the answer.
/// - By likelihood: Σ log p(" " + candidate | prompt) for each candidate's text, prompt and candidate tokenized as one
///   text; the largest is the answer. Divided by the candidate's UTF-8 bytes in the third figure, so that long answers
///   are not at a disadvantage.
public struct AnswerScoring<B: Backend> {
  private let decoder: Decoder<B>
  private let backend: B
  private let ranks: any Collective
  /// Adapters, or the base where there is none: who is asked.
  private let owners: Range<Int>

  /// Scores with `decoder`.
  ///
  /// - Parameters:
  ///   - adapters: those that are asked; nil for all.
  ///   - ranks: share out the batches, and each gets the results of all.
  public init(_ decoder: Decoder<B>, adapters: Range<Int>? = nil, ranks: any Collective = Solo(), on backend: B) {
    self.decoder = decoder
    self.backend = backend
    self.ranks = ranks
    owners = adapters ?? 0..<max(1, decoder.adapters.count)
  }

  /// Tokens that are run through the model at a time, about, those of all adapters together.
  private static var batchTokens: Int { 2048 }

  /// Asks these adapters all questions of a task, in the same batches; without one the base is asked.
  ///
  /// - Throws: `CheckpointError` for a token that the model does not have, `NonFiniteValue` for a score, and what the device reports.
  public func score(_ questions: [QuestionTask.Question], _ task: QuestionTask, with encoder: some TextEncoder) throws
    -> [AnswerScores]
  {
    var result = AnswerScores(count: questions.count)
    var golds: [String: Int] = [:]
    for question in questions { golds[question.label, default: 0] += 1 }
    result.majority = golds.values.max() ?? 0
    let labelTokens = task.labels.map { label in encoder.tokens(of: Array(" \(label)".utf8)).last?.id }

    let prompts = questions.map { encode($0.prompt, nil, encoder) }
    let candidates = questions.flatMap { question in question.candidates.map { encode(question.prompt, " " + $0.text, encoder) } }
    var firstCandidate = 0
    for (question, prompt) in zip(questions, prompts) {
      let own = candidates[firstCandidate..<firstCandidate + question.candidates.count]
      firstCandidate += question.candidates.count
      let longest = own.map(\.ids.count).max() ?? 0
      if max(prompt.ids.count, longest) > decoder.configuration.contextLength ?? .max { result.tooLong += 1 }
    }
    let vocabulary = decoder.configuration.vocabulary
    let ids = labelTokens.lazy.compactMap { $0 } + (prompts + candidates).lazy.flatMap(\.ids)
    if let id = ids.first(where: { $0 >= vocabulary }) {
      throw CheckpointError(
        file: task.rawValue, found: "text with the tokenizer's token \(id)",
        expected: "tokens below \(vocabulary), the vocabulary of the model")
    }
    var byLabel = owners.map { _ in 0.0 }
    for range in own(batches(prompts)) {
      let logits = try lastLogits(Array(prompts[range]), of: labelTokens.compactMap { $0 })
      for (row, (owner, index)) in zip(logits, byLabel.indices.flatMap { owner in range.map { (owner, $0) } }) {
        guard row.allSatisfy(\.isFinite) else { throw Self.notFinite(index) }
        var values = row[...]
        let scores = labelTokens.map { $0 == nil ? -.infinity : values.removeFirst() }
        let best = scores.indices.dropFirst().reduce(0) { scores[$1] > scores[$0] ? $1 : $0 }
        if task.labels[best] == questions[index].label { byLabel[owner] += 1 }
      }
    }
    byLabel = try ranks.sum(byLabel)

    var likelihoods = owners.map { _ in Array(repeating: 0.0, count: candidates.count) }
    for range in own(batches(candidates)) {
      for (owner, found) in try logLikelihoods(Array(candidates[range])).enumerated() {
        likelihoods[owner].replaceSubrange(range, with: found)
      }
    }
    return try byLabel.indices.map { owner in
      var own = result
      own.byLabel = Int(byLabel[owner])
      try count(ranks.sum(likelihoods[owner]), questions, into: &own)
      return own
    }
  }

  /// Those of some batches that this rank computes.
  private func own(_ batches: [Range<Int>]) -> [Range<Int>] {
    batches.indices.filter { $0 % ranks.size == ranks.rank }.map { batches[$0] }
  }

  /// Counts the questions whose right candidate is the likeliest, from the likelihoods of all candidates.
  private func count(_ likelihoods: [Double], _ questions: [QuestionTask.Question], into result: inout AnswerScores) throws {
    var first = 0
    for (index, question) in questions.enumerated() {
      let own = likelihoods[first..<first + question.candidates.count]
      guard own.allSatisfy(\.isFinite) else { throw Self.notFinite(index) }
      first += question.candidates.count
      let perByte = zip(own, question.candidates).map { $0 / Double(max(1, $1.text.utf8.count)) }
      if question.candidates[argmax(Array(own))].label == question.label { result.byLikelihood += 1 }
      if question.candidates[argmax(perByte)].label == question.label { result.byLikelihoodPerByte += 1 }
    }
  }

  /// A prompt, alone or with what follows it, whose tokens are then the labels.
  private func encode(_ prompt: String, _ answer: String?, _ encoder: some TextEncoder) -> PackedSequence {
    let prompt = Array(prompt.utf8)
    let text = prompt + Array((answer ?? "").utf8)
    let sample = EncodedSample(
      TextSample(text: text, answers: [prompt.count..<text.count]), with: encoder, lossOn: .answer, addsEndToken: false)
    return sample.sequence
  }

  private static func notFinite(_ question: Int) -> NonFiniteValue {
    NonFiniteValue("the score of an answer", at: "question \(question + 1)")
  }

  /// The sequences under every adapter, one adapter's after the other's.
  private func packed(_ sequences: [PackedSequence]) -> PackedBatch<B> {
    PackedBatch(owners.flatMap { owner in sequences.map { $0.serving(owner) } }, on: backend)
  }

  /// The logits of some tokens behind the last row of each sequence under each adapter, a row of numbers each; only these come to the
  /// host.
  private func lastLogits(_ sequences: [PackedSequence], of tokens: [Int32]) throws -> [[B.Scalar]] {
    let batch = packed(sequences)
    let run = Run(backend)
    let last = backend.upload(batch.plan.offsets.dropFirst().map { Int32($0 - 1) })
    let logits = decoder.logits(backend.gather(decoder.forward(batch, run), rows: last), run)  // (S,V)
    var chosen = backend.empty(Shape(last.count, tokens.count))
    for (column, token) in tokens.enumerated() {
      backend.copy(logits.columns(Int(token)..<Int(token) + 1), into: &chosen, rows: nil, columns: column..<column + 1)
    }
    let values = try backend.download(chosen)
    return (0..<last.count).map { Array(values[$0 * tokens.count..<($0 + 1) * tokens.count]) }
  }

  /// Σ log p of each sequence's labels, under each adapter.
  private func logLikelihoods(_ sequences: [PackedSequence]) throws -> [[Double]] {
    let all = try decoder.labelLosses(of: packed(sequences), Run(backend))
    return owners.map { owner in
      let losses = all[owner]
      var first = 0
      return sequences.map { sequence in
        let count = sequence.labels.count { $0 != nil }
        defer { first += count }
        return -losses[first..<first + count].reduce(0) { $0 + Double($1) }
      }
    }
  }

  /// Ranges of sequences that make up batches of a size that the machine likes.
  private func batches(_ sequences: [PackedSequence]) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    var (start, tokens) = (0, 0)
    for (i, sequence) in sequences.enumerated() {
      if tokens + sequence.ids.count > Self.batchTokens / owners.count, i > start {
        ranges.append(start..<i)
        (start, tokens) = (i, 0)
      }
      tokens += sequence.ids.count
    }
    if start < sequences.count { ranges.append(start..<sequences.count) }
    return ranges
  }

  private func argmax(_ values: [Double]) -> Int { values.indices.max { values[$0] < values[$1] } ?? 0 }
}

/// The right answers of one task, by each way of scoring.
public struct AnswerScores: Equatable, Sendable {
  /// Questions asked.
  public var count = 0
  /// Right by label.
  public var byLabel = 0
  /// Right by likelihood.
  public var byLikelihood = 0
  /// Right by likelihood a byte.
  public var byLikelihoodPerByte = 0
  /// Questions whose right label is the commonest.
  public var majority = 0
  /// Questions that with an answer have more tokens than the model has positions; they are asked like the others, and never cut.
  public var tooLong = 0
}
