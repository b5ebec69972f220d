import Checkpoints
import Tokenization

/// Turns the records of one file into samples, and counts what of them nothing reads.
///
/// A record has the form of the first of these keys that it has; null is as good as no value, since a data set whose records differ
/// has null where one lacks what others have:
///
/// - `messages`, a list of turns with `role` and `content`: every turn of the assistant is learnt, unless its `weight` is 0;
/// - `instruction`, `output`, optional `input`, `system` and `history`;
/// - `prompt`, `completion`: one after the other;
/// - `text`: all of it is learnt.
struct RecordReader {
  private let template: PromptTemplate
  /// Keys that nothing read, in the order in which they were met, and how many records have each.
  private var unread: [(key: String, records: Int)] = []
  private var places: [String: Int] = [:]
  /// The keys of the record that is being read.
  private var unreadHere: Set<String> = []

  /// The notes name this many keys; a hostile file may have any number.
  private static let namedKeys = 8
  private static let countedKeys = 1000

  init(template: PromptTemplate) { self.template = template }

  /// The sample of a record.
  ///
  /// - Parameters:
  ///   - file: what messages call the record.
  ///   - known: keys that somebody else reads.
  /// - Throws: `CheckpointError` naming file, line and key.
  mutating func sample(_ record: JSON, file: String, known: Set<String> = []) throws -> TextSample {
    let fields = try JSONReader(record, file: file, Self.expected)
    var sample: TextSample
    if fields.value("messages") != nil {
      sample = try conversation(fields)
    } else if fields.value("instruction") != nil {
      sample = try instruction(fields)
    } else if fields.value("prompt") != nil {
      sample = TextSample(prompt: try fields.string("prompt"), answer: try fields.string("completion"))
    } else if fields.value("text") != nil {
      let text = Array(try fields.string("text").utf8)
      sample = TextSample(text: text, answers: [0..<text.count])
    } else {
      throw Self.unknownForm(record, file: file)
    }
    sample.name = file
    for key in fields.unknownNames where !known.contains(key) && fields[key] != .null { unreadHere.insert(key) }
    for key in unreadHere.sorted() { count(key) }
    unreadHere = []
    return sample
  }

  /// What a user may want to know of the keys that were not read; nil if there are none.
  func note(_ file: String) -> SettingsText? {
    guard !unread.isEmpty else { return nil }
    let named = unread.prefix(Self.namedKeys).map { "\(quoted($0.key)) (\($0.records))" }.joined(separator: ", ")
    let more = unread.count > Self.namedKeys ? " and \(unread.count - Self.namedKeys) more" : ""
    return "\(file) has keys that nothing reads, with the number of records that have them: \(named)\(more)"
  }

  private mutating func count(_ key: String) {
    if let place = places[key] {
      unread[place].records += 1
    } else if unread.count < Self.countedKeys {
      places[key] = unread.count
      unread.append((key, 1))
    }
  }

  private static let expected = "an object with instruction and output, prompt and completion, text, or messages"

  /// Says what an object has instead, and where a list of records may be hidden in it.
  private static func unknownForm(_ record: JSON, file: String) -> CheckpointError {
    let members = record.objectValue?.members ?? []
    if let turn = record["conversations"]?.arrayValue?.first, turn["from"] != nil, turn["value"] != nil {
      return CheckpointError(
        file: file, found: "conversations of \"from\" and \"value\", as ShareGPT has them",
        expected: "\"messages\" of \"role\" (system, user, assistant) and \"content\"")
    }
    for member in members {
      guard let list = member.value.arrayValue, list.first?.objectValue != nil, list.count > 1 || members.count == 1 else { continue }
      return CheckpointError(
        file: file, found: "an object with a list of \(list.count) objects under \(quoted(member.key))",
        expected: expected + "; if that list holds the records, write it alone into a file")
    }
    let keys = members.prefix(namedKeys).map { quoted($0.key) }.joined(separator: ", ")
    return CheckpointError(file: file, found: members.isEmpty ? "an empty object" : "an object with \(keys)", expected: expected)
  }

  // MARK: Forms

  /// The template's prompt, then the output; earlier turns before it in the same form, each on a line of its own.
  private func instruction(_ fields: JSONReader) throws -> TextSample {
    let (instruction, input) = (try fields.string("instruction"), try fields.optionalString("input"))
    let (system, history) = (try fields.optionalString("system") ?? "", try Self.history(fields))
    let output = try fields.string("output")
    guard template == .chatML else {
      let earlier = (system.isEmpty ? [] : [system]) + history.map { template.prompt(instruction: $0.question) + $0.answer }
      let prompt = (earlier + [template.prompt(instruction: instruction, input: input)]).joined(separator: "\n")
      return TextSample(prompt: prompt, answer: output)
    }
    var turns = system.isEmpty ? [] : [Turn(role: "system", content: system)]
    for turn in history {
      turns.append(Turn(role: "user", content: turn.question))
      turns.append(Turn(role: "assistant", content: turn.answer))
    }
    turns.append(Turn(role: "user", content: PromptTemplate.question(instruction: instruction, input: input)))
    turns.append(Turn(role: "assistant", content: output, isLearnt: true))
    return Self.sample(of: turns)
  }

  /// `[[question, answer], …]`; none if it is absent.
  private static func history(_ fields: JSONReader) throws -> [(question: String, answer: String)] {
    guard let value = fields.value("history") else { return [] }
    let expected = "a list of [question, answer]"
    guard let list = value.arrayValue else { throw fields.error("history", value, expected) }
    return try list.enumerated().map { n, element in
      let parts = element.arrayValue?.compactMap(\.stringValue) ?? []
      guard parts.count == 2, element.arrayValue?.count == 2 else {
        throw fields.error("history[\(n)]", element, "[question, answer], two strings")
      }
      return (parts[0], parts[1])
    }
  }

  private mutating func conversation(_ fields: JSONReader) throws -> TextSample {
    let expected = "a list of messages with role and content"
    guard let messages = fields.value("messages")?.arrayValue, !messages.isEmpty else {
      throw fields.error("messages", fields["messages"] ?? .null, expected)
    }
    let turns = try messages.enumerated().map { n, message in
      let turn = try JSONReader(message, file: fields.file, path: "messages[\(n)]", "an object with role and content")
      let (role, weight) = (try turn.string("role"), try Self.weight(turn))
      // A template may know other forms of content, and other keys.
      if turn.value("content") == nil, turn.value("tool_calls") == nil { _ = try turn.string("content") }
      let isAnswer = role == "assistant"
      if weight == 1, !isAnswer { unreadHere.insert("messages[].weight 1 of \(role)") }
      return Turn(message: ChatMessage(message), isLearnt: isAnswer && weight != 0, isLeftOut: weight == 0)
    }
    guard turns.contains(where: { $0.message.role == "assistant" }) else {
      throw fields.error("messages", "no message of the assistant", "at least one, for only those are learnt")
    }
    return Self.sample(of: turns)
  }

  /// `weight` of a message, 0 or 1: whether its turn is learnt; nil if it is absent.
  private static func weight(_ message: JSONReader) throws -> Int? {
    guard let value = message.value("weight") else { return nil }
    guard let number = value.doubleValue, number == 0 || number == 1 else {
      throw message.error("weight", value, "0 (the turn is not learnt) or 1; other weights are not built")
    }
    return Int(number)
  }

  // MARK: Conversations

  /// A turn, and what a loss has to do with it.
  private struct Turn {
    let message: ChatMessage
    /// Whether it is an answer to learn.
    var isLearnt = false
    /// Whether it does not count even where prompts do.
    var isLeftOut = false

    init(message: ChatMessage, isLearnt: Bool, isLeftOut: Bool) {
      (self.message, self.isLearnt, self.isLeftOut) = (message, isLearnt, isLeftOut)
    }

    init(role: String, content: String, isLearnt: Bool = false) {
      self.init(message: ChatMessage(role: role, content: content), isLearnt: isLearnt, isLeftOut: false)
    }
  }

  /// The sample of a conversation, which the model's template lays out later.
  private static func sample(of turns: [Turn]) -> TextSample {
    func numbers(_ property: KeyPath<Turn, Bool>) -> Set<Int> { Set(turns.indices.filter { turns[$0][keyPath: property] }) }
    return TextSample(LearntConversation(turns.map(\.message), learning: numbers(\.isLearnt), leavingOut: numbers(\.isLeftOut)))
  }
}

extension KeyedReader where Value == JSON {
  /// A string; nil if it is absent or null.
  fileprivate func optionalString(_ key: String) throws -> String? { try value(key) == nil ? nil : string(key) }
}
