import Checkpoints

/// The multiple-choice tasks of the paper, with the prompts of the authors' code (MoE-PEFT `tasks/qa_tasks.py`).
///
/// A line of a task's file is a JSON object with the field names of the Hugging Face data set.
public enum QuestionTask: String, CaseIterable, Sendable {
  /// ARC, easy questions.
  case arcEasy = "arc-e"
  /// ARC, challenging questions.
  case arcChallenge = "arc-c"
  /// BoolQ, without its passages.
  case boolQ = "boolq"
  /// OpenBookQA.
  case openBookQA = "obqa"
  /// PIQA.
  case piqa
  /// SIQA.
  case siqa
  /// WinoGrande, debiased.
  case winoGrande = "winogrande"

  /// All labels that an answer may have: what the authors' scoring chooses among.
  public var labels: [String] {
    switch self {
    case .arcEasy, .arcChallenge: ["1", "2", "3", "4", "A", "B", "C", "D", "E"]
    case .boolQ: ["true", "false"]
    case .openBookQA: ["A", "B", "C", "D"]
    case .piqa, .winoGrande: ["A", "B"]
    case .siqa: ["A", "B", "C"]
    }
  }

  /// A question as it is put to a model.
  public struct Question: Equatable, Sendable {
    /// The prompt, up to the colon after which an answer follows.
    public let prompt: String
    /// The label of the right answer.
    public let label: String
    /// What an answer may say, the texts of the choices (`true` and `false` for BoolQ), each with its label.
    public let candidates: [Candidate]

    /// One of the choices.
    public struct Candidate: Equatable, Sendable {
      /// Its label: `A`.
      public let label: String
      /// Its text.
      public let text: String
    }
  }

  /// Reads a line's question.
  ///
  /// - Parameter file: what messages call the line, file and number.
  /// - Throws: `CheckpointError` naming the line, the key, what was found and what was expected.
  public func question(_ line: JSON, file: String) throws -> Question {
    let fields = JSONReader(fieldsOf: line, file: file)
    switch self {
    case .arcEasy, .arcChallenge: return try question(choicesOf: fields, stem: "question")
    case .openBookQA: return try question(choicesOf: fields, stem: "question_stem")
    case .boolQ:
      let answer = try fields.bool("answer")
      return Question(
        prompt: "Please answer the following question with true or false: \(try fields.string("question"))?\nAnswer:",
        label: answer ? "true" : "false", candidates: labels.map { .init(label: $0, text: $0) })
    case .piqa:
      let texts = [try fields.string("sol1"), try fields.string("sol2")]
      let prompt =
        "Below is a common task along with two possible solutions labeled (A) and (B). Please select the appropriate solution to achieve the task:\n"
        + "\(try fields.string("goal"))\n\n(A) \(texts[0])\n(B) \(texts[1])\n\nCorrect solution:"
      return question(prompt, texts, labels[try fields.choice("label", in: 0...1)])
    case .siqa:
      let texts = [try fields.string("answerA"), try fields.string("answerB"), try fields.string("answerC")]
      let prompt =
        "Please choose the correct answer to the question.\nQuestion: \(try fields.string("context")) \(try fields.string("question"))"
        + "\n(A) \(texts[0])\n(B) \(texts[1])\n(C) \(texts[2])\nAnswer:"
      return question(prompt, texts, labels[try fields.choice("label", in: 1...3) - 1])
    case .winoGrande:
      let texts = [try fields.string("option1"), try fields.string("option2")]
      let prompt =
        "Please choose the correct answer to fill in the blank to complete the given sentence.\nSentence: \(try fields.string("sentence"))"
        + "\n(A) \(texts[0])\n(B) \(texts[1])\nAnswer:"
      return question(prompt, texts, labels[try fields.choice("answer", in: 1...2) - 1])
    }
  }

  private func question(_ prompt: String, _ texts: [String], _ label: String) -> Question {
    let candidates = texts.indices.map { Question.Candidate(label: labels[$0], text: texts[$0]) }
    return Question(prompt: prompt, label: label, candidates: candidates)
  }

  /// ARC and OpenBookQA bring the labels of their choices along.
  private func question(choicesOf fields: JSONReader, stem: String) throws -> Question {
    guard let object = fields["choices"], object.objectValue != nil else {
      throw fields.error("choices", fields["choices"]?.summary ?? "nothing", "an object")
    }
    let choices = JSONReader(fieldsOf: object, file: fields.file)
    let (texts, names) = (try choices.strings("text"), try choices.strings("label"))
    guard texts.count == names.count, !texts.isEmpty else {
      throw choices.error("label", "\(names.count) labels for \(texts.count) texts", "one label for each choice")
    }
    let candidates = zip(names, texts).map { Question.Candidate(label: $0, text: $1) }
    let prompt = "Please choose the correct answer to the question: " + (try fields.string(stem))
    let listed = candidates.map { " (\($0.label)) \($0.text)" }.joined()
    let answer = try fields.string("answerKey")
    guard labels.contains(answer), names.contains(answer) else {
      throw fields.error("answerKey", "\"\(answer)\"", "one of the choices' labels, \(names.joined(separator: ", "))")
    }
    return Question(prompt: prompt + listed + "\nAnswer:", label: answer, candidates: candidates)
  }
}

extension KeyedReader where Value == JSON {
  /// A whole number, written as a number or, as some data sets have it, as a string.
  fileprivate func choice(_ key: String, in range: ClosedRange<Int>) throws -> Int {
    let expected = "a whole number in \(range)"
    let value = try required(key, expected)
    guard let number = value.intValue ?? value.stringValue.flatMap({ Int($0) }), range.contains(number) else {
      throw error(key, value, expected)
    }
    return number
  }
}

extension QuestionTask {
  /// The tasks of a list of names separated by ';'; nil without a list.
  ///
  /// - Throws: ``SettingsError`` naming what is no task.
  public static func list(_ names: String?) throws -> [QuestionTask]? {
    try names?.split(separator: ";").map { name in
      guard let task = QuestionTask(rawValue: String(name)) else {
        throw SettingsError(
          "\(setting: "task") names '\(name)', expected names among \(QuestionTask.allCases.map(\.rawValue).joined(separator: ";"))")
      }
      return task
    }
  }

  /// The tasks of a list, else those that a folder has a file of.
  ///
  /// - Throws: ``SettingsError`` as `list(_:)`, `CheckpointError` if there is no task.
  public static func chosen(_ names: String?, in folder: String, split: String) throws -> [QuestionTask] {
    let tasks = try list(names) ?? allCases.filter { Folder.exists("\(folder)/\($0.rawValue)/\(split).jsonl") }
    guard !tasks.isEmpty else {
      throw CheckpointError(
        file: folder, found: "no TASK/\(split).jsonl", expected: "one of \(allCases.map(\.rawValue).joined(separator: ", "))")
    }
    return tasks
  }
}
