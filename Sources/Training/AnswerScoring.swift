import Checkpoints
import Decoders
import Layers
import Tensors

/// How well a model answers the questions of a task, by two ways of scoring.
///
/// - By label, as the authors' code does it: the logits at the prompt's last token, restricted to the last tokens of
///   " " + label for all labels of the task; the largest is the answer.
/// - By likelihood: Σ log p(" " + candidate | prompt) for each candidate's text, prompt and candidate tokenised as one
///   text; the largest is the answer. Divided by the candidate's UTF-8 bytes in the third figure, so that long answers
///   are not at a disadvantage.
public struct AnswerScoring<B: Backend> {
  private let decoder: Decoder<B>
  private let backend: B

  /// Scores with `decoder`.
  public init(_ decoder: Decoder<B>, on backend: B) {
    self.decoder = decoder
    self.backend = backend
  }

  /// The right answers of one task.
  public struct Result: Equatable, Sendable {
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
  }

  /// A score that is not finite: there is nothing to compare.
  public struct NonFiniteScore: Error, CustomStringConvertible {
    /// The question, counted from 0.
    public let question: Int
    /// Says what was found where.
    public var description: String { "question \(question + 1): the score of an answer is not finite" }
  }

  /// Tokens that are run through the model at a time, about.
  private static var batchTokens: Int { 2048 }

  /// Asks all questions of a task.
  ///
  /// - Throws: `CheckpointError` for a token that the model does not have, ``NonFiniteScore``, and what the device reports.
  public func score(_ questions: [QuestionTask.Question], _ task: QuestionTask, with encoder: some TextEncoder) throws -> Result {
    var result = Result(count: questions.count)
    var golds: [String: Int] = [:]
    for question in questions { golds[question.label, default: 0] += 1 }
    result.majority = golds.values.max() ?? 0
    let labelTokens = task.labels.map { label in encoder.tokens(of: Array(" \(label)".utf8)).last?.id }

    let prompts = questions.map { encode($0.prompt, nil, encoder) }
    let candidates = questions.flatMap { question in question.candidates.map { encode(question.prompt, " " + $0.text, encoder) } }
    let vocabulary = decoder.configuration.vocabulary
    let ids = labelTokens.lazy.compactMap { $0 } + (prompts + candidates).lazy.flatMap(\.ids)
    if let id = ids.first(where: { $0 >= vocabulary }) {
      throw CheckpointError(
        file: task.rawValue, found: "text with the tokenizer's token \(id)",
        expected: "tokens below \(vocabulary), the vocabulary of the model")
    }
    for range in batches(prompts) {
      let logits = try lastLogits(Array(prompts[range]))
      for (row, index) in zip(logits, range) {
        guard labelTokens.allSatisfy({ $0.map { row[Int($0)].isFinite } ?? true }) else { throw NonFiniteScore(question: index) }
        var best = 0
        func value(_ label: Int) -> B.Scalar { labelTokens[label].map { row[Int($0)] } ?? -.infinity }
        for label in task.labels.indices where value(label) > value(best) { best = label }
        if task.labels[best] == questions[index].label { result.byLabel += 1 }
      }
    }

    var likelihoods: [Double] = []
    for range in batches(candidates) { likelihoods += try logLikelihoods(Array(candidates[range])) }
    var first = 0
    for (index, question) in questions.enumerated() {
      let own = likelihoods[first..<first + question.candidates.count]
      guard own.allSatisfy(\.isFinite) else { throw NonFiniteScore(question: index) }
      first += question.candidates.count
      let perByte = zip(own, question.candidates).map { $0 / Double(max(1, $1.text.utf8.count)) }
      if question.candidates[argmax(Array(own))].label == question.label { result.byLikelihood += 1 }
      if question.candidates[argmax(perByte)].label == question.label { result.byLikelihoodPerByte += 1 }
    }
    return result
  }

  /// A prompt, alone or with what follows it, whose tokens are then the labels.
  private func encode(_ prompt: String, _ answer: String?, _ encoder: some TextEncoder) -> PackedSequence {
    let prompt = Array(prompt.utf8)
    let text = prompt + Array((answer ?? "").utf8)
    let sample = EncodedSample(
      TextSample(text: text, answers: [prompt.count..<text.count]), with: encoder, lossOn: .answer, length: .max, addsEndToken: false)
    return sample.sequence
  }

  private func lastLogits(_ sequences: [PackedSequence]) throws -> [[B.Scalar]] {
    let batch = PackedBatch(sequences, on: backend)
    let run = Run(backend)
    let hidden = decoder.forward(batch, run)
    let rows = backend.upload(batch.plan.offsets.dropFirst().map { Int32($0 - 1) })
    let values = try backend.download(decoder.logits(backend.gather(hidden, rows: rows), run))  // (n,V)
    let v = decoder.configuration.vocabulary
    return (0..<rows.count).map { Array(values[$0 * v..<($0 + 1) * v]) }
  }

  private func logLikelihoods(_ sequences: [PackedSequence]) throws -> [Double] {
    let batch = PackedBatch(sequences, on: backend)
    let run = Run(backend)
    let losses = try decoder.labelLosses(of: batch, run)
    var first = 0
    return sequences.map { sequence in
      let count = sequence.labels.count { $0 != nil }
      defer { first += count }
      return -losses[first..<first + count].reduce(0) { $0 + Double($1) }
    }
  }

  /// Ranges of sequences that make up batches of a size that the machine likes.
  private func batches(_ sequences: [PackedSequence]) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    var (start, tokens) = (0, 0)
    for (i, sequence) in sequences.enumerated() {
      if tokens + sequence.ids.count > Self.batchTokens, i > start {
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

/// The interval that holds the true share with 95 % confidence, after `right` of `count` (Wilson 1927).
///
///     (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n),  z = 1.96
public func wilsonInterval(right: Int, count: Int) -> (low: Double, high: Double) {
  guard count > 0 else { return (0, 1) }
  let (n, z) = (Double(count), 1.959963984540054)
  let p = Double(right) / n
  let middle = p + z * z / (2 * n)
  let spread = z * (p * (1 - p) / n + z * z / (4 * n * n)).squareRoot()
  return ((middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n))
}
