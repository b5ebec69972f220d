import Tokenization

/// A text to learn from, and which parts of it are answers.
public struct TextSample: Equatable, Sendable {
  /// The whole text, UTF-8.
  public var text: [UInt8]
  /// The byte ranges of the answers, in order. A token belongs to an answer if it ends inside one, after its first byte.
  public var answers: [Range<Int>]
  /// The byte ranges that a template wrote as control tokens; the same spelling elsewhere is plain text.
  public var controls: [Range<Int>] = []
  /// The byte ranges that no loss counts, whatever else it counts.
  public var excluded: [Range<Int>] = []
  /// What messages call the sample: its file and line.
  public var name = ""
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

  /// A conversation in ChatML. An answer is a turn with its end.
  ///
  /// - Parameters:
  ///   - learning: the numbers of the messages that are answers; nil for all of the assistant.
  ///   - leavingOut: the numbers of the messages that no loss counts.
  public init(conversation: [ChatMessage], learning: Set<Int>? = nil, leavingOut: Set<Int> = []) {
    (text, answers, endsItself) = ([], [], true)
    for (n, message) in conversation.enumerated() {
      appendControl(ChatML.begin)
      text += Array(ChatML.heading(message.role).utf8)
      let start = text.count
      text += Array(message.content.utf8)
      appendControl(ChatML.end)
      if learning?.contains(n) ?? (message.role == "assistant") { answers.append(start..<text.count) }
      if leavingOut.contains(n) { excluded.append(start..<text.count) }
      text += Array(ChatML.separator.utf8)
    }
  }

  /// A prompt and the answer that follows it without anything between.
  public init(prompt: String, answer: String) {
    let prompt = Array(prompt.utf8)
    text = prompt + Array(answer.utf8)
    answers = [prompt.count..<text.count]
  }

  /// True if the token that covers `bytes` belongs to an answer.
  func isAnswer(_ bytes: Range<Int>) -> Bool { Self.token(bytes, endsIn: answers) }

  /// True if no loss counts the token that covers `bytes`.
  func isExcluded(_ bytes: Range<Int>) -> Bool { Self.token(bytes, endsIn: excluded) }

  private static func token(_ bytes: Range<Int>, endsIn ranges: [Range<Int>]) -> Bool {
    ranges.contains { $0.lowerBound < bytes.upperBound && bytes.upperBound <= $0.upperBound }
  }
}
