import ArgumentParser
import Checkpoints
import Decoders
import Evaluation
import Platform
import Samples
import Tensors
import Tokenization
import Training

/// Asks a model the questions of the paper's tasks, or measures its loss on a file.
struct EvaluateCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate",
    abstract: "Measure how well a model answers the paper's tasks, or predicts a file.",
    discussion: """
      --data is a folder of TASK/test.jsonl, or a file as train takes it. Of a file the mean cross-entropy of the columns that count is \
      printed: what train calls validation_loss; perplexity is its exponential, tokens are those columns. Records that are too long \
      are dealt with as in train (--too-long). A question of a task is never cut; those too long for the model are asked and scored like the others, and counted. Several \
      adapters are asked in the same batches, over one base; those that change it (PiSSA, saved modules) follow, each by itself. Ranks \
      that mpirun or srun started share the batches out.

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
  var split = Setting("test")
  @Option(help: ArgumentHelp("Take the first N questions of each task, or records of a file.", valueName: "n"))
  var limit: Int?
  @OptionGroup var sampling: SampleOptions
  @Flag(help: "Print one JSON object for each adapter, and task.")
  var json = false
  @OptionGroup var ranks: RankOptions
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    if let limit, limit < 1 { throw ValidationError("--limit is \(limit), expected at least 1.") }
    guard ["train", "test"].contains(split.value) else { throw ValidationError("--split is '\(split.value)', expected train or test.") }
    try validating {
      _ = try QuestionTask.list(task)
      try encoding.check()
    }
  }

  private var encoding: SampleEncoding {
    var encoding = SampleEncoding()
    sampling.override(&encoding)
    return encoding
  }

  func run() throws {
    let isFolder = MappedFile.isFolder(data)
    if let name = isFolder ? sampling.given.first : task != nil ? "--task" : split.isGiven ? "--split" : nil {
      throw UsageError("\(name) goes with a \(isFolder ? "file" : "folder of tasks"); \(data) is \(isFolder ? "a folder" : "none").")
    }
    try Ranks.join(ranks)
    try compute(threads: Ranks.agreedThreads(common))
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    try MappedFile.isFolder(data) ? answerTasks(on: backend) : measureLoss(on: backend)
  }

  /// The loss of each adapter on a file.
  private func measureLoss<B: Backend>(on backend: B) throws {
    let tokenizer = try Tokenizer(model: model)
    let files = try ModelFolder(model)
    writeNotes(tokenizer.notes + files.configuration.notes(on: model))
    let texts = try TrainingData.samples(data, template: sampling.template.value, limit: limit ?? .max, note: writeNote)
    let encoded = try encoding.samples(
      texts, with: tokenizer, chat: ChatLayout(model: model, tokenizer, encoding), vocabulary: files.configuration.vocabulary,
      positions: files.configuration.contextLength, from: data, note: writeNote)
    let samples = encoded.samples
    for group in groups(on: files.configuration) {
      let decoder = try files.decoder(adapters: group.map { .folder($0) }, on: backend)
      let losses = try decoder.meanLosses(
        of: samples, adapters: Array(0..<max(1, group.count)), batch: max(1, 16 / max(1, group.count)), ranks: Ranks.current, on: backend)
      for (n, (loss, tokens)) in losses.enumerated() {
        let adapter = group.isEmpty ? nil : group[n]
        guard loss.isFinite else { throw NonFiniteValue("the loss on \(data)", at: adapter ?? model, "is \(loss)") }
        let line: JSON = [
          "adapter": adapter.map { .string($0) } ?? .null, "loss": JSON(loss), "perplexity": JSON(Double.exp(loss)), "tokens": JSON(tokens),
          "samples_cut": JSON(encoded.cut), "samples_dropped": JSON(encoded.dropped),
        ]
        show(
          json
            ? line.serialized()
            : "\(adapter ?? "base")  loss \(fixed(loss, 4))  perplexity \(fixed(Double.exp(loss), 3))  \(tokens) tokens of \(samples.count) records"
        )
      }
    }
  }

  /// Prints a line, once where there are several ranks.
  private func show(_ line: String) { if Ranks.isFirst { print(line) } }

  /// The adapters that are asked together: those that share the base, then each by itself that changes it; none is the base model. Where
  /// angles depend on the longest sequence of a batch, each is asked by itself: another's would stand beside other questions.
  private func groups(on configuration: DecoderConfiguration) -> [[String]] {
    if adapter.count < 2 { return [adapter] }
    if configuration.rotary.scaling.map({ $0.dependence(on: .max) != 0 }) ?? false { return adapter.map { [$0] } }
    // One that cannot be read is said where it is opened.
    let changing = adapter.filter { (try? AdapterConfiguration(contentsOf: "\($0)/adapter_config.json"))?.replacesBase ?? false }
    let sharing = adapter.filter { !changing.contains($0) }
    return (sharing.isEmpty ? [] : [sharing]) + changing.map { [$0] }
  }

  /// The accuracies of each adapter on each task.
  private func answerTasks<B: Backend>(on backend: B) throws {
    let tasks = try QuestionTask.chosen(task, in: data, split: split.value)
    let (tokenizer, files) = (try Tokenizer(model: model), try ModelFolder(model))
    writeNotes(tokenizer.notes + files.configuration.notes(on: model))
    let questions = try tasks.map { ($0, try TrainingData.questions(data, $0, split: split.value, limit: limit ?? .max)) }
    let longest = questions.flatMap(\.1).map { $0.prompt.utf8.count + ($0.candidates.map(\.text.utf8.count).max() ?? 0) + 2 }.max() ?? 2
    guard longest <= 1 << 16 else {
      throw CheckpointError(file: data, found: "a question of \(longest) bytes", expected: "at most \(1 << 16)")
    }
    for (n, group) in groups(on: files.configuration).enumerated() {
      let decoder = try files.decoder(adapters: group.map { .folder($0) }, on: backend)
      for (task, questions) in questions {
        func score(_ asked: Range<Int>) throws -> [AnswerScores] {
          do {
            return try AnswerScoring(decoder, adapters: asked, ranks: Ranks.current, on: backend).score(questions, task, with: tokenizer)
          } catch let error
            as NonFiniteValue where asked.count == 1
          {
            throw error.within("\(group.isEmpty ? model : group[asked.lowerBound]), \(task.rawValue)")
          }
        }
        let results: [AnswerScores]
        // One adapter's NaN does not cost the others' answers: each is asked by itself, up to the one that it is.
        do { results = try score(0..<max(1, group.count)) } catch is NonFiniteValue where group.count > 1 && Ranks.current.size == 1 {
          for i in group.indices { show(line(group[i], task, try score(i..<i + 1)[0])) }
          continue
        }
        if results[0].tooLong > 0, n == 0 {
          let positions = decoder.configuration.contextLength ?? 0
          writeNote(
            "\(results[0].tooLong) of \(questions.count) questions of \(task.rawValue) are longer than the \(positions) positions of the model: they are asked whole and count like the others"
          )
        }
        for (i, result) in results.enumerated() {
          let adapter = group.isEmpty ? nil : group[i]
          show(line(adapter, task, result))
        }
      }
    }
  }

  private func figures(_ result: AnswerScores) -> [(name: String, right: Int)] {
    [
      ("accuracy_label", result.byLabel), ("accuracy_likelihood", result.byLikelihood),
      ("accuracy_likelihood_per_byte", result.byLikelihoodPerByte),
    ]
  }

  private func line(_ adapter: String?, _ task: QuestionTask, _ result: AnswerScores) -> String {
    json ? object(adapter, task, result).serialized() : text(adapter, task, result)
  }

  private func object(_ adapter: String?, _ task: QuestionTask, _ result: AnswerScores) -> JSON {
    var object = JSON.Object()
    object["adapter"] = adapter.map { .string($0) } ?? .null
    object["task"] = .string(task.rawValue)
    object["count"] = JSON(result.count)
    for (name, right) in figures(result) {
      object[name] = JSON(Double(right) / Double(result.count))
      let interval = WilsonInterval(right: right, of: result.count)
      object[name + "_interval"] = [JSON(interval.low), JSON(interval.high)]
    }
    object["majority_baseline"] = JSON(Double(result.majority) / Double(result.count))
    object["questions_too_long"] = JSON(result.tooLong)
    return .object(object)
  }

  private func text(_ adapter: String?, _ task: QuestionTask, _ result: AnswerScores) -> String {
    let parts = figures(result).map { name, right in
      let interval = WilsonInterval(right: right, of: result.count)
      let share = fixed(100 * Double(right) / Double(result.count), 1)
      return "\(name.replacing("accuracy_", with: "")) \(share) % [\(fixed(100 * interval.low, 1)), \(fixed(100 * interval.high, 1))]"
    }
    let baseline = fixed(100 * Double(result.majority) / Double(result.count), 1)
    return "\(adapter ?? "base")  \(pad(task.rawValue, 10)) \(result.count) questions  " + parts.joined(separator: "  ")
      + "  majority \(baseline) %" + (result.tooLong > 0 ? "  (\(result.tooLong) too long, asked all the same)" : "")
  }
}
