import Checkpoints
import Decoders
import Evaluation
import Samples
import Tensors
import Tokenization

/// One training run, from a recipe to a trained adapter or model.
///
///     let run = try TrainingRun(.mixlora(rank: 8, experts: 8), model: path, data: "mine.jsonl", steps: 3, on: backend)
///     try run.run()
///     try run.save(to: "out")
///
/// With a folder of its own a run writes as it goes: `metrics.jsonl`, a line a step; checkpoints, also of the best step by
/// validation; at the end the adapter or model, `loss.svg` and, with experts, `experts.svg`. A run that was stopped or killed goes on
/// from the newest checkpoint that is whole to the same bits. Without a folder nothing is written until ``save(to:)``.
///
/// Nothing here looks at a clock, a signal or a terminal: whoever runs it hands these in.
public final class TrainingRun<B: Backend> {
  /// The settings, with the model and data that the run has.
  public let recipe: TrainingRecipe
  /// The tokenizer of the model.
  public let tokenizer: Tokenizer
  /// What is learnt, in the order of the data.
  public let samples: [EncodedSample]
  /// How many of them had more tokens than the recipe allows and kept the first ones alone.
  public let cutSamples: Int
  /// How many texts of the data are no sample: too long, or without a token that counts.
  public let droppedSamples: Int
  /// What the loss is reported of; empty without a file for it.
  public let validation: [EncodedSample]
  /// The model; its parameters are trained in place.
  public let decoder: Decoder<B>
  /// Steps of the whole run.
  public let steps: Int
  /// The run's own folder; nil where nothing is written on the way.
  public let folder: String?
  /// Steps made so far, in an earlier part of the run too.
  public private(set) var step = 0
  /// The line of every step so far.
  public private(set) var metrics: [Metrics] = []

  let backend: B
  let form: TrainedFolder
  var plan: BatchPlan
  var optimizer: (any Optimizer<B>)?  // made at the first step: its moments are as large as the parameters
  var isWarm = false
  private let resumedStep: Int
  private let base: JSON  // what tells the model from another
  private var damaged: Set<Int>  // steps whose checkpoints are to be replaced
  private var lock: FolderLock?
  private var file: MetricsFile?
  private var best: Metrics?

  /// Reads the data, then the model; nothing is written yet.
  ///
  /// - Parameters:
  ///   - recipe: the settings.
  ///   - model: the model, where the recipe does not name it.
  ///   - data: the samples, where the recipe does not name them.
  ///   - steps: the number of steps, where the recipe does not have it.
  ///   - folder: where to write as the run goes: a folder that is empty, new, or with `resumes` that of the run to go on with.
  ///   - resumes: whether to go on from the newest checkpoint in `folder`, if there is one.
  ///   - backend: where to compute.
  ///   - note: hears what a user may want to know and no error says.
  /// - Throws: `SettingsError` for settings that cannot be, or are not those of the run to go on with; `CheckpointError` for files, for
  ///   a folder in which another run is at work, and for another base model than that of the run to go on with.
  public init(
    _ recipe: TrainingRecipe, model: String? = nil, data: String? = nil, steps: Int? = nil, out folder: String? = nil,
    resumes: Bool = false, on backend: B, note: (SettingsText) -> Void = { _ in }
  ) throws {
    var recipe = recipe
    recipe.model = model ?? recipe.model
    recipe.data = data ?? recipe.data
    recipe.steps = steps ?? recipe.steps
    try recipe.check()
    lock = try folder.flatMap { MappedFile.isFolder($0) ? try Self.lock($0, note: note) : nil }
    let isFull = recipe.method == .full
    let files = try ModelFolder(recipe.model, newUnder: isFull ? recipe.seed : nil)
    let form: TrainedFolder = isFull ? .model(try ModelFolder.Files(model: recipe.model)) : .adapter(baseModel: recipe.model)
    self.form = form
    let tokenizer = try Tokenizer(model: recipe.model)
    var said: [SettingsText] = []
    func once(_ text: SettingsText) {  // what holds for the data holds for the validation too
      if !said.contains(text) { note(text) }
      said.append(text)
    }
    func encoded(_ texts: [TextSample], from file: String) throws -> EncodedSamples {
      try recipe.encoding.samples(
        texts, with: tokenizer, chat: ChatLayout(model: recipe.model, tokenizer, recipe.encoding),
        vocabulary: files.configuration.vocabulary, positions: files.configuration.contextLength, from: file, note: once)
    }
    let learnt = try encoded(try Self.texts(recipe, note: once), from: recipe.data)
    (samples, cutSamples, droppedSamples) = (learnt.samples, learnt.cut, learnt.dropped)
    validation =
      try recipe.validation.map {
        try encoded(TrainingData.samples($0, template: recipe.encoding.template, note: once), from: $0).samples
      } ?? []
    self.tokenizer = tokenizer
    self.recipe = recipe
    self.folder = folder
    self.backend = backend
    plan = BatchPlan(samples: samples.count, batch: recipe.batch, accumulate: recipe.accumulate, seed: recipe.seed)
    self.steps = recipe.steps ?? recipe.epochs * plan.stepsPerEpoch
    let settings = Self.settings(recipe, samples: samples, validation: validation, steps: self.steps)
    (resumedStep, damaged) =
      try folder.map { try Self.resumedStep(in: $0, resumes: resumes, settings, files, as: form, note: note) } ?? (0, [])
    base = folder == nil ? .null : try files.identity()

    if files.isNew { note("\(recipe.model) has no weights; they are drawn under \(setting: "seed") \(recipe.seed)") }
    for text in tokenizer.notes + files.configuration.notes(on: recipe.model) { note("\(text)") }
    if let positions = files.configuration.contextLength {
      let long = samples.count { $0.ids.count > positions }
      if long > 0 { note("\(long) of \(samples.count) samples are longer than the \(positions) positions of the model") }
    }
    let origin: AdapterOrigin =
      recipe.adapterConfiguration.map { recipe.adapter.map { .folder($0) } ?? .new($0, seed: recipe.seed) } ?? .none
    decoder = try files.decoder(
      adapter: origin, trainsBase: isFull, evaluation: recipe.evaluation, balanceLoss: recipe.routerLoss, on: backend)
    if let jitter = decoder.adapter?.mixture?.jitterNoise, jitter != 0 {
      throw CheckpointError(
        file: (recipe.adapter ?? "") + "/adapter_config.json", place: .key("jitter_noise"), found: "\(jitter)",
        expected: "0: jitter while training is not built yet")
    }
  }

  /// Steps in one pass over the data.
  public var stepsPerEpoch: Int { plan.stepsPerEpoch }

  /// How many numbers are trained.
  public var parameterCount: Int { decoder.parameters.reduce(0) { $0 + $1.value.shape.count } }

  /// Makes the steps that are left, or goes on until somebody asks for an end; then the run may go on by another call.
  ///
  /// - Parameters:
  ///   - onStep: hears the line of every step.
  ///   - clock: seconds of a clock that only moves forward.
  ///   - shouldStop: asked once after every step; a run that is told to stop saves that step first.
  /// - Throws: `NonFiniteValue` for a step that gave no number, the steps before it being saved; `CheckpointError` if a file cannot be
  ///   read or written; what the device reports.
  public func run(
    onStep: (Metrics) throws -> Void = { _ in }, clock: (() -> Double)? = nil, shouldStop: () -> Bool = { false }
  ) throws {
    let clock = clock ?? Self.steadyClock()
    try prepare()
    defer { lock = nil }
    while step < steps {
      let line: Metrics
      do { line = try nextStep(clock) } catch let error as NonFiniteValue {
        try saveCheckpoint()
        throw error
      }
      step = line.step
      metrics.append(line)
      try file?.append(line)
      try onStep(line)
      let isBest = line.validationLoss.map { $0 < best?.validationLoss ?? .infinity } ?? false
      if isBest { best = line }
      let isStopped = shouldStop()  // read once: an answer that changes between two looks would end the run unsaved
      if isStopped || isBest || step == steps || step % recipe.saveEvery == 0 { try saveCheckpoint() }
      if isStopped, step < steps { return }
    }
    if let folder { try writeResult(to: folder) }
  }

  /// Makes the folder, takes up the newest checkpoint and makes the optimizer ready; ``run(onStep:clock:shouldStop:)`` does it where
  /// nobody did.
  ///
  /// Other runs are kept out of the folder from then on, until ``run(onStep:clock:shouldStop:)`` ends.
  ///
  /// - Throws: `CheckpointError` if the folder cannot be written, or if another run is at work in it, or has been since this one looked.
  public func prepare() throws {
    if let folder, lock == nil {
      try Folder.create(folder)
      let lock = try Self.lock(folder)
      let newer = TrainingCheckpoint.steps(in: folder).contains { $0 > step && !damaged.contains($0) }
      guard optimizer == nil ? Folder.names(in: folder).isEmpty : !newer else {
        throw CheckpointError(file: folder, found: "files of another run", expected: "the folder as this run left it")
      }
      self.lock = lock
    }
    guard optimizer == nil else { return }
    var optimizer = newOptimizer()
    if let folder {
      if resumedStep > 0 {
        try TrainingCheckpoint.restore(decoder, &optimizer, from: folder, step: resumedStep, as: form, on: backend)
      }
      let path = folder + "/metrics.jsonl"
      metrics = try MetricsFile.lines(path, upTo: resumedStep)
      file = try MetricsFile(path, metrics)
      best = metrics.filter { $0.validationLoss != nil }.min { ($0.validationLoss ?? 0) < ($1.validationLoss ?? 0) }
      step = resumedStep
      TrainingCheckpoint.prune(folder, keep: recipe.keep, sparing: spared, damaged: damaged)  // a killed run may not have come to it
    }
    self.optimizer = optimizer
  }

  /// Writes what was trained and what can be said of the run into a folder, which is made if it is not there: the files that a run
  /// with a folder of its own leaves, but for checkpoints. Files of the same names are replaced.
  ///
  /// - Throws: `NonFiniteValue` if a value is not finite, `CheckpointError` if the folder cannot be written.
  public func save(to folder: String) throws {
    try Folder.create(folder)
    try writeResult(to: folder)
    _ = try MetricsFile(folder + "/metrics.jsonl", metrics)
  }

  /// Keeps other runs out of a folder.
  private static func lock(_ folder: String, note: (SettingsText) -> Void = { _ in }) throws -> FolderLock {
    let lock = try FolderLock(folder)
    if !lock.isHeld { note("\(folder) is on a file system without locks; no other run may write there meanwhile") }
    return lock
  }

  // MARK: Checkpoints

  /// The steps whose checkpoints stay, however old they are.
  private var spared: Set<Int> { best.map { [$0.step] } ?? [] }

  /// - Throws: `NonFiniteValue` where a step left a parameter that is not finite; `CheckpointError`.
  private func saveCheckpoint() throws {
    guard let folder, let optimizer else { return }
    try file?.synchronize()
    let settings = Self.settings(recipe, samples: samples, validation: validation, steps: steps)
    do {
      try TrainingCheckpoint.save(
        decoder, optimizer, step: step, settings: settings, base: base, as: form, to: folder, replacing: damaged.contains(step), on: backend
      )
    } catch let error as NonFiniteValue { throw error.within("step \(step)") }
    damaged.remove(step)
    TrainingCheckpoint.prune(folder, keep: recipe.keep, sparing: spared, damaged: damaged)
  }

  /// Seconds from now on.
  private static func steadyClock() -> () -> Double {
    let start = ContinuousClock.now
    return {
      let (seconds, attoseconds) = (ContinuousClock.now - start).components
      return Double(seconds) + Double(attoseconds) * 1e-18
    }
  }
}
