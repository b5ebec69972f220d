import CPUBackend
import Checkpoints
import Decoders
import Layers
import Tensors
import Tokenization
import Training

/// One run of `mixlora train`, from its options to its files.
struct TrainingRun {
  let options: TrainCommand
  private let model: ModelFolder
  private let form: TrainedFolder
  let tokenizer: Tokenizer
  let samples: [EncodedSample]
  let validation: [EncodedSample]
  let plan: BatchPlan
  let steps: Int

  /// Opens the model and reads the data; nothing is written yet.
  init(_ options: TrainCommand) throws {
    self.options = options
    model = try ModelFolder(options.model, drawnUnder: options.method == .full ? options.seed : nil)
    form = options.method == .full ? .model(try ModelFolder.Files(model: options.model)) : .adapter(baseModel: options.model)
    let tokenizer = try Tokenizer(model: options.model)
    let vocabulary = model.configuration.vocabulary
    func encoded(_ texts: [TextSample], from file: String) throws -> [EncodedSample] {
      try options.sampling.encoded(texts, with: tokenizer, vocabulary: vocabulary, from: file)
    }
    self.tokenizer = tokenizer
    samples = try encoded(try Self.texts(options), from: options.data)
    validation =
      try options.validation.map { try encoded(TrainingData.samples($0, template: options.sampling.template), from: $0) } ?? []
    plan = BatchPlan(samples: samples.count, batch: options.batch, accumulate: options.accumulate, seed: options.seed)
    steps = options.steps ?? options.epochs * plan.stepsPerEpoch
  }

  /// What a finished run can say of itself.
  struct Summary {
    /// The line of every step, of an earlier part of the run too.
    let metrics: [Metrics]
    /// How many numbers were trained.
    let parameters: Int
    /// Tokens and seconds of this part of the run.
    let tokens: Int
    let seconds: Double
  }

  /// Makes the run; nil if it was a dry one.
  func run() throws -> Summary? {
    try requireOwnDump()
    let resumed = try resumedStep()
    let threads = try threads(resumed)
    if model.isNew {
      try Machine.requireMemory(for: model.configuration, bytesEach: 16, file: options.model + "/config.json")
      writeError("note: \(options.model) has no weights; they are drawn under --seed \(options.seed)\n")
    }
    if let positions = model.configuration.contextLength {
      let long = samples.count { $0.ids.count > positions }
      if long > 0 { writeError("note: \(long) of \(samples.count) samples are longer than the \(positions) positions of the model\n") }
    }
    let backend = CPUFloat(threads: threads)
    let origin = try origin()
    if case .new(let adapter, _) = origin { try Machine.requireMemory(for: adapter, of: model.configuration) }
    let decoder: Decoder<CPUFloat> = try model.decoder(
      adapter: origin, trainsBase: options.method == .full, evaluation: options.branches.evaluation, balanceLoss: options.routerLoss,
      on: backend)
    if let jitter = decoder.adapter?.mixture?.jitterNoise, jitter != 0 {
      throw CheckpointError(
        file: (options.adapter ?? "") + "/adapter_config.json", place: .key("jitter_noise"), found: "\(jitter)",
        expected: "0: jitter while training is not built yet")
    }
    if !options.dryRun { try Folder.create(options.out) }
    if let file = options.dumpBatches {
      let (template, seed) = (options.sampling.template.rawValue, "\(options.seed)")
      try BatchFile.write(
        to: file, plan, samples, steps: steps, metadata: ["format": "mixlora batches", "template": template, "seed": seed])
    }
    if options.dryRun {
      print(dryRun(decoder))
      return nil
    }
    switch options.optimizer {
    case .adamw:
      let adamW = AdamW(
        decoder.parameters, learningRate: options.lr, weightDecay: options.weightDecay, loraPlusRatio: options.loraPlus, on: backend)
      return try train(decoder, adamW, from: resumed ?? 0, threads: threads, on: backend)
    case .sgd:
      let sgd = SGD(
        decoder.parameters, learningRate: options.lr, weightDecay: options.weightDecay, momentum: options.momentum,
        loraPlusRatio: options.loraPlus, on: backend)
      return try train(decoder, sgd, from: resumed ?? 0, threads: threads, on: backend)
    }
  }

  /// The loop, from the checkpoint of step `resumed`; 0 is the beginning.
  private func train<O: Optimizer<CPUFloat>>(
    _ decoder: Decoder<CPUFloat>, _ optimizer: O, from resumed: Int, threads: Int, on backend: CPUFloat
  ) throws -> Summary {
    var settings = Trainer<CPUFloat, O>.Settings(steps: steps, learningRate: options.lr)
    settings.schedule = options.schedule
    settings.warmup = Int((options.warmup * Double(steps)).rounded(.up))
    settings.clip = options.clip
    settings.recomputes = options.branches.recompute
    settings.keep = options.keep
    settings.evaluateEvery = validation.isEmpty ? 0 : options.evaluateEvery ?? steps
    settings.seed = options.seed
    let trainer = Trainer(
      decoder, optimizer, plan, samples: samples, validation: validation, settings, writing: form, clock: { Machine.seconds }, on: backend)
    if resumed > 0 { try trainer.restore(from: options.out, step: resumed) }
    var metrics = try MetricsFile(options.out + "/metrics.jsonl", after: trainer.step)
    let state = settingsJSON(threads: threads)
    let stop = StopSignals()
    defer { stop.end() }
    var progress = Progress(quiet: options.common.quiet, steps: steps)
    let start = Machine.seconds
    var tokens = 0
    var best = metrics.lines.filter { $0.validationLoss != nil }.min { ($0.validationLoss ?? 0) < ($1.validationLoss ?? 0) }
    var spared: Set<Int> { best.map { [$0.step] } ?? [] }
    func save() throws {
      // A step of a finite gradient may still be too large: what it left is no checkpoint to go on from.
      for parameter in decoder.parameters where !(try backend.download(parameter.value).allSatisfy(\.isFinite)) {
        throw NumericalFailure(
          description: "step \(trainer.step): \(parameter.name) has a value that is not finite and nothing is saved; lower --lr")
      }
      try metrics.synchronize()
      try trainer.save(to: options.out, settings: state, sparing: spared)
    }
    TrainingCheckpoint.prune(options.out, keep: options.keep, sparing: spared)  // a killed run may not have come to it

    while trainer.step < steps {
      let line: Metrics
      do { line = try trainer.next() } catch let error as Trainer<CPUFloat, O>.NonFiniteStep {
        try save()
        throw NumericalFailure(description: error.description)
      }
      try metrics.append(line)
      tokens += line.tokens
      progress.show(line)
      let isBest = line.validationLoss.map { $0 < best?.validationLoss ?? .infinity } ?? false
      if isBest { best = line }
      let isLast = trainer.step == steps
      let isStopped = stop.isAsked  // read once: a signal between two looks would end the run unsaved
      if isStopped || isLast || isBest || trainer.step % options.saveEvery == 0 { try save() }
      if isStopped, !isLast {
        progress.end()
        writeError("interrupted after step \(trainer.step); mixlora train with the same options and --resume goes on from there\n")
        throw Interrupted()
      }
    }
    progress.end()
    try form.write(decoder, to: options.out, on: backend)
    try AtomicFile.write(Charts.loss(metrics.lines), to: options.out + "/loss.svg")
    if options.method != .full { try AtomicFile.write(Charts.experts(metrics.lines), to: options.out + "/experts.svg") }
    return Summary(
      metrics: metrics.lines, parameters: decoder.parameters.reduce(0) { $0 + $1.value.shape.count }, tokens: tokens,
      seconds: Machine.seconds - start)
  }

  // MARK: What the options say

  private static func texts(_ options: TrainCommand) throws -> [TextSample] {
    guard MappedFile.isFolder(options.data) else {
      if options.task != nil { throw UsageError("--task goes with a folder; \(options.data) is a file.") }
      return try TrainingData.samples(options.data, template: options.sampling.template)
    }
    return try TrainingData.samples(options.data, try QuestionTask.chosen(options.task, in: options.data, split: "train"), split: "train")
  }

  private func origin() throws -> AdapterOrigin {
    if options.method == .full { return .none }
    if let adapter = options.adapter { return .folder(adapter) }
    var lora = AdapterConfiguration.LoRA(
      rank: options.branches.rank, alpha: options.alpha, dropout: options.branches.dropout, isRankStabilised: options.rslora)
    lora.initialisation = options.initialisation
    var mixture: AdapterConfiguration.Mixture?
    if options.method == .mixlora {
      var settings = AdapterConfiguration.Mixture(experts: options.branches.experts, expertsPerToken: options.branches.topK, lora: lora)
      settings.balanceCoefficient = options.routerCoefficient
      mixture = settings
    }
    return .new(AdapterConfiguration(lora: lora, targets: try options.targetNames(), mixture: mixture), seed: options.seed)
  }
}
