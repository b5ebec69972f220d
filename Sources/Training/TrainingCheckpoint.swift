import Checkpoints
import Decoders
import Platform
import Tensors

/// `checkpoint-<step>` folders: the adapter or the model, the optimizer's moments and what the run was started with.
///
/// Where a run has several adapters, each has a folder of its name in there; one that has made its steps has no moments left.
///
/// A folder is written under another name, every file and the folder synced, then renamed; so it is complete or absent. `state.json`
/// has size and digest of the files beside it and a digest of itself, so what a disk or a copy does to them later is noticed.
/// There is nothing else to save: data order and masks are functions of seed and step.
public enum TrainingCheckpoint {
  static let prefix = "checkpoint-"
  static let stateFile = "state.json"
  private static let momentsFile = "optimizer.safetensors"

  /// Steps of the checkpoints in a run's folder, in order; whether they are whole, `check` tells.
  public static func steps(in folder: String) -> [Int] {
    Folder.names(in: folder).compactMap { name in
      guard name.hasPrefix(prefix), let step = Int(name.dropFirst(prefix.count)), step >= 0 else { return nil }
      return isCheckpoint("\(folder)/\(name)") ? step : nil
    }.sorted()
  }

  /// Whether a folder has what is in a checkpoint, whole or not.
  private static func isCheckpoint(_ folder: String) -> Bool {
    Folder.exists("\(folder)/\(stateFile)")
      || ([""] + Folder.names(in: folder)).contains { Folder.exists("\(folder)/\($0)/\(momentsFile)") }
  }

  /// The path of a step's checkpoint.
  public static func path(_ folder: String, step: Int) -> String { "\(folder)/\(prefix)\(step)" }

  /// Writes the checkpoint of a step.
  ///
  /// - Parameters:
  ///   - learners: whose values are written.
  ///   - optimizers: theirs; nil of one that has made its steps.
  ///   - settings: what the run was started with; a resumed run must have the same.
  ///   - base: what tells the model that the run was started with from another (`ModelFolder.identity()`).
  ///   - replacing: whether a checkpoint of this step that is there is damaged; one that is not stays as it is.
  /// - Throws: `CheckpointError` if the system fails; what was there is untouched.
  static func save<B: Backend>(
    _ decoder: Decoder<B>, _ learners: [Learner<B>], _ optimizers: [(any Optimizer<B>)?], step: Int, settings: JSON, base: JSON,
    to folder: String, replacing: Bool, on backend: B
  ) throws {
    let final = path(folder, step: step)
    guard replacing || !Folder.exists("\(final)/\(stateFile)") else { return }  // anything else of this name makes the renaming fail
    let partial = "\(folder)/.\(prefix)\(step).partial-\(POSIX.processID)"
    try Folder.create(partial)
    do {
      for (learner, optimizer) in zip(learners, optimizers) {
        let own = learner.folder(in: partial)
        try Folder.create(own)
        try learner.form.write(decoder, to: own, on: backend)
        if let optimizer { try write(optimizer.moments, to: "\(own)/\(momentsFile)", on: backend) }
        if own != partial { try AtomicFile.flush(own) }
      }
      var state = JSON.Object()
      let files = try files(in: partial)
      for (key, value) in [("step", JSON(step)), ("settings", settings), ("base", base), ("files", .object(files))] { state[key] = value }
      state["digest"] = JSON(digest(of: state))
      try AtomicFile.write(JSON.object(state).serialized(.indented(2)) + "\n", to: "\(partial)/\(stateFile)")
      try AtomicFile.flush(partial)
      if replacing { retire(folder, step: step) }
      try Folder.rename(partial, to: final)
      try AtomicFile.flush(folder)
    } catch {
      remove(partial)
      throw error
    }
  }

  private static func write<B: Backend>(_ moments: [Moment<B>], to path: String, on backend: B) throws {
    let type = MemoryLayout<B.Scalar>.size == 8 ? ElementType.float64 : .float32
    let entries = try moments.map { moment in
      try TensorEntry(
        name: moment.name, elementType: moment.bytes == nil ? type : .uint8, shape: (moment.bytes ?? moment.value.shape).sizes)
    }
    var byName: [String: Moment<B>] = [:]
    for moment in moments { byName[moment.name] = moment }
    try SafetensorsWriter.write(to: path, entries: entries, metadata: ["format": "mixlora"]) { entry, emit in
      guard let moment = byName[entry.name] else { return }
      try backend.download(moment.value).withUnsafeBytes { memory in
        try emit(UnsafeRawBufferPointer(rebasing: memory.prefix(moment.bytes?.count ?? memory.count)))
      }
    }
  }

  /// Size and digest of every file that a folder and the folders in it have.
  private static func files(in folder: String) throws -> JSON.Object {
    var files = JSON.Object()
    func add(_ name: String) throws {
      let path = "\(folder)/\(name)"
      if MappedFile.isFolder(path) { return try Folder.names(in: path).forEach { try add("\(name)/\($0)") } }
      let digest = try Digest(ofFile: path)
      files[name] = ["bytes": JSON(digest.count), "digest": JSON(digest.text)]
    }
    try Folder.names(in: folder).forEach(add)
    return files
  }

  /// The digest of a state without its own.
  private static func digest(of state: JSON.Object) -> String {
    var state = state
    state["digest"] = nil
    var digest = Digest()
    Array(JSON.object(state).serialized().utf8).withUnsafeBytes { digest.add($0) }
    return digest.text
  }

  /// Throws unless a checkpoint is as it was written. One of an earlier version, which has no digests, must have tensor files that can be
  /// opened.
  ///
  /// - Throws: `CheckpointError` naming the file that is missing, unreadable or damaged.
  /// - Complexity: O(bytes of the checkpoint), which are read once.
  static func check<B: Backend>(_ folder: String, step: Int, of learners: [Learner<B>]) throws {
    let (state, path) = (try state(folder, step: step), path(folder, step: step))
    guard let files = state["files"]?.objectValue else {
      for learner in learners {
        for name in [learner.form.tensorsFile, momentsFile] { _ = try Safetensors(path: "\(learner.folder(in: path))/\(name)") }
      }
      return
    }
    for file in files.members {
      let digest = try Digest(ofFile: "\(path)/\(file.key)")
      guard let bytes = file.value["bytes"]?.intValue, digest.count == bytes else {
        throw CheckpointError(
          file: "\(path)/\(file.key)", found: "\(digest.count) bytes", expected: "\(file.value["bytes"]?.summary ?? "none"), as written")
      }
      guard file.value["digest"]?.stringValue == digest.text else {
        throw CheckpointError(
          file: "\(path)/\(file.key)", found: "other contents than were written", expected: "the digest that \(stateFile) has")
      }
    }
  }

  /// The state of a checkpoint.
  private static func state(_ folder: String, step: Int) throws -> JSON {
    let file = "\(path(folder, step: step))/\(stateFile)"
    let state = try JSON(contentsOf: file)
    guard state["step"]?.intValue == step else {
      throw CheckpointError(file: file, place: .key("step"), found: state["step"]?.summary ?? "nothing", expected: "\(step)")
    }
    guard state["settings"]?.objectValue != nil else {
      throw CheckpointError(
        file: file, place: .key("settings"), found: state["settings"]?.summary ?? "nothing", expected: "what the run was started with")
    }
    if let kept = state["digest"], let members = state.objectValue, kept != JSON(digest(of: members)) {
      throw CheckpointError(
        file: file, place: .key("digest"), found: "other contents than were written", expected: "those of \(kept.excerpt)")
    }
    return state
  }

  /// What the run of a checkpoint was started with.
  ///
  /// - Throws: `CheckpointError` if `state.json` is damaged.
  public static func settings(_ folder: String, step: Int) throws -> JSON { try state(folder, step: step)["settings"] ?? .null }

  /// What tells the model that the run of a checkpoint was started with; nil if it does not say.
  ///
  /// - Throws: `CheckpointError` if `state.json` is damaged.
  public static func base(_ folder: String, step: Int) throws -> JSON? { try state(folder, step: step)["base"] }

  /// The threads of the run whose checkpoints are in a folder: its bits depend on them. nil if there is none that can be read, or they
  /// do not say.
  public static func threads(ofRunIn folder: String) -> Int? {
    steps(in: folder).reversed().lazy.compactMap { try? settings(folder, step: $0) }.first?["threads"]?.intValue
  }

  /// Puts the values of a checkpoint into the parameters of one of its learners, and into its optimizer if it has one.
  ///
  /// - Throws: `CheckpointError` for a missing, surplus or mis-shaped tensor, or one of another type.
  public static func restore<B: Backend>(
    _ decoder: Decoder<B>, _ learner: Learner<B>, _ optimizer: inout (any Optimizer<B>)?, from folder: String, step: Int, on backend: B
  ) throws {
    let path = learner.folder(in: path(folder, step: step))
    let values = CheckpointWeights(try Safetensors(path: "\(path)/\(learner.form.tensorsFile)"), on: backend)
    for tensor in learner.form.part(of: decoder).tensors {
      let shape = tensor.view(of: tensor.parameter.value).shape
      tensor.set(try values.tensor(tensor.name, shape, .constant(0)), on: backend)
    }
    try values.finish()
    guard optimizer != nil else { return }
    let moments = CheckpointWeights(try Safetensors(path: "\(path)/\(momentsFile)"), on: backend)
    try optimizer?.restore { name, shape, isBytes in
      try isBytes ? moments.bytes(name, shape) : moments.tensor(name, shape, .constant(0))
    }
    try moments.finish()
  }

  /// Removes all but the newest `keep` checkpoints and `spared`, and what killed runs left half-written: checkpoints, and files of
  /// `AtomicFile`, these in the folders of several adapters too. Of the `damaged` ones none counts, and those stay that are newer than
  /// every other.
  public static func prune(_ folder: String, keep: Int, sparing spared: Set<Int>, damaged: Set<Int> = [], adapters: [String] = []) {
    let steps = steps(in: folder)
    let whole = steps.filter { !damaged.contains($0) }
    let passed = damaged.filter { $0 < whole.last ?? 0 }
    for step in whole.dropLast(keep).filter({ !spared.contains($0) }) + passed { retire(folder, step: step) }
    for name in Folder.names(in: folder) where name.hasPrefix(".\(prefix)") && name.contains(".partial-") { remove("\(folder)/\(name)") }
    for own in [folder] + adapters.map({ "\(folder)/\($0)" }) {
      for name in Folder.names(in: own) where name.hasPrefix(".partial-") { try? POSIX.removeFile("\(own)/\(name)") }
    }
  }

  /// Removes a checkpoint. It is renamed first: a run killed meanwhile must not leave half of one under a checkpoint's name.
  private static func retire(_ folder: String, step: Int) {
    let doomed = "\(folder)/.\(prefix)\(step).partial-old"
    if (try? Folder.rename(path(folder, step: step), to: doomed)) != nil { remove(doomed) }
  }

  /// Removes a folder with the files in it, and in its folders; anything else stays.
  private static func remove(_ folder: String) {
    for name in Folder.names(in: folder) where (try? POSIX.removeFile("\(folder)/\(name)")) == nil { Folder.remove("\(folder)/\(name)") }
    Folder.remove(folder)
  }
}
