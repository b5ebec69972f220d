import Checkpoints
import Tokenization

/// Reads files of samples: the paper's tasks, or lines of one's own.
public enum TrainingData {
  /// The lines of a JSON Lines file, or the elements of a JSON array, each with what messages call it.
  ///
  /// Empty lines are passed over.
  ///
  /// - Throws: `CheckpointError` naming file and line.
  public static func records(_ path: String, limit: Int = .max) throws -> [(json: JSON, name: String)] {
    let file = try MappedFile(path: path)
    let bytes = try file.bytes(in: 0..<file.size)
    if bytes.first(where: { !$0.isWhiteSpace }) == UInt8(ascii: "["), !path.hasSuffix(".jsonl") {
      guard let elements = try JSON(parsing: bytes, file: path).arrayValue else { return [] }
      return elements.prefix(limit).enumerated().map { ($1, "\(path), element \($0 + 1)") }
    }
    var records: [(JSON, String)] = []
    var number = 0
    for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      number += 1
      guard records.count < limit else { break }
      guard !line.allSatisfy(\.isWhiteSpace) else { continue }
      let name = "\(path), line \(number)"
      records.append((try JSON(parsing: Array(line), file: name), name))
    }
    return records
  }

  /// The questions of `TASK/{split}.jsonl` in a folder.
  ///
  /// - Throws: `CheckpointError` for a file that is missing or empty, and for a bad line.
  public static func questions(_ folder: String, _ task: QuestionTask, split: String, limit: Int = .max) throws -> [QuestionTask.Question] {
    let path = "\(folder)/\(task.rawValue)/\(split).jsonl"
    let questions = try records(path, limit: limit).map { try task.question($0.json, file: $0.name) }
    guard !questions.isEmpty else {
      throw CheckpointError(file: path, found: "no line with a question", expected: "one JSON object a line")
    }
    return questions
  }

  /// The samples of the tasks in a folder, one after the other: prompt, a space, the answer's label.
  ///
  /// - Throws: `CheckpointError` as above.
  public static func samples(_ folder: String, _ tasks: [QuestionTask], split: String, limit: Int = .max) throws -> [TextSample] {
    try tasks.flatMap { task in
      try questions(folder, task, split: split, limit: limit).map { question in
        let prompt = Array(question.prompt.utf8)
        let text = prompt + Array(" \(question.label)".utf8)
        return TextSample(text: text, answers: [prompt.count..<text.count])
      }
    }
  }

  /// The samples of a file of one's own. Every record has one of these forms:
  ///
  /// - `instruction`, optional `input`, `output`: the template's prompt, then the output;
  /// - `prompt`, `completion`: one after the other;
  /// - `text`: all of it is learnt;
  /// - `messages`, a list of `role` and `content`: ChatML, every assistant turn is learnt.
  ///
  /// - Throws: `CheckpointError` naming file and line, also for an empty file.
  public static func samples(_ path: String, template: PromptTemplate, limit: Int = .max) throws -> [TextSample] {
    let samples = try records(path, limit: limit).map { try sample($0.json, file: $0.name, template) }
    guard !samples.isEmpty else { throw CheckpointError(file: path, found: "no record", expected: "at least one JSON object") }
    return samples
  }

  /// The samples of a file whose records also name their `task`, by task, in the order of the names.
  ///
  /// - Throws: `CheckpointError` as above.
  public static func samplesByTask(_ path: String, template: PromptTemplate) throws -> [(task: String, samples: [TextSample])] {
    var tasks: [String: [TextSample]] = [:]
    for record in try records(path) {
      let task = try JSONReader(fieldsOf: record.json, file: record.name).string("task")
      tasks[task, default: []].append(try sample(record.json, file: record.name, template))
    }
    guard !tasks.isEmpty else { throw CheckpointError(file: path, found: "no record", expected: "at least one JSON object") }
    return tasks.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
  }

  private static func sample(_ record: JSON, file: String, _ template: PromptTemplate) throws -> TextSample {
    let fields = JSONReader(fieldsOf: record, file: file)
    if fields["messages"] != nil { return try conversation(fields) }
    if fields["instruction"] != nil {
      let input = fields["input"] == nil || fields["input"] == .null ? nil : try fields.string("input")
      let (instruction, output) = (try fields.string("instruction"), try fields.string("output"))
      guard template == .chatML else { return TextSample(prompt: template.prompt(instruction: instruction, input: input), answer: output) }
      let question = PromptTemplate.question(instruction: instruction, input: input)
      return TextSample(conversation: [ChatMessage(role: "user", content: question), ChatMessage(role: "assistant", content: output)])
    }
    if fields["prompt"] != nil { return TextSample(prompt: try fields.string("prompt"), answer: try fields.string("completion")) }
    guard fields["text"] != nil else {
      throw CheckpointError(
        file: file,
        found: record.objectValue.map { "an object with \($0.keys.prefix(8).map { quoted($0) }.joined(separator: ", "))" }
          ?? record.summary,
        expected: "an object with instruction and output, prompt and completion, text, or messages")
    }
    let text = Array(try fields.string("text").utf8)
    return TextSample(text: text, answers: [0..<text.count])
  }

  private static func conversation(_ fields: JSONReader) throws -> TextSample {
    guard let messages = fields["messages"]?.arrayValue, !messages.isEmpty else {
      throw fields.error("messages", fields["messages"]?.summary ?? "nothing", "a list of messages with role and content")
    }
    let sample = TextSample(
      conversation: try messages.enumerated().map { n, message in
        let turn = JSONReader(fieldsOf: message, file: "\(fields.file), message \(n + 1)")
        return ChatMessage(role: try turn.string("role"), content: try turn.string("content"))
      })
    guard !sample.answers.isEmpty else {
      throw fields.error("messages", "no message of the assistant", "at least one, for only those are learnt")
    }
    return sample
  }
}

extension UInt8 {
  fileprivate var isWhiteSpace: Bool { self == 0x20 || self == 0x09 || self == 0x0a || self == 0x0d }
}
