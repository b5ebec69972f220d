import ArgumentParser
import CPUBackend
import Checkpoints
import Decoders
import MixLoRA
import Synchronization
import Tensors
import Tokenization
import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// One run of `mixlora train`, from its options to its files.
struct TrainingRun {
  private let options: TrainCommand

  init(_ options: TrainCommand) { self.options = options }

  func run() throws {
    let tokenizer = try Tokenizer(model: options.model)
    let samples = try encoded(try textSamples(), tokenizer)
    let validation = try options.validation.map { try encoded(TrainingData.samples($0, template: options.template), tokenizer) } ?? []
    let plan = BatchPlan(samples: samples.count, batch: options.batch, accumulate: options.accumulate, seed: options.seed)
    let steps = options.steps ?? options.epochs * plan.stepsPerEpoch
    let longest = (samples + validation).map(\.ids.count).max() ?? 2

    let resumed = try resumedStep()
    let backend = CPUFloat(threads: try threads(resumed))
    let decoder: Decoder<CPUFloat> = try ModelFiles.load(
      options.model, adapter: try origin(), trainsBase: false, evaluation: options.evaluation, balanceLoss: options.routerLoss,
      positions: longest, on: backend)
    if let jitter = decoder.adapter?.mixture?.jitterNoise, jitter != 0 {
      throw CheckpointError(
        file: (options.adapter ?? "") + "/adapter_config.json", place: .key("jitter_noise"), found: "\(jitter)",
        expected: "0: jitter while training is not built yet")
    }
    if options.dryRun { return print(dryRun(decoder, samples, tokenizer, plan, steps)) }
    try Folder.create(options.out)
    switch options.optimizer {
    case .adamw:
      let adamW = AdamW(
        decoder.parameters, learningRate: options.lr, weightDecay: options.weightDecay, loraPlusRatio: options.loraPlus, on: backend)
      try train(decoder, adamW, plan, samples, validation, steps: steps, resumed: resumed, on: backend)
    case .sgd:
      let sgd = SGD(
        decoder.parameters, learningRate: options.lr, weightDecay: options.weightDecay, momentum: options.momentum,
        loraPlusRatio: options.loraPlus, on: backend)
      try train(decoder, sgd, plan, samples, validation, steps: steps, resumed: resumed, on: backend)
    }
  }

  // MARK: The loop

  private func train<O: Optimizer<CPUFloat>>(
    _ decoder: Decoder<CPUFloat>, _ optimizer: O, _ plan: BatchPlan, _ samples: [EncodedSample], _ validation: [EncodedSample], steps: Int,
    resumed: Int?, on backend: CPUFloat
  ) throws {
    var settings = Trainer<CPUFloat, O>.Settings(steps: steps, learningRate: options.lr)
    settings.schedule = options.schedule
    settings.warmup = Int((options.warmup * Double(steps)).rounded(.up))
    settings.clip = options.clip
    settings.recomputes = options.recompute
    settings.keep = options.keep
    settings.evaluateEvery = validation.isEmpty ? 0 : options.evaluateEvery ?? steps
    settings.seed = options.seed
    let trainer = Trainer(
      decoder, optimizer, plan, samples: samples, validation: validation, settings, clock: { Machine.seconds }, on: backend)
    if let resumed, resumed > 0 { try trainer.restore(from: options.out, step: resumed) }
    var metrics = try MetricsFile(options.out + "/metrics.jsonl", after: trainer.step)
    let state = settingsJSON(steps: steps, samples: samples.count)
    let stop = StopSignals()
    var progress = Progress(quiet: options.common.quiet, steps: steps)
    let start = Machine.seconds
    var tokens = 0
    var best = metrics.lines.filter { $0.validationLoss != nil }.min { ($0.validationLoss ?? 0) < ($1.validationLoss ?? 0) }

    while trainer.step < steps {
      let line: Metrics
      do { line = try trainer.next() } catch let error as Trainer<CPUFloat, O>.NonFiniteStep {
        try trainer.save(to: options.out, settings: state, baseModel: options.model, sparing: best.map { [$0.step] } ?? [])
        throw NumericalFailure(description: error.description)
      }
      try metrics.append(line)
      tokens += line.tokens
      progress.show(line)
      let isBest = line.validationLoss.map { $0 < best?.validationLoss ?? .infinity } ?? false
      if isBest { best = line }
      let isLast = trainer.step == steps
      if stop.isAsked || isLast || isBest || trainer.step % options.saveEvery == 0 {
        try trainer.save(to: options.out, settings: state, baseModel: options.model, sparing: best.map { [$0.step] } ?? [])
      }
      if stop.isAsked, !isLast {
        progress.end()
        writeError("interrupted after step \(trainer.step); --resume goes on from there\n")
        throw Interrupted()
      }
    }
    progress.end()
    try AdapterFolder.write(decoder, to: options.out, baseModel: options.model, on: backend)
    try AtomicFile.write(Charts.loss(metrics.lines), to: options.out + "/loss.svg")
    try AtomicFile.write(Charts.experts(metrics.lines), to: options.out + "/experts.svg")
    report(metrics.lines, decoder, tokens: tokens, seconds: Machine.seconds - start)
  }

  // MARK: What the options say

  private func textSamples() throws -> [TextSample] {
    guard Folder.isFolder(options.data) else {
      if options.task != nil { throw UsageError("--task goes with a folder; \(options.data) is a file.") }
      return try TrainingData.samples(options.data, template: options.template)
    }
    let tasks = try options.taskNames() ?? QuestionTask.allCases.filter { Folder.exists("\(options.data)/\($0.rawValue)/train.jsonl") }
    guard !tasks.isEmpty else {
      throw CheckpointError(
        file: options.data, found: "no TASK/train.jsonl",
        expected: "one of \(QuestionTask.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    return try TrainingData.samples(options.data, tasks, split: "train")
  }

  private func encoded(_ samples: [TextSample], _ tokenizer: Tokenizer) throws -> [EncodedSample] {
    let encoded = samples.map {
      EncodedSample($0, with: tokenizer, lossOn: options.lossOn, length: options.length, addsEndToken: !options.noEndToken)
    }
    let cut = encoded.count { $0.cut > 0 }
    if cut > 0 {
      writeError("note: \(cut) of \(encoded.count) prompts were longer than --length \(options.length) allows and were cut from the left\n")
    }
    let counted = encoded.filter { $0.counts.contains(true) }
    guard !counted.isEmpty else {
      throw CheckpointError(file: options.data, found: "no sample with a column that counts", expected: "at least one")
    }
    return counted
  }

  private func origin() throws -> AdapterOrigin {
    if let adapter = options.adapter { return .folder(adapter) }
    var lora = AdapterConfiguration.LoRA(
      rank: options.rank, alpha: options.alpha, dropout: options.dropout, isRankStabilised: options.rslora)
    lora.initialisation = options.initialisation
    var mixture: AdapterConfiguration.Mixture?
    if options.method == .mixlora {
      var settings = AdapterConfiguration.Mixture(experts: options.experts, expertsPerToken: options.topK, lora: lora)
      settings.balanceCoefficient = options.routerCoefficient
      mixture = settings
    }
    return .new(AdapterConfiguration(lora: lora, targets: try options.targetNames(), mixture: mixture), seed: options.seed)
  }

  /// The step to go on from: nil for a new run, 0 if there is no complete checkpoint.
  private func resumedStep() throws -> Int? {
    let isUsed = !Folder.names(in: options.out).isEmpty
    guard options.resume else {
      if isUsed, !options.dryRun {
        throw UsageError("--out \(options.out) is not empty; --resume goes on with a run, or choose another folder.")
      }
      return nil
    }
    return TrainingCheckpoint.steps(in: options.out).last ?? 0
  }

  /// Compares what the run was started with, and takes its number of threads unless another is asked for.
  private func threads(_ resumed: Int?) throws -> Int {
    guard let resumed, resumed > 0 else { return options.common.threadCount }
    let old = try TrainingCheckpoint.settings(options.out, step: resumed)
    let new = settingsJSON(steps: options.steps ?? 0, samples: 0)
    for member in new.objectValue?.members ?? [] where !["steps", "samples", "threads"].contains(member.key) {
      guard old[member.key] == member.value else {
        throw UsageError(
          "--\(member.key) is \(member.value.serialized()), but the run was started with \(old[member.key]?.serialized() ?? "nothing").")
      }
    }
    return options.common.threads ?? old["threads"]?.intValue ?? options.common.threadCount
  }

  /// Everything that a resumed run must have in common with the run that it goes on with.
  private func settingsJSON(steps: Int, samples: Int) -> JSON {
    [
      "steps": JSON(steps), "samples": JSON(samples), "threads": JSON(options.common.threadCount), "model": JSON(options.model),
      "data": JSON(options.data), "task": options.task.map { JSON($0) } ?? nil, "method": JSON(options.method.rawValue),
      "adapter": options.adapter.map { JSON($0) } ?? nil, "rank": JSON(options.rank), "alpha": JSON(options.alpha),
      "rslora": JSON(options.rslora),
      "dropout": JSON(options.dropout), "init": JSON(options.initialisation.rawValue), "experts": JSON(options.experts),
      "top-k": JSON(options.topK),
      "targets": JSON(options.targets), "router-loss": JSON(options.routerLoss.rawValue),
      "router-coefficient": JSON(options.routerCoefficient),
      "evaluation": JSON(options.evaluation.rawValue), "recompute": JSON(options.recompute), "epochs": JSON(options.epochs),
      "batch": JSON(options.batch), "accumulate": JSON(options.accumulate), "length": JSON(options.length),
      "optimizer": JSON(options.optimizer.rawValue), "momentum": JSON(options.momentum), "lr": JSON(options.lr),
      "schedule": JSON(options.schedule.rawValue), "warmup": JSON(options.warmup), "clip": JSON(options.clip),
      "weight-decay": JSON(options.weightDecay), "lora-plus": JSON(options.loraPlus), "template": JSON(options.template.rawValue),
      "loss-on": JSON(options.lossOn.rawValue), "no-end-token": JSON(options.noEndToken),
      "validation": options.validation.map { JSON($0) } ?? nil, "evaluate-every": options.evaluateEvery.map { JSON($0) } ?? nil,
      "seed": .number(JSON.Number(options.seed)),
    ]
  }

  // MARK: What is printed

  private func report(_ lines: [Metrics], _ decoder: Decoder<CPUFloat>, tokens: Int, seconds: Double) {
    let parameters = decoder.parameters.reduce(0) { $0 + $1.value.shape.count }
    if options.json {
      let object: JSON = [
        "steps": JSON(lines.count), "loss_first": lines.first.map { JSON($0.loss) } ?? nil,
        "loss_last": lines.last.map { JSON($0.loss) } ?? nil,
        "tokens": JSON(lines.reduce(0) { $0 + $1.tokens }), "seconds": JSON(seconds),
        "tokens_per_second": JSON(Double(tokens) / max(seconds, 1e-9)),
        "trainable_parameters": JSON(parameters), "peak_resident_bytes": JSON(Machine.peakResidentBytes), "adapter": JSON(options.out),
      ]
      return print(object.serialized())
    }
    print(
      "\(lines.count) steps, loss \(fixed(lines.first?.loss ?? .nan, 4)) → \(fixed(lines.last?.loss ?? .nan, 4)), "
        + "\(fixed(Double(tokens) / max(seconds, 1e-9), 1)) tokens/s; adapter, metrics.jsonl, loss.svg and experts.svg are in \(options.out)"
    )
  }

  private func dryRun(
    _ decoder: Decoder<CPUFloat>, _ samples: [EncodedSample], _ tokenizer: Tokenizer, _ plan: BatchPlan, _ steps: Int
  ) -> String {
    let trained = decoder.parameters.reduce(0) { $0 + $1.value.shape.count }
    let frozen = decoder.frozenMatrices.reduce(decoder.headMatrix.shape.count) { $0 + $1.shape.count }
    let sample = samples[0]
    let marked = sample.ids.indices.map { i in
      let text = tokenizer.decodeText([sample.ids[i]])
      return sample.counts[i] ? "[\(text)]" : text
    }
    let tokens = samples.reduce(0) { $0 + $1.ids.count }
    return """
      trained parameters   \(trained) (\(fixed(100 * Double(trained) / Double(trained + frozen), 2)) % of \(trained + frozen))
      samples              \(samples.count), \(tokens) tokens, longest \(samples.map(\.ids.count).max() ?? 0)
      steps                \(steps) of \(plan.batch) samples, \(plan.stepsPerEpoch) to an epoch
      memory so far        \(fixed(Double(Machine.peakResidentBytes) / 1_073_741_824, 2)) GiB; gradients and AdamW's moments add \(fixed(12 * Double(trained) / 1_073_741_824, 2)) GiB
      first sample, counted tokens in brackets:
      \(marked.joined())
      """
  }
}

/// A run that was stopped by a signal; exit code 130.
struct Interrupted: Error {}

/// SIGINT and SIGTERM ask for an end after the current step.
struct StopSignals {
  private static let asked = Atomic<Bool>(false)

  init() {
    for number in [SIGINT, SIGTERM] { signal(number) { _ in StopSignals.asked.store(true, ordering: .relaxed) } }
  }

  var isAsked: Bool { Self.asked.load(ordering: .relaxed) }
}

/// A line on standard error that is written over: only on a terminal, and not if asked to be quiet.
struct Progress {
  private let isShown: Bool
  private let steps: Int
  private var first: (step: Int, seconds: Double)?

  init(quiet: Bool, steps: Int) {
    isShown = !quiet && isatty(2) == 1
    self.steps = steps
  }

  mutating func show(_ line: Metrics) {
    guard isShown else { return }
    let now = Machine.seconds
    let start = first ?? (line.step, now)
    first = start
    let left = line.step > start.step ? (now - start.seconds) / Double(line.step - start.step) * Double(steps - line.step) : .nan
    let eta = left.isFinite ? "\(Int(left) / 60)m\(Int(left) % 60)s left" : ""
    var load = ""
    if let layers = line.expertLoad, let experts = layers.first?.count {
      let mean = (0..<experts).map { e in layers.reduce(0) { $0 + $1[e] } / Double(layers.count) }
      load = "  load " + mean.map { "\(Int((100 * $0).rounded()))" }.joined(separator: "/")
    }
    writeError(
      "\r\u{1b}[Kstep \(line.step)/\(steps)  loss \(fixed(line.loss, 4))  lr \(line.learningRate)  \(fixed(line.tokensPerSecond, 0)) tokens/s  \(eta)\(load)"
    )
  }

  func end() { if isShown, first != nil { writeError("\n") } }
}
