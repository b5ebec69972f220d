import Tokenization

/// A text to learn from, and which parts of it are answers.
public struct TextSample: Equatable, Sendable {
  /// The whole text, UTF-8.
  public var text: [UInt8]
  /// The byte ranges of the answers, in order. A token belongs to an answer if it ends inside one, after its first byte.
  public var answers: [Range<Int>]
  /// The byte ranges that a template wrote as control tokens; the same spelling elsewhere is plain text.
  public var controls: [Range<Int>] = []
  /// Whether the text ends as it should already, so that no end token follows.
  public var endsItself = false

  /// A text with its answers.
  public init(text: [UInt8], answers: [Range<Int>]) {
    self.text = text
    self.answers = answers
  }

  /// Adds a control token's spelling.
  mutating func appendControl(_ spelling: String) {
    let start = text.count
    text += Array(spelling.utf8)
    controls.append(start..<text.count)
  }

  /// A conversation in ChatML, of which every turn of the assistant is an answer, its end included.
  public init(conversation: [ChatMessage]) {
    (text, answers, endsItself) = ([], [], true)
    for message in conversation {
      appendControl("<|im_start|>")
      text += Array("\(message.role)\n".utf8)
      let start = text.count
      text += Array(message.content.utf8)
      appendControl("<|im_end|>")
      if message.role == "assistant" { answers.append(start..<text.count) }
      text.append(UInt8(ascii: "\n"))
    }
  }

  /// A prompt and the answer that follows it without anything between.
  public init(prompt: String, answer: String) {
    let prompt = Array(prompt.utf8)
    text = prompt + Array(answer.utf8)
    answers = [prompt.count..<text.count]
  }

  /// True if the token that covers `bytes` belongs to an answer.
  func isAnswer(_ bytes: Range<Int>) -> Bool { answers.contains { $0.lowerBound < bytes.upperBound && bytes.upperBound <= $0.upperBound } }
}

/// What training asks of a tokenizer.
public protocol TextEncoder: Sendable {
  /// The tokens of a text, with the byte after each one's last; no begin or end token is added.
  func tokens(of text: [UInt8]) -> [(id: Int32, end: Int)]
  /// The control token of this spelling, if there is one.
  func controlToken(_ spelling: [UInt8]) -> Int32?
  /// The token that begins every text, where the tokenizer adds one.
  var leadingToken: Int32? { get }
  /// The token that ends an answer.
  var endToken: Int32? { get }
}

/// A sample as tokens.
public struct EncodedSample: Equatable, Sendable {
  /// Token ids.
  public var ids: [Int32]
  /// For each column whether its token counts as a label; the first never does.
  public var counts: [Bool]
  /// Tokens of the prompt that were cut from the left because the sample was too long.
  public var cut: Int

  /// Which columns a loss counts: `--loss-on`.
  public enum LossColumns: String, Sendable, CaseIterable {
    /// The answers and the end token.
    case answer
    /// Every column but the first.
    case all
  }

  /// Encodes a sample as one text: a begin token where the tokenizer adds one, the text, the end token.
  ///
  /// What is longer than `length` loses tokens of the prompt from the left, after the begin token; an answer is never cut,
  /// so a sample whose answers alone are longer stays longer.
  public init(_ sample: TextSample, with encoder: some TextEncoder, lossOn columns: LossColumns, length: Int, addsEndToken: Bool) {
    let begin = encoder.leadingToken.map { [$0] } ?? []
    let tokens = Self.tokens(of: sample, encoder)
    var ids = begin + tokens.map(\.id)
    var isAnswer = begin.map { _ in false }
    var start = 0
    for token in tokens {
      isAnswer.append(sample.isAnswer(start..<token.end))
      start = token.end
    }
    if addsEndToken, !sample.endsItself, let end = encoder.endToken {
      ids.append(end)
      isAnswer.append(true)
    }
    let prompt = (isAnswer.firstIndex(of: true) ?? isAnswer.count) - begin.count
    cut = max(0, min(ids.count - length, prompt))
    ids.removeSubrange(begin.count..<begin.count + cut)
    isAnswer.removeSubrange(begin.count..<begin.count + cut)
    self.ids = ids
    counts = columns == .all ? isAnswer.map { _ in true } : isAnswer
    if !counts.isEmpty { counts[0] = false }
  }

  /// The tokens of the text, its control tokens as such. They part the text, so what lies between is encoded by itself.
  private static func tokens(of sample: TextSample, _ encoder: some TextEncoder) -> [(id: Int32, end: Int)] {
    var tokens: [(id: Int32, end: Int)] = []
    var start = 0
    func appendText(upTo end: Int) {
      guard start < end else { return }
      tokens += encoder.tokens(of: Array(sample.text[start..<end])).map { ($0.id, $0.end + start) }
    }
    for control in sample.controls {
      guard let id = encoder.controlToken(Array(sample.text[control])) else { continue }  // then it is text like the rest
      appendText(upTo: control.lowerBound)
      tokens.append((id, control.upperBound))
      start = control.upperBound
    }
    appendText(upTo: sample.text.count)
    return tokens
  }
}

extension EncodedSample {
  /// A number that tells lists of samples apart, in their order: FNV-1a over all tokens and whether they count.
  ///
  /// - Complexity: O(tokens).
  public static func digest(_ samples: [EncodedSample]) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    func add(_ value: Int) { hash = (hash ^ UInt64(truncatingIfNeeded: value)) &* 0x100_0000_01b3 }
    for sample in samples {
      add(sample.ids.count)
      for (id, counts) in zip(sample.ids, sample.counts) { add(2 * Int(id) + (counts ? 1 : 0)) }
    }
    return hash
  }
}
