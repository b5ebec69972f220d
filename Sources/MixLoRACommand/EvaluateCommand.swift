import ArgumentParser
import CPUBackend
import Checkpoints
import Decoders
import Tokenization
import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Asks a model the questions of the paper's tasks, or measures its loss on a file.
struct EvaluateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate",
    abstract: "Measure how well a model answers the paper's tasks, or predicts a file.",
    discussion: """
      --data is a folder of TASK/test.jsonl, or a file as train takes it. Of a file the mean cross-entropy of the columns that count is \
      printed: what train calls validation_loss; perplexity is its exponential, tokens are those columns.

      Of tasks, accuracy_label is the authors' way: the likeliest label after the prompt; \
      accuracy_likelihood takes the candidate whose text is likeliest, accuracy_likelihood_per_byte the likeliest a byte. Each \
      comes with its 95 % interval (Wilson); majority_baseline is what always giving the commonest answer would reach.

      Examples:
        mixlora evaluate --model m --data tasks --task 'arc-e;boolq' --limit 200
        mixlora evaluate --model m --adapter run --data tasks --json
        mixlora evaluate --model m --adapter run --adapter other --data held-out.jsonl --loss-on answer
      """)

  @Option(help: ArgumentHelp("Model: a Hugging Face folder or a GGUF file.", valueName: "path"))
  var model: String
  @Option(help: ArgumentHelp("Adapter folder; may be given several times. Without one the base model answers.", valueName: "folder"))
  var adapter: [String] = []
  @Option(help: ArgumentHelp("Folder of tasks, or a file.", valueName: "path"))
  var data: String
  @Option(help: ArgumentHelp("Tasks, separated by ';' (default: all that are there).", valueName: "tasks"))
  var task: String?
  @Option(help: "Which file of a task: train or test.")
  var split = "test"
  @Option(help: ArgumentHelp("Take the first N questions of each task, or records of a file.", valueName: "n"))
  var limit: Int?
  @OptionGroup var sampling: SampleOptions
  @Flag(help: "Print one JSON object for each adapter, and task.")
  var json = false
  @OptionGroup var common: CommonOptions

  func validate() throws {
    if let limit, limit < 1 { throw ValidationError("--limit is \(limit), expected at least 1.") }
    guard ["train", "test"].contains(split) else { throw ValidationError("--split is '\(split)', expected train or test.") }
    _ = try QuestionTask.list(task)
  }

  func run() throws {
    let isFolder = MappedFile.isFolder(data)
    let others = isFolder ? ["--template", "--loss-on", "--length", "--no-end-token"] : ["--task", "--split"]
    if let name = others.first(where: Arguments.names.contains) {
      throw UsageError("\(name) goes with a \(isFolder ? "file" : "folder of tasks"); \(data) is \(isFolder ? "a folder" : "none").")
    }
    try isFolder ? answerTasks() : measureLoss()
  }

  /// The loss of each adapter on a file.
  private func measureLoss() throws {
    let tokenizer = try Tokenizer(model: model)
    let files = try ModelFolder(model)
    let samples = try sampling.encoded(
      TrainingData.samples(data, template: sampling.template, limit: limit ?? .max), with: tokenizer,
      vocabulary: files.configuration.vocabulary, from: data)
    let backend = CPUFloat(threads: common.threadCount)
    for adapter in origins {
      let decoder: Decoder<CPUFloat> = try files.decoder(
        adapter: adapter.map { .folder($0) } ?? .none, on: backend)
      let (loss, tokens) = try decoder.meanLoss(of: samples, batch: 16, on: backend)
      guard loss.isFinite else { throw NumericalFailure(description: "\(adapter ?? model): the loss on \(data) is \(loss)") }
      let line: JSON = [
        "adapter": adapter.map { .string($0) } ?? .null, "loss": JSON(loss), "perplexity": JSON(exp(loss)), "tokens": JSON(tokens),
      ]
      print(
        json
          ? line.serialized()
          : "\(adapter ?? "base")  loss \(fixed(loss, 4))  perplexity \(fixed(exp(loss), 3))  \(tokens) tokens of \(samples.count) records")
    }
  }

  /// The adapters; nil is the base model.
  private var origins: [String?] { adapter.isEmpty ? [nil] : adapter.map { Optional($0) } }

  /// The accuracies of each adapter on each task.
  private func answerTasks() throws {
    let tasks = try QuestionTask.chosen(task, in: data, split: split)
    let tokenizer = try Tokenizer(model: model)
    let questions = try tasks.map { ($0, try TrainingData.questions(data, $0, split: split, limit: limit ?? .max)) }
    let longest = questions.flatMap(\.1).map { $0.prompt.utf8.count + ($0.candidates.map(\.text.utf8.count).max() ?? 0) + 2 }.max() ?? 2
    guard longest <= 1 << 16 else {
      throw CheckpointError(file: data, found: "a question of \(longest) bytes", expected: "at most \(1 << 16)")
    }
    let backend = CPUFloat(threads: common.threadCount)
    for adapter in origins {
      let decoder: Decoder<CPUFloat> = try ModelFolder.load(
        model, adapter: adapter.map { .folder($0) } ?? .none,
        on: backend)
      for (task, questions) in questions {
        let result: AnswerScoring<CPUFloat>.Result
        do { result = try AnswerScoring(decoder, on: backend).score(questions, task, with: tokenizer) } catch let error
          as AnswerScoring<CPUFloat>.NonFiniteScore
        { throw NumericalFailure(description: "\(adapter ?? model), \(task.rawValue): \(error)") }
        print(json ? line(adapter, task, result).serialized() : text(adapter, task, result))
      }
    }
  }

  private func figures(_ result: AnswerScoring<CPUFloat>.Result) -> [(name: String, right: Int)] {
    [
      ("accuracy_label", result.byLabel), ("accuracy_likelihood", result.byLikelihood),
      ("accuracy_likelihood_per_byte", result.byLikelihoodPerByte),
    ]
  }

  private func line(_ adapter: String?, _ task: QuestionTask, _ result: AnswerScoring<CPUFloat>.Result) -> JSON {
    var object = JSON.Object()
    object["adapter"] = adapter.map { .string($0) } ?? .null
    object["task"] = .string(task.rawValue)
    object["count"] = JSON(result.count)
    for (name, right) in figures(result) {
      object[name] = JSON(Double(right) / Double(result.count))
      let interval = wilsonInterval(right: right, count: result.count)
      object[name + "_interval"] = [JSON(interval.low), JSON(interval.high)]
    }
    object["majority_baseline"] = JSON(Double(result.majority) / Double(result.count))
    return .object(object)
  }

  private func text(_ adapter: String?, _ task: QuestionTask, _ result: AnswerScoring<CPUFloat>.Result) -> String {
    let parts = figures(result).map { name, right in
      let interval = wilsonInterval(right: right, count: result.count)
      let share = fixed(100 * Double(right) / Double(result.count), 1)
      return "\(name.replacing("accuracy_", with: "")) \(share) % [\(fixed(100 * interval.low, 1)), \(fixed(100 * interval.high, 1))]"
    }
    let baseline = fixed(100 * Double(result.majority) / Double(result.count), 1)
    return "\(adapter ?? "base")  \(pad(task.rawValue, 10)) \(result.count) questions  " + parts.joined(separator: "  ")
      + "  majority \(baseline) %"
  }
}

extension QuestionTask {
  /// The tasks of a list separated by ';'; nil without a list.
  static func list(_ names: String?) throws -> [QuestionTask]? {
    try names?.split(separator: ";").map { name in
      guard let task = QuestionTask(rawValue: String(name)) else {
        throw ValidationError(
          "--task names '\(name)', expected names among \(QuestionTask.allCases.map(\.rawValue).joined(separator: ";"))")
      }
      return task
    }
  }

  /// The tasks of a list, else those that a folder has a file of.
  static func chosen(_ names: String?, in folder: String, split: String) throws -> [QuestionTask] {
    let tasks = try list(names) ?? allCases.filter { Folder.exists("\(folder)/\($0.rawValue)/\(split).jsonl") }
    guard !tasks.isEmpty else {
      throw CheckpointError(
        file: folder, found: "no TASK/\(split).jsonl", expected: "one of \(allCases.map(\.rawValue).joined(separator: ", "))")
    }
    return tasks
  }
}
