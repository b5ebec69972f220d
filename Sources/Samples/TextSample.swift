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
      appendControl(ChatML.begin)
      text += Array(ChatML.heading(message.role).utf8)
      let start = text.count
      text += Array(message.content.utf8)
      appendControl(ChatML.end)
      if message.role == "assistant" { answers.append(start..<text.count) }
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
  func isAnswer(_ bytes: Range<Int>) -> Bool { answers.contains { $0.lowerBound < bytes.upperBound && bytes.upperBound <= $0.upperBound } }
}
