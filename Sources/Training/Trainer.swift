import Checkpoints
import Decoders
import Layers
import Tensors

/// The training loop: batches by plan, steps, metrics, checkpoints.
public final class Trainer<B: Backend, O: Optimizer<B>> {
  /// What the loop needs to know beside model, data and optimiser.
  public struct Settings: Sendable {
    /// Steps of the whole run.
    public var steps: Int
    /// Learning rate lr that the schedule varies.
    public var learningRate: Double
    /// How it varies.
    public var schedule = LearningRateSchedule.constant
    /// Steps of warm-up.
    public var warmup = 0
    /// Largest norm of the gradient; 0 for no limit.
    public var clip = 1.0
    /// Whether backward forms the blocks' caches again.
    public var recomputes = false
    /// Checkpoints kept.
    public var keep = 2
    /// Steps between validations; 0 for none.
    public var evaluateEvery = 0
    /// Seed of everything random.
    public var seed: UInt64 = 42

    /// A run of so many steps.
    public init(steps: Int, learningRate: Double) {
      self.steps = steps
      self.learningRate = learningRate
    }
  }

  /// A step whose loss or gradient was not finite; nothing was changed by it.
  public struct NonFiniteStep: Error, CustomStringConvertible {
    /// The step, counted from 1.
    public let step: Int
    /// The first such tensor, by its path.
    public let tensor: String
    /// What happened, in a sentence.
    public var description: String {
      "step \(step): \(tensor) is the first tensor with a value that is not finite; the parameters are those before the step"
    }
  }

  private let decoder: Decoder<B>
  private var optimizer: O
  private var plan: BatchPlan
  private let samples: [EncodedSample]
  private let validation: [EncodedSample]
  private let settings: Settings
  private let form: TrainedFolder
  private let backend: B
  private let clock: () -> Double
  /// Steps made so far.
  public private(set) var step = 0
  private var isWarm = false

  /// A loop over `samples`; `form` is how trained values are written, `clock` gives seconds.
  public init(
    _ decoder: Decoder<B>, _ optimizer: O, _ plan: BatchPlan, samples: [EncodedSample], validation: [EncodedSample] = [],
    _ settings: Settings, writing form: TrainedFolder, clock: @escaping () -> Double, on backend: B
  ) {
    self.decoder = decoder
    self.optimizer = optimizer
    self.plan = plan
    self.samples = samples
    self.validation = validation
    self.settings = settings
    self.form = form
    self.clock = clock
    self.backend = backend
  }

  /// Takes up where a checkpoint stopped.
  ///
  /// - Throws: `CheckpointError` for a damaged checkpoint.
  public func restore(from folder: String, step: Int) throws {
    try TrainingCheckpoint.restore(decoder, &optimizer, from: folder, step: step, as: form, on: backend)
    self.step = step
  }

  /// Writes the checkpoint of the current step.
  ///
  /// - Throws: `CheckpointError` if the system fails.
  public func save(to folder: String, settings json: JSON, sparing best: Set<Int> = []) throws {
    try TrainingCheckpoint.save(decoder, optimizer, step: step, settings: json, as: form, to: folder, on: backend)
    TrainingCheckpoint.prune(folder, keep: settings.keep, sparing: best)
  }

  /// Makes the next step.
  ///
  /// - Throws: ``NonFiniteStep``, and what the device reports.
  public func next() throws -> Metrics {
    let start = clock()
    let number = step + 1
    optimizer.learningRate = settings.schedule.learningRate(
      atStep: step, of: settings.steps, warmup: settings.warmup, base: settings.learningRate)
    let training = TrainingStep(
      decoder, key: RandomKey(seed: settings.seed), clip: settings.clip, recomputes: settings.recomputes, on: backend)
    if !isWarm { try training.warmUp(batches(ofStep: longestStep())) }
    isWarm = true
    let batches = batches(ofStep: step)
    let result = try training.run(batches, number: number, &optimizer)
    let loss = Double(try backend.download(result.loss)[0])
    let auxiliary = try result.balanceLoss.map { Double(try backend.download($0)[0]) } ?? 0
    let norm = Double(try backend.download(result.gradientNorm)[0])
    guard (loss + auxiliary).isFinite, norm.isFinite else {
      throw NonFiniteStep(step: number, tensor: try training.findNonFinite(batches, number: number) ?? "the gradient's norm")
    }
    step = number
    let load = try result.expertCounts.map { counts in
      let values = try backend.download(counts).map { Double($0) }
      let slots = values.reduce(0, +)
      return values.map { slots > 0 ? $0 / slots : 0 }
    }
    let tokens = batches.reduce(0) { $0 + $1.tokens }
    var metrics = Metrics(
      step: number, loss: loss, auxLoss: auxiliary, learningRate: optimizer.learningRate, gradientNorm: norm, tokens: tokens,
      tokensPerSecond: Double(tokens) / max(clock() - start, 1e-9), expertLoad: load.isEmpty ? nil : load)
    if settings.evaluateEvery > 0, !validation.isEmpty, number % settings.evaluateEvery == 0 || number == settings.steps {
      metrics.validationLoss = try decoder.meanLoss(of: validation, batch: plan.batch, on: backend).loss
    }
    return metrics
  }

  /// The micro-batches of a step, their samples numbered through.
  private func batches(ofStep step: Int) -> [PackedBatch<B>] {
    var first = 0
    return plan.microBatches(step: step).map { part in
      defer { first += part.count }
      return PackedBatch(part.map { samples[$0].sequence }, firstSample: first, on: backend)
    }
  }

  /// The step of this epoch that has the longest micro-batch.
  private func longestStep() -> Int {
    let start = step / plan.stepsPerEpoch * plan.stepsPerEpoch
    var longest = (step: start, tokens: 0)
    for step in start..<start + plan.stepsPerEpoch {
      let tokens = plan.microBatches(step: step).map { $0.reduce(0) { $0 + samples[$1].ids.count } }.max() ?? 0
      if tokens > longest.tokens { longest = (step, tokens) }
    }
    return longest.step
  }
}

extension EncodedSample {
  /// The sample as the engine takes it: row t predicts the token of column t + 1 where that counts.
  public var sequence: PackedSequence {
    PackedSequence(ids: ids, labels: ids.indices.map { $0 + 1 < ids.count && counts[$0 + 1] ? ids[$0 + 1] : nil })
  }
}
