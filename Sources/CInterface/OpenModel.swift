import MixLoRA
import Platform
import Synchronization

/// A model that C holds: what can be asked of it, whatever it computes in.
protocol OpenModel: Held {
  /// The points of a run.
  func points() throws -> String
  /// The token ids of a text.
  func tokens(_ text: String) throws -> String
  /// Runs a batch.
  func trace(_ settings: Settings) throws -> RecordedTrace
  /// Makes the next step of a training run.
  func step() throws -> String
  /// Writes what was trained.
  func save(to folder: String) throws -> String
}

/// A model on a backend, with its training run if it has one.
final class ModelOn<B: Backend>: OpenModel, @unchecked Sendable {  // everything below `text` is used under `working` alone
  let text: HeldText
  private let working = Mutex(())
  private let path: String
  private let seed: UInt64?  // of a model without weights, which training draws
  private let origins: [AdapterOrigin]
  private let evaluation: ExpertEvaluation
  private let balanceLoss: BalanceLossForm
  private let decoder: Decoder<B>
  private let run: TrainingRun<B>?
  private let backend: B

  /// Opens a model.
  init(_ settings: Settings, on backend: B) throws {
    self.backend = backend
    path = try settings.reader.string("model")
    (seed, origins) = (nil, try settings.strings("adapters").map { .folder($0) })
    var (evaluation, balanceLoss, hasGradients) = (ExpertEvaluation.sharedBase, BalanceLossForm.pooledTopK, true)
    try settings.take(&evaluation, "evaluation")
    try settings.take(&balanceLoss, "router_loss")
    try settings.take(&hasGradients, "gradients")
    try settings.finish()
    (self.evaluation, self.balanceLoss) = (evaluation, balanceLoss)
    decoder = try ModelFolder(path).decoder(
      adapters: origins, trainsBase: hasGradients && origins.isEmpty, evaluation: evaluation, balanceLoss: balanceLoss, on: backend)
    run = nil
    text = HeldText(JSON.members(Self.description(decoder)).serialized())
  }

  /// Opens a training run.
  init(training recipe: TrainingRecipe, on backend: B) throws {
    self.backend = backend
    try Self.requireMemory(for: recipe)
    var notes: [JSON] = []
    let run = try TrainingRun(
      [recipe], on: backend, note: { notes.append(JSON($0.text { pythonName($0.name) })) },
      held: { (backend as? any ProfilingBackend)?.held ?? HeldMemory(bytes: backend.counters.poolBytes) })
    self.run = run
    (path, seed, evaluation, balanceLoss) = (recipe.model, recipe.method == .full ? recipe.seed : nil, recipe.evaluation, recipe.routerLoss)
    origins = [recipe.origin]
    decoder = run.decoder
    text = HeldText(
      JSON.members(
        Self.description(decoder) + [
          ("steps", JSON(run.steps)), ("samples", JSON(run.samples.count)), ("notes", .array(notes)), ("settings", run.recipe.json),
        ]
      ).serialized())
  }

  private static func description(_ decoder: Decoder<B>) -> [(key: String, value: JSON)] {
    let configuration = decoder.configuration
    return [
      ("family", JSON(configuration.familyName)), ("layers", JSON(configuration.layers)), ("channels", JSON(configuration.channels)),
      ("vocabulary", JSON(configuration.vocabulary)), ("adapters", JSON(decoder.adapters.count)),
      ("parameters", JSON(decoder.parameters.reduce(0) { $0 + $1.value.shape.count })),
      ("precision", JSON((MemoryLayout<B.Scalar>.size == 8 ? Arithmetic.float64 : .float32).rawValue)),
    ]
  }

  /// Refuses drawn weights or a new adapter, with gradients and moments, that are more than this machine can hold: no file limits them.
  private static func requireMemory(for recipe: TrainingRecipe) throws {
    let configuration = try ModelFolder.configuration(recipe.model)
    let isFull = recipe.method == .full
    guard isFull || recipe.adapter == nil else { return }
    let count = isFull ? configuration.parameterCount : recipe.adapterConfiguration?.parameterCount(in: configuration) ?? 0
    let bytes = Double(4 * MemoryLayout<B.Scalar>.size) * count
    guard bytes < POSIX.memoryBytes else {
      throw InterfaceError(
        "\(isFull ? "model" : "rank, experts"): found sizes that need \(fixed(bytes / 1_073_741_824, 1)) GiB; expected at most the "
          + "\(fixed(POSIX.memoryBytes / 1_073_741_824, 1)) GiB of this machine")
    }
  }

  func points() throws -> String {
    let points = try ModelFolder(path, newUnder: seed).decoder(
      adapters: origins, trainsBase: decoder.base != nil, evaluation: evaluation, balanceLoss: balanceLoss, on: ShapeBackend()
    ).points()
    return JSON.array(
      points.map { point in
        var object = point.provenance.json.objectValue ?? .init()
        object["shape"] = .array(point.shape.map { size in Int(size).map { JSON($0) } ?? JSON(size) })
        return .object(object)
      }
    ).serialized()
  }

  func tokens(_ text: String) throws -> String {
    JSON.array(try Tokenizer(model: path).encode(text).map { JSON(Int($0)) }).serialized()
  }

  func trace(_ settings: Settings) throws -> RecordedTrace {
    let asked = try RecordedTrace.Request(settings)
    return try working.withLock { _ in
      let batch = try TraceBatch(contentsOf: asked.batch, vocabulary: decoder.configuration.vocabulary, adapters: decoder.adapters.count)
      try decoder.requireRows(of: batch, asked.batch)
      return try RecordedTrace(decoder, batch, asked, on: backend)
    }
  }

  // MARK: Training

  func step() throws -> String {
    try working.withLock { _ in
      let run = try training()
      guard run.step < run.steps else {
        throw InterfaceError("found a run whose \(run.steps) steps are all made; expected steps that are left")
      }
      try run.run(shouldStop: { true })
      return run.metrics[run.metrics.count - 1].json.serialized()
    }
  }

  func save(to folder: String) throws -> String {
    try working.withLock { _ in
      let run = try training()
      try run.save(to: folder)
      return JSON.members([("step", JSON(run.step))]).serialized()
    }
  }

  private func training() throws -> TrainingRun<B> {
    guard let run else { throw InterfaceError("found a model that was opened; expected a training run") }
    return run
  }
}

/// A setting's name as settings of this interface spell it.
func pythonName(_ setting: String) -> String { String(setting.map { $0 == "-" ? "_" : $0 }) }

extension Provenance {
  /// What a tensor is formed of.
  var json: JSON {
    [
      "name": JSON(name), "phase": JSON(phase.rawValue), "operation": JSON(operation.rawValue), "equation": JSON(equation),
      "inputs": .array(inputs.map { JSON($0.name) }),
    ]
  }
}
