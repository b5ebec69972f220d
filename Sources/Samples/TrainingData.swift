import Checkpoints
import Tokenization

/// Reads files of samples: the paper's tasks, or lines of one's own.
public enum TrainingData {
  /// The questions of `TASK/{split}.jsonl` in a folder.
  ///
  /// - Throws: `CheckpointError` for a file that is missing or empty, and for a bad line.
  public static func questions(_ folder: String, _ task: QuestionTask, split: String, limit: Int = .max) throws -> [QuestionTask.Question] {
    try namedQuestions(folder, task, split: split, limit: limit).map(\.question)
  }

  /// The questions, each with what messages call it.
  private static func namedQuestions(
    _ folder: String, _ task: QuestionTask, split: String, limit: Int
  ) throws -> [(question: QuestionTask.Question, name: String)] {
    let path = "\(folder)/\(task.rawValue)/\(split).jsonl"
    var questions: [(QuestionTask.Question, String)] = []
    try RecordFile.forEach(path, limit: limit) { questions.append((try task.question($0, file: $1), $1)) }
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
      try namedQuestions(folder, task, split: split, limit: limit).map { question, name in
        var sample = TextSample(prompt: question.prompt, answer: " \(question.label)")
        sample.name = name
        return sample
      }
    }
  }

  /// The samples of a file of one's own: JSON Lines or one JSON array. Every record has one of these forms:
  ///
  /// - `instruction`, optional `input`, `output`: the template's prompt, then the output; before it, where there are any, the text of
  ///   `system` and the turns of `history` ([[question, answer], …], each prompt and output of the same template), a newline between;
  /// - `prompt`, `completion`: one after the other;
  /// - `text`: all of it is learnt;
  /// - `messages`, a list of `role` and `content`: a conversation, of which every assistant turn is learnt but those of `weight` 0.
  ///
  /// - Parameter note: hears which keys of records nothing reads.
  /// - Throws: `CheckpointError` naming file and line, also for an empty file.
  public static func samples(
    _ path: String, template: PromptTemplate, limit: Int = .max, note: (SettingsText) -> Void = { _ in }
  ) throws -> [TextSample] {
    var reader = RecordReader(template: template)
    var samples: [TextSample] = []
    try RecordFile.forEach(path, limit: limit) { samples.append(try reader.sample($0, file: $1)) }
    guard !samples.isEmpty else { throw noRecord(path) }
    if let text = reader.note(path) { note(text) }
    return samples
  }

  /// The samples of a file whose records also name their `task`, by task, in the order of the names.
  ///
  /// - Throws: `CheckpointError` as above.
  public static func samplesByTask(_ path: String, template: PromptTemplate) throws -> [(task: String, samples: [TextSample])] {
    var reader = RecordReader(template: template)
    var tasks: [String: [TextSample]] = [:]
    try RecordFile.forEach(path) { record, name in
      let task = try JSONReader(fieldsOf: record, file: name).string("task")
      tasks[task, default: []].append(try reader.sample(record, file: name, known: ["task"]))
    }
    guard !tasks.isEmpty else { throw noRecord(path) }
    return tasks.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
  }

  private static func noRecord(_ path: String) -> CheckpointError {
    CheckpointError(file: path, found: "no record", expected: "at least one JSON object")
  }
}
