import Checkpoints
import Templates

/// One turn of a conversation: an object of which templates see every key.
public struct ChatMessage: Equatable, Sendable {
  /// The whole object.
  public var json: JSON

  /// A turn with all that a file says of it.
  public init(_ json: JSON) { self.json = json }

  /// A turn.
  ///
  /// - Parameter role: who speaks: "system", "user" or "assistant".
  public init(role: String, content: String) { json = ["role": JSON(role), "content": JSON(content)] }

  /// Who speaks; empty where nobody says so.
  public var role: String { json["role"]?.stringValue ?? "" }

  /// The turn with other words.
  func saying(_ content: String) -> ChatMessage {
    guard var object = json.objectValue else { return self }
    object["content"] = JSON(content)
    return ChatMessage(.object(object))
  }
}

/// The control tokens of ChatML, and its layout as a template:
///
///     <|im_start|>role⏎content<|im_end|>⏎      each turn
///     <|im_start|>assistant⏎                   the beginning of an answer
public enum ChatML {
  /// The control token that begins a turn.
  public static let begin = "<|im_start|>"
  /// The control token that ends a turn.
  public static let end = "<|im_end|>"

  /// The layout as a template of Jinja.
  public static let template = """
    {% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
    """
}

/// How a model's conversations are written: the template that its files bring, and the special tokens that it sees.
public struct ChatTemplate: Sendable {
  /// The file, for messages.
  public let file: String
  /// Where in it the template stands.
  private let place: CheckpointError.Place
  private let template: Template
  private let specialTokens: JSON.Object

  /// Reads a template.
  ///
  /// - Parameters:
  ///   - place: where in the file it stands, for messages.
  ///   - specialTokens: what it sees beside the messages, by name: `bos_token` and the like.
  /// - Throws: `CheckpointError` with the line, for a template that is none.
  public init(_ source: String, file: String, place: CheckpointError.Place = .file, specialTokens: JSON.Object = JSON.Object()) throws {
    (self.file, self.place, self.specialTokens) = (file, place, specialTokens)
    do { template = try Template(source) } catch let error as TemplateError {
      throw CheckpointError(file: file, place: place, found: Self.found(error), expected: "a chat template of Jinja")
    }
  }

  private static func found(_ error: TemplateError) -> String {
    (error.line > 0 ? "in line \(error.line): " : "") + presentable(error.problem)
  }

  /// A conversation as text, and the parts of it that the template marks as generated.
  ///
  /// - Parameter addsGenerationPrompt: whether the beginning of an answer follows.
  /// - Throws: `CheckpointError` with the line and what the template says, for a conversation that it does not take.
  public func text(_ messages: [ChatMessage], addsGenerationPrompt: Bool = false) throws -> (text: String, generations: [Range<Int>]) {
    var values: [(name: String, value: JSON)] = [
      ("messages", .array(messages.map(\.json))), ("tools", nil), ("documents", nil), ("add_generation_prompt", JSON(addsGenerationPrompt)),
    ]
    values += specialTokens.members.map { ($0.key, $0.value) }
    do {
      let rendering = try template.render(values)
      return (rendering.text, rendering.generations)
    } catch let error as TemplateError {
      throw CheckpointError(
        file: file, place: place, found: (error.isRaised ? "the template's own error " : "an error of the template ") + Self.found(error),
        expected: "a conversation that the template takes")
    }
  }
}
