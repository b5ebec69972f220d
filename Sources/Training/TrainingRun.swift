import Checkpoints
import Collectives
import Decoders
import Evaluation
import Samples
import Tensors
import Tokenization

/// One training run, from a recipe to a trained adapter or model; or from several to as many adapters over one base.
///
///     let run = try TrainingRun(.mixlora(rank: 8, experts: 8), model: path, data: "mine.jsonl", steps: 3, on: backend)
///     try run.run()
///     try run.save(to: "out")
///
/// With a folder of its own a run writes as it goes: `metrics.jsonl`, a line a step; checkpoints, also of the best step by
/// validation; at the end the adapter or model, `loss.svg` and, with experts, `experts.svg`. A run that was stopped or killed goes on
/// from the newest checkpoint that is whole to the same bits. Without a folder nothing is written until ``save(to:)``.
///
/// Several adapters make their steps together, from the first on, until each has made its own; then it leaves and the others go on. Each
/// learns what it would learn alone, up to rounding. What is written of one is in a folder of its name; checkpoints are of all.
///
/// Several ranks share out the micro-batches of a step and make the same adapter together that one would, to the bit. Rank 0 alone has
/// the run's folder; what it goes on from, the others get from it.
///
/// Nothing here looks at a clock, a signal or a terminal: whoever runs it hands these in.
public final class TrainingRun<B: Backend> {
  /// What is trained: one adapter, or the base; or several adapters.
  public internal(set) var learners: [Learner<B>]
  /// The tokenizer of the model.
  public let tokenizer: Tokenizer
  /// The model; its parameters are trained in place.
  public let decoder: Decoder<B>
  /// Steps of the whole run: the most that a learner makes.
  public let steps: Int
  /// The run's own folder; nil where nothing is written on the way, as on all ranks but the first.
  public let folder: String?
  /// What the run needs of memory, where the recipe has a budget.
  public private(set) var memory: MemoryPlan?
  /// Steps made so far, in an earlier part of the run too.
  public private(set) var step = 0
  /// The rank that was told to stop and with which all stopped, the lowest of them; nil while nobody was.
  public private(set) var stoppingRank: Int?

  /// The number of the learner whose step gave no number; nil while there was none.
  public internal(set) var diverged: Int?

  let backend: B
  let ranks: any Collective
  var optimizers: [(any Optimizer<B>)?] = []  // made at the first step: their moments are as large as the parameters; nil of who has left
  var isWarm = false
  private var resumedStep: Int
  private let base: JSON  // what tells the model from another
  private var damaged: Set<Int>  // steps whose checkpoints are to be replaced
  private var lock: FolderLock?

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
  public convenience init(
    _ recipe: TrainingRecipe, model: String? = nil, data: String? = nil, steps: Int? = nil, out folder: String? = nil,
    resumes: Bool = false, on backend: B, note: (SettingsText) -> Void = { _ in }
  ) throws {
    var recipe = recipe
    recipe.model = model ?? recipe.model
    recipe.data = data ?? recipe.data
    recipe.steps = steps ?? recipe.steps
    try self.init([recipe], out: folder, resumes: resumes, on: backend, note: note)
  }

  /// The same for several adapters: their recipes name each, and agree in what belongs to the base; and for several ranks.
  ///
  /// - Parameter held: memory in use, asked for once the model stands, where a recipe has a budget; without it that of the backend's
  ///   pool.
  /// - Precondition: there is a recipe.
  /// - Throws: as with one recipe.
  public init(
    _ recipes: [TrainingRecipe], out folder: String? = nil, resumes: Bool = false, ranks: any Collective = Solo(), on backend: B,
    note: (SettingsText) -> Void = { _ in }, held: (() -> HeldMemory)? = nil
  ) throws {
    for (number, recipe) in recipes.enumerated() { try SettingsError.about(recipe: number) { try recipe.check() } }
    try TrainingRecipe.requireOneRun(recipes)
    try Self.requireWork(for: ranks, recipes)
    let folder = ranks.rank == 0 ? folder : nil
    let common = recipes[0]
    lock = try folder.flatMap { MappedFile.isFolder($0) ? try Self.lock($0, note: note) : nil }
    let isFull = common.method == .full
    let files = try ModelFolder(common.model, newUnder: isFull ? common.seed : nil)
    let tokenizer = try Tokenizer(model: common.model)
    var said: Set<String> = []  // what holds for the data holds for the validation too
    let learners = try recipes.enumerated().map { number, recipe in
      try SettingsError.about(recipe: number) {
        try Learner<B>(recipe, number: number, place: recipes.count > 1 ? recipe.name : nil, files, tokenizer) {
          if said.insert($0.description).inserted { note($0.about(recipe: number)) }
        }
      }
    }
    (self.learners, self.tokenizer, self.folder, self.backend, self.ranks) = (learners, tokenizer, folder, backend, ranks)
    steps = learners.map(\.steps).max() ?? 0
    (resumedStep, damaged) = try folder.map { try Self.resumedStep(in: $0, resumes: resumes, learners, files, note: note) } ?? (0, [])
    base = folder == nil ? .null : try files.identity()

    if files.isNew { note("\(common.model) has no weights; they are drawn under \(setting: "seed") \(common.seed)") }
    for text in tokenizer.notes + files.configuration.notes(on: common.model) { note("\(text)") }
    if let positions = files.configuration.contextLength {
      let samples = learners.flatMap(\.samples)
      let long = samples.count { $0.ids.count > positions }
      if long > 0 { note("\(long) of \(samples.count) samples are longer than the \(positions) positions of the model") }
    }
    try Self.requireOwnAngles(learners, files.configuration, common.model)
    decoder = try files.decoder(
      adapters: recipes.map(\.origin), trainsBase: isFull, evaluation: common.evaluation, balanceLoss: common.routerLoss, on: backend)
    for (recipe, adapter) in zip(recipes, decoder.adapters) {
      guard let jitter = adapter.configuration.mixture?.jitterNoise, jitter != 0 else { continue }
      throw CheckpointError(
        file: (recipe.adapter ?? "") + "/adapter_config.json", place: .key("jitter_noise"), found: "\(jitter)",
        expected: "0: jitter while training is not built yet")
    }
    memory = try common.memory == nil ? nil : memoryPlan(held: held?() ?? HeldMemory(bytes: backend.counters.poolBytes))
    if let budget = common.memory, let memory {
      note(
        "\(setting: "memory") \(budget) bytes: \(memory.recomputedBlocks) of \(memory.blocks) blocks are recomputed; \(memory.total) bytes by arithmetic, \(memory.held) of them before the first step, with what threads will need"
      )
    }
  }

  /// Where angles depend on the longest sequence of a batch, one adapter's samples would turn another's.
  private static func requireOwnAngles(_ learners: [Learner<B>], _ configuration: DecoderConfiguration, _ model: String) throws {
    let longest = learners.flatMap(\.samples).map(\.ids.count).max() ?? 0
    guard learners.count > 1, let scaling = configuration.rotary.scaling, scaling.dependence(on: longest) != 0 else { return }
    throw CheckpointError(
      file: model + "/config.json", place: .key("rope_scaling"),
      found: "angles that depend on a batch's longest sequence, here up to \(longest)",
      expected: "another, shorter samples, or one adapter a run")
  }

  /// How many numbers are trained.
  public var parameterCount: Int { decoder.parameters.reduce(0) { $0 + $1.value.shape.count } }

  /// How many of them are there before the first step. The B of a new adapter are zeros, which take no memory yet.
  public var writtenParameterCount: Int {
    learners.flatMap { learner in
      learner.form.part(of: decoder).parameters.filter { learner.recipe.adapter != nil || $0.role != .b }
    }.reduce(0) { $0 + $1.shape.count }
  }

  /// How many of them a learner trains.
  public func parameterCount(of learner: Learner<B>) -> Int {
    learner.form.part(of: decoder).parameters.reduce(0) { $0 + $1.shape.count }
  }

  /// The settings of the first learner.
  public var recipe: TrainingRecipe { learners[0].recipe }
  /// What the first learner learns.
  public var samples: [EncodedSample] { learners[0].samples }
  /// The line of every step of the first learner so far.
  public var metrics: [Metrics] { learners[0].metrics }

  /// Makes the steps that are left, or goes on until somebody asks for an end; then the run may go on by another call.
  ///
  /// - Parameters:
  ///   - onStep: hears the line of every step, of each learner that makes it.
  ///   - clock: seconds of a clock that only moves forward.
  ///   - shouldStop: asked once after every step; a run that is told to stop, on any rank, saves that step first.
  /// - Throws: `NonFiniteValue` for a step that gave no number, the steps before it being saved; `CheckpointError` if a file cannot be
  ///   read or written; what the device reports.
  public func run(
    onStep: (Metrics) throws -> Void = { _ in }, clock: (() -> Double)? = nil, shouldStop: () -> Bool = { false }
  ) throws {
    let clock = clock ?? Self.steadyClock()
    try prepare()
    defer { lock = nil }
    while step < steps {
      let lines: [(learner: Int, line: Metrics)]
      do { lines = try nextStep(clock) } catch let error as NonFiniteValue {
        try saveCheckpoint()
        try ranks.barrier()  // nobody may end the others before the first has saved
        throw error
      }
      step += 1
      for (i, line) in lines { try learners[i].add(line) }
      for (_, line) in lines { try onStep(line) }
      let asked = try ranks.minimum(shouldStop() ? Int64(ranks.rank) : .max)  // read once: a changed answer would end the run unsaved
      let isStopped = asked < .max
      stoppingRank = isStopped ? Int(asked) : nil
      if step % recipe.saveEvery == 0 || step == steps { try requireSameParameters() }
      if isStopped || lines.contains(where: { isSaved(learners[$0.learner]) }) { try saveCheckpoint() }
      try leave()
      if isStopped, step < steps { return try ranks.barrier() }
    }
    if let folder { try writeResult(to: folder) }
    try ranks.barrier()
  }

  /// Whether a learner wants the step that it has made to be kept: its best, its last, or every so many.
  private func isSaved(_ learner: Learner<B>) -> Bool {
    learner.best?.step == step || learner.steps == step || step % learner.recipe.saveEvery == 0
  }

  /// Lets go of who has made its last step: its result is written, its moments are given back.
  private func leave() throws {
    for (i, learner) in learners.enumerated() where learner.steps == step {
      optimizers[i] = nil
      if let folder, step < steps { try learner.writeResult(decoder, to: folder, on: backend) }
    }
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
      guard optimizers.isEmpty ? Folder.names(in: folder).isEmpty : !newer else {
        throw CheckpointError(file: folder, found: "files of another run", expected: "the folder as this run left it")
      }
      self.lock = lock
    }
    guard optimizers.isEmpty else { return }
    try requireSameSettings()
    resumedStep = Int(try ranks.minimum(ranks.rank == 0 ? Int64(resumedStep) : .max))
    var optimizers = learners.map { $0.steps > resumedStep ? $0.newOptimizer(decoder, on: backend) : nil }
    if let folder {
      for i in learners.indices {
        if resumedStep > 0 {
          try TrainingCheckpoint.restore(decoder, learners[i], &optimizers[i], from: folder, step: resumedStep, on: backend)
        }
        try learners[i].resume(folder, at: resumedStep)
      }
      prune(folder)  // a killed run may not have come to it
    }
    try takeValuesOfTheFirst(&optimizers, withMoments: resumedStep > 0)
    step = resumedStep
    self.optimizers = optimizers
  }

  /// Writes what was trained and what can be said of the run into a folder, which is made if it is not there: the files that a run
  /// with a folder of its own leaves, but for checkpoints. Files of the same names are replaced.
  ///
  /// - Throws: `NonFiniteValue` if a value is not finite, `CheckpointError` if the folder cannot be written.
  public func save(to folder: String) throws {
    try Folder.create(folder)
    try writeResult(to: folder)
    for learner in learners { _ = try MetricsFile(learner.folder(in: folder) + "/metrics.jsonl", learner.metrics) }
  }

  private func writeResult(to folder: String) throws {
    for learner in learners { try learner.writeResult(decoder, to: folder, on: backend) }
  }

  /// Keeps other runs out of a folder.
  private static func lock(_ folder: String, note: (SettingsText) -> Void = { _ in }) throws -> FolderLock {
    let lock = try FolderLock(folder)
    if !lock.isHeld { note("\(folder) is on a file system without locks; no other run may write there meanwhile") }
    return lock
  }

  // MARK: Checkpoints

  /// - Throws: `NonFiniteValue` where a step left a parameter that is not finite; `CheckpointError`.
  private func saveCheckpoint() throws {
    guard let folder, !optimizers.isEmpty else { return }
    for learner in learners { try learner.file?.synchronize() }
    do {
      try TrainingCheckpoint.save(
        decoder, learners, optimizers, step: step, settings: Self.settings(of: learners), base: base, to: folder,
        replacing: damaged.contains(step), on: backend)
    } catch let error as NonFiniteValue { throw error.within("step \(step)") }
    damaged.remove(step)
    prune(folder)
  }

  /// Removes checkpoints but for the newest and each learner's best, however old that is.
  private func prune(_ folder: String) {
    let spared = Set(learners.compactMap { $0.best?.step })
    TrainingCheckpoint.prune(folder, keep: recipe.keep, sparing: spared, damaged: damaged, adapters: learners.compactMap(\.place))
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
