import Checkpoints
import Decoders
import Explaining
import Generation
import Layers
import Platform
import Tensors
import Tokenization
import Traces
import Training

/// What `mixlora explain` runs: a model, a batch, and what there is to say of them.
struct ExplainedRun<B: Backend> {
  let decoder: Decoder<B>
  let batch: TraceBatch
  let subject: ExplorerPage.Subject

  /// The user's model.
  init(_ command: ExplainCommand, model: String, on backend: B) throws {
    let files = try ModelFolder(model)
    let input = command.input
    // A model that runs a batch needs no tokenizer.
    let tokenizer = command.prompt == nil ? try? Tokenizer(model: model) : try Tokenizer(model: model)
    if let prompt = command.prompt, let tokenizer {
      batch = try Self.batch(prompt, command.answer, tokenizer, vocabulary: files.configuration.vocabulary, model)
    } else {
      batch = try input.read(input.batch ?? "", files)
    }
    decoder = try input.decoder(files, hasGradients: batch.hasLabels, evaluation: command.evaluation, on: backend)
    try decoder.requireRows(of: batch, input.batch ?? "")
    let metrics = input.adapter.first.flatMap { Folder.names(in: $0).contains("metrics.jsonl") ? $0 + "/metrics.jsonl" : nil }
    let name = model.split(separator: "/").last.map(String.init) ?? model
    subject = try Self.subject(
      name + (command.prompt.map { ": \($0)" } ?? ""), decoder, tokenizer, model: model, adapter: input.adapter.first,
      metrics: metrics.map { try MetricsFile.lines($0) } ?? [], command: command)
  }

  /// The demo's base model, and an adapter that learns the demo's tasks before it is shown.
  init(demo command: ExplainCommand, on backend: B) throws {
    let folder = "\(Machine.temporaryFolder)/mixlora-explain-\(POSIX.processID)"
    defer { for part in ["/data", "/base", ""] { Folder.remove(folder + part) } }
    try DemoFiles.write(to: folder)
    var recipe = DemoSettings.recipe(.mixlora, folder: folder, steps: command.steps ?? 200, seed: 42)
    // Smaller than the demo's, so that a page has room for it, and with larger steps, so that few of them do.
    (recipe.rank, recipe.alpha, recipe.experts) = (2, 16, 4)
    (recipe.batch, recipe.learningRate) = (24, 6e-3)
    (recipe.evaluation, recipe.routerLoss) = (command.evaluation, command.input.routerLoss)
    let run = try TrainingRun(recipe, on: backend)
    _ = try run.run(quiet: command.common.quiet || command.json)
    decoder = run.decoder
    let prompt = command.prompt ?? "rotate: k d a ->"
    batch = try Self.batch(
      prompt, command.prompt == nil ? " d a k" : command.answer, run.tokenizer, vocabulary: decoder.configuration.vocabulary,
      "the demo's model")
    subject = Self.subject(
      "The demo’s model: \(prompt)", decoder, run.tokenizer, model: "the demo’s base model",
      adapter: "learnt the demo’s six tasks for \(run.steps) steps", metrics: run.metrics, command: command)
  }

  /// The prompt's tokens, and behind them the answer's, which count; without an answer all but the first do.
  private static func batch(
    _ prompt: String, _ answer: String?, _ tokenizer: Tokenizer, vocabulary: Int, _ model: String
  ) throws -> TraceBatch {
    let asked = tokenizer.prompt(prompt)
    let answered = answer.map { tokenizer.encode($0) } ?? []
    guard asked.count + answered.count >= 2, answer == nil || !answered.isEmpty, !asked.isEmpty else {
      throw UsageError(
        "--prompt and --answer have \(asked.count) and \(answered.count) tokens; expected two at least, of which one counts.")
    }
    if let id = (asked + answered).first(where: { $0 >= vocabulary }) {
      throw CheckpointError(
        file: model, found: "text with the tokenizer's token \(id)", expected: "tokens below \(vocabulary), the vocabulary of the model")
    }
    return TraceBatch([(asked + answered, answer == nil ? 1 : asked.count)])
  }

  private static func subject(
    _ title: String, _ decoder: Decoder<B>, _ tokenizer: Tokenizer?, model: String, adapter: String?, metrics: [Metrics],
    command: ExplainCommand
  ) -> ExplorerPage.Subject {
    var subject = ExplorerPage.Subject(title: title) { id in
      guard let tokenizer else { return "#\(id)" }
      let text = tokenizer.decodeText([id])
      return text.isEmpty ? tokenizer.idToToken(id) ?? "#\(id)" : text
    }
    let sizes = decoder.configuration
    subject.facts = [
      ("model", model), ("layers", "\(sizes.layers)"), ("channels", "\(sizes.channels)"),
      ("heads", "\(sizes.attention.heads)"), ("vocabulary", "\(sizes.vocabulary)"),
    ]
    if let configuration = decoder.adapter {
      var text = "LoRA of rank \(configuration.lora.rank)"
      if let mixture = configuration.mixture {
        let choice =
          if case .topK(let k) = mixture.policy { "the \(k) likeliest a token" } else { "the fewest that are likely enough a token" }
        text = "MixLoRA, \(mixture.experts) experts of rank \(mixture.lora.rank), \(choice)"
      }
      subject.facts.append(("adapter", text + (adapter.map { ", \($0)" } ?? "")))
    }
    subject.metrics = metrics
    subject.command = command.line
    return subject
  }
}

extension ExplainCommand {
  /// The command that gives the page, as a shell reads it.
  var line: String {
    func quoted(_ text: String) -> String { "'" + text.replacing("'", with: "'\\''") + "'" }
    var words = ["mixlora explain --out", quoted(out)]
    for (name, value) in [
      ("--model", input.model), ("--adapter", input.adapter.first), ("--batch", input.batch), ("--prompt", prompt), ("--answer", answer),
    ] {
      if let value { words += [name, quoted(value)] }
    }
    if let steps { words += ["--steps", "\(steps)"] }
    if let layers { words += ["--layers", layers.values.map { "\($0)" }.joined(separator: ",")] }
    if size.bytes != Self.usualSize { words += ["--size", "\(size.bytes)"] }
    if evaluation != .sharedBase { words += ["--evaluation", evaluation.rawValue] }
    if input.routerLoss != .pooledTopK { words += ["--router-loss", input.routerLoss.rawValue] }
    return words.joined(separator: " ")
  }
}
