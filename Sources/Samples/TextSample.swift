import Tokenization

/// A text to learn from, and which parts of it are answers.
public struct TextSample: Equatable, Sendable {
  /// The whole text, UTF-8.
  public var text: [UInt8]
  /// The byte ranges of the answers, in order. A token belongs to an answer if it ends inside one, after its first byte.
  public var answers: [Range<Int>]
  /// The conversation that it is; nil for a text.
  public var conversation: LearntConversation?
  /// What messages call the sample: its file and line.
  public var name = ""
  /// Whether the text ends as it should already, so that no end token follows.
  public var endsItself = false

  /// A text with its answers.
  public init(text: [UInt8], answers: [Range<Int>]) {
    self.text = text
    self.answers = answers
  }

  /// A conversation. Its text is laid out by a model's template, so there is none yet.
  public init(_ conversation: LearntConversation) {
    self.conversation = conversation
    (text, answers, endsItself) = ([], [], true)
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
