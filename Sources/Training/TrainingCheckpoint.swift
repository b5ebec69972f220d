import Checkpoints
import Decoders
import Platform
import Tensors

/// `checkpoint-<step>` folders: the adapter or the model, the optimizer's moments and what the run was started with.
///
/// A folder is written under another name, every file and the folder synced, then renamed; so it is complete or absent.
/// There is nothing else to save: data order and masks are functions of seed and step.
public enum TrainingCheckpoint {
  static let prefix = "checkpoint-"
  private static let stateFile = "state.json"
  private static let momentsFile = "optimizer.safetensors"

  /// Steps of the complete checkpoints in a run's folder, in order.
  public static func steps(in folder: String) -> [Int] {
    Folder.names(in: folder).compactMap { name in
      guard name.hasPrefix(prefix), let step = Int(name.dropFirst(prefix.count)), step >= 0 else { return nil }
      return Folder.exists("\(folder)/\(name)/\(stateFile)") ? step : nil
    }.sorted()
  }

  /// The path of a step's checkpoint.
  public static func path(_ folder: String, step: Int) -> String { "\(folder)/\(prefix)\(step)" }

  /// Writes the checkpoint of a step.
  ///
  /// - Parameters:
  ///   - settings: what the run was started with; a resumed run must have the same.
  ///   - form: in which form the trained values are written.
  /// - Throws: `CheckpointError` if the system fails; what was there is untouched.
  public static func save<B: Backend>(
    _ decoder: Decoder<B>, _ optimizer: some Optimizer<B>, step: Int, settings: JSON, as form: TrainedFolder, to folder: String,
    on backend: B
  ) throws {
    let final = path(folder, step: step)
    guard !Folder.exists("\(final)/\(stateFile)") else { return }  // anything else of this name makes the renaming fail
    let partial = "\(folder)/.\(prefix)\(step).partial-\(POSIX.processID)"
    try Folder.create(partial)
    do {
      try form.write(decoder, to: partial, on: backend)
      let moments = optimizer.moments
      let entries = try moments.map { try TensorEntry(name: $0.name, elementType: elementType(B.self), shape: $0.value.shape.sizes) }
      var byName: [String: Tensor<B>] = [:]
      for moment in moments { byName[moment.name] = moment.value }
      try SafetensorsWriter.write(to: "\(partial)/\(momentsFile)", entries: entries, metadata: ["format": "mixlora"]) { entry, emit in
        guard let value = byName[entry.name] else { return }
        try backend.download(value).withUnsafeBytes { try emit($0) }
      }
      let state: JSON = ["step": JSON(step), "settings": settings]
      try AtomicFile.write(state.serialized(.indented(2)) + "\n", to: "\(partial)/\(stateFile)")
      try AtomicFile.flush(partial)
      try Folder.rename(partial, to: final)
      try AtomicFile.flush(folder)
    } catch {
      Folder.remove(partial)
      throw error
    }
  }

  /// What the run of a checkpoint was started with.
  ///
  /// - Throws: `CheckpointError` if the checkpoint is damaged.
  public static func settings(_ folder: String, step: Int) throws -> JSON {
    let file = "\(path(folder, step: step))/\(stateFile)"
    guard let settings = try JSON(contentsOf: file)["settings"] else {
      throw CheckpointError(file: file, place: .key("settings"), found: "nothing", expected: "what the run was started with")
    }
    return settings
  }

  /// The threads of the run whose newest checkpoint is in a folder: its bits depend on them. nil if there is none, or it does not say.
  ///
  /// - Throws: `CheckpointError` if the checkpoint is damaged.
  public static func threads(ofRunIn folder: String) throws -> Int? {
    guard let step = steps(in: folder).last else { return nil }
    return try settings(folder, step: step)["threads"]?.intValue
  }

  /// Puts the values of a checkpoint into the model's parameters and the optimizer.
  ///
  /// - Throws: `CheckpointError` for a missing, surplus or mis-shaped tensor.
  public static func restore<B: Backend>(
    _ decoder: Decoder<B>, _ optimizer: inout some Optimizer<B>, from folder: String, step: Int, as form: TrainedFolder, on backend: B
  ) throws {
    let path = path(folder, step: step)
    let state = try JSON(contentsOf: "\(path)/\(stateFile)")
    guard state["step"]?.intValue == step else {
      throw CheckpointError(
        file: "\(path)/\(stateFile)", place: .key("step"), found: state["step"]?.summary ?? "nothing", expected: "\(step)")
    }
    let values = CheckpointWeights(try Safetensors(path: "\(path)/\(form.tensorsFile)"), on: backend)
    for tensor in decoder.trainedTensors {
      let shape = tensor.view(of: tensor.parameter.value).shape
      tensor.set(try values.tensor(tensor.name, shape, .constant(0)), on: backend)
    }
    try values.finish()
    let moments = CheckpointWeights(try Safetensors(path: "\(path)/\(momentsFile)"), on: backend)
    try optimizer.restore { try moments.tensor($0, $1, .constant(0)) }
    try moments.finish()
  }

  /// Removes all but the newest `keep` checkpoints and `spared`, and what killed runs left half-written: checkpoints, and files of
  /// `AtomicFile`.
  public static func prune(_ folder: String, keep: Int, sparing spared: Set<Int>) {
    for step in steps(in: folder).dropLast(keep) where !spared.contains(step) {
      // Renamed first: a run killed while it removes must not leave half a checkpoint under a checkpoint's name.
      let doomed = "\(folder)/.\(prefix)\(step).partial-old"
      if (try? Folder.rename(path(folder, step: step), to: doomed)) != nil { Folder.remove(doomed) }
    }
    for name in Folder.names(in: folder) {
      if name.hasPrefix(".\(prefix)"), name.contains(".partial-") { Folder.remove("\(folder)/\(name)") }
      if name.hasPrefix(".partial-") { try? POSIX.removeFile("\(folder)/\(name)") }
    }
  }

  private static func elementType<B: Backend>(_: B.Type) -> ElementType { MemoryLayout<B.Scalar>.size == 8 ? .float64 : .float32 }
}
