import Checkpoints
import Evaluation
import Generation
import Layers
import Platform
import Samples
import Tensors
import Tokenization
import Training

/// One run of `mixlora demo`: two trainings, three evaluations, a page that shows them.
struct Demo {
  private let options: DemoCommand
  private let out: String

  init(_ options: DemoCommand, out: String) {
    self.options = options
    self.out = out
  }

  /// One method's run and what it reached.
  struct Outcome {
    /// Its name in tables and pictures.
    let name: String
    let color: String
    /// Trained parameters; 0 for the base model.
    var parameters = 0
    /// The loss of each step.
    var losses: [Double] = []
    /// By task, in the order of the tasks.
    var results: [MatchedAnswers] = []
    /// What it answers to each task's first question.
    var samples: [String] = []
  }

  /// A task's questions.
  struct Task {
    let name: String
    let questions: [PackedSequence]
    /// The first question as text, with the answer that it should get.
    let prompt: String
    let answer: String
  }

  func run<B: Backend>(on backend: B) throws {
    let start = POSIX.seconds
    try say(
      """
      MixLoRA demo: a small base model learns six tasks in one run, by MixLoRA and by plain LoRA of equal size.
      Nothing is needed but this program; everything is written to \(out).

      """)
    try DemoFiles.write(to: out)
    let tokenizer = try Tokenizer(model: out + "/base")
    let tasks = try readTasks(tokenizer)

    var base = Outcome(name: "base", color: "#b4b9c1")
    try ask(&base, tasks, adapter: nil, on: backend)
    var plain = Outcome(name: "LoRA", color: "#c2571a")
    try train(&plain, .lora, on: backend)
    try ask(&plain, tasks, adapter: "lora", on: backend)
    var mixture = Outcome(name: "MixLoRA", color: "#1f5fa8")
    try train(&mixture, .mixlora, on: backend)
    try ask(&mixture, tasks, adapter: "mixlora", on: backend)

    let report = DemoReport(
      tasks: tasks, outcomes: [base, plain, mixture], out: out, options: options, seconds: POSIX.seconds - start)
    try report.writeFiles()
    print(options.json ? try report.json().serialized() : report.text)
  }

  // MARK: Its parts

  /// The tasks of `data/test.jsonl`, in the order of their names.
  private func readTasks(_ tokenizer: Tokenizer) throws -> [Task] {
    try TrainingData.samplesByTask(out + "/data/test.jsonl", template: .moePEFT).map { name, samples in
      let first = samples[0]
      let answer = first.answers[0]
      return Task(
        name: name,
        questions: samples.map {
          EncodedSample($0, with: tokenizer, lossOn: .answer, addsEndToken: true).sequence
        },
        prompt: String(decoding: first.text[..<answer.lowerBound], as: UTF8.self),
        answer: String(decoding: first.text[answer], as: UTF8.self))
    }
  }

  /// Trains as `mixlora train` does: the demo has no loop of its own.
  private func train<B: Backend>(_ outcome: inout Outcome, _ method: TrainingRecipe.Method, on backend: B) throws {
    try say("\(outcome.name): \(options.steps) steps of \(DemoSettings.batch) samples\n")
    var recipe = DemoSettings.recipe(method, folder: out, steps: options.steps, seed: options.seed)
    recipe.threads = options.common.threadCount
    let run = try TrainingRun(recipe, out: "\(out)/\(method.rawValue)", on: backend)
    try run.prepare()
    _ = try run.run(quiet: options.common.quiet || options.json)
    outcome.parameters = run.parameterCount
    outcome.losses = run.metrics.map(\.loss)
  }

  private func ask<B: Backend>(_ outcome: inout Outcome, _ tasks: [Task], adapter: String?, on backend: B) throws {
    let model = try LoadedModel(out + "/base", adapter: adapter.map { "\(out)/\($0)" }, on: backend)
    let matching = AnswerMatching(model.decoder, on: backend)
    outcome.results = try tasks.map { try matching.ask($0.questions) }
    outcome.samples = try model.generate(tasks.map(\.prompt), GenerationSettings(tokens: 12)).map(\.text)
  }

  /// Prints to standard output for a person; a machine gets its one line at the end.
  private func say(_ text: String) throws {
    guard !options.json else { return }
    try writeOutput(text + "\n")  // a pipe shows it now, too
  }
}
