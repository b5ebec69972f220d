import Decoders
import Layers
import Tensors

/// How often a model answers exactly as expected, and which experts it asks while it does.
///
/// Greedy decoding gives the expected answer exactly if each of its tokens, the end token included, is the likeliest one
/// after the prompt and the answer so far. So one pass over prompt and answer decides it, without generating anything:
///
///     right  ⇔  argmax_v logits[t, v] = answer[t]  for every t of the answer
public struct AnswerMatching<B: Backend> {
  private let decoder: Decoder<B>
  private let backend: B

  /// Asks `decoder`.
  public init(_ decoder: Decoder<B>, on backend: B) {
    self.decoder = decoder
    self.backend = backend
  }

  /// Asks all questions; the labels of each are its answer.
  ///
  /// - Throws: what the device reports.
  public func ask(_ questions: [PackedSequence], samplesAtATime: Int = 64) throws -> MatchedAnswers {
    var result = MatchedAnswers(count: questions.count)
    var slots: [[Double]] = []
    for start in stride(from: 0, to: questions.count, by: samplesAtATime) {
      let part = questions[start..<min(start + samplesAtATime, questions.count)]
      let batch = PackedBatch(Array(part), on: backend)
      let run = Run(backend)
      let hidden = decoder.forward(batch, run)
      let counts = try backend.download(run.loads.map(\.counts)).map { $0.map { Double($0) } }
      slots = slots.isEmpty ? counts : zip(slots, counts).map { zip($0, $1).map(+) }
      var guesses = try likeliest(hidden, batch, run)[...]
      for question in part {
        let expected = question.labels.compactMap { $0 }
        if !expected.isEmpty, guesses.prefix(expected.count).elementsEqual(expected) { result.right += 1 }
        guesses = guesses.dropFirst(expected.count)
      }
    }
    result.expertLoad = slots.map { layer in layer.map { $0 / max(1, layer.reduce(0, +)) } }
    return result
  }

  /// The likeliest token at every labeled row, in order; ties go to the lower id. Only the tokens come to the host.
  private func likeliest(_ hidden: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) throws -> [Int32] {
    let logits = decoder.logits(backend.gather(hidden, rows: batch.labels(of: 0).rows), run)  // (n,V)
    return try backend.download(backend.choose(logits, .topK(1)))
  }
}

/// What came of some questions with exact answers.
public struct MatchedAnswers: Equatable, Sendable {
  /// Questions asked.
  public var count = 0
  /// Answered exactly.
  public var right = 0
  /// Each expert's share of the routed slots, layer by layer (layers × E); empty without a router.
  public var expertLoad: [[Double]] = []

  /// The share of exact answers.
  public var accuracy: Double { Double(right) / Double(max(1, count)) }
}
