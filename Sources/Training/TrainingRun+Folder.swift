import Checkpoints
import Decoders
import Samples
import Tensors

extension TrainingRun {
  /// What a checkpoint says that its run was started with: its learner's settings, or those of several.
  static func settings(of learners: [Learner<B>]) -> JSON {
    if learners.count == 1 { return learners[0].settings }
    return ["threads": learners[0].settings["threads"] ?? .null, "adapters": .array(learners.map(\.settings))]
  }

  /// The step to go on from, 0 for a run from the beginning, and the newer ones whose checkpoints are damaged.
  ///
  /// - Throws: `SettingsError` for a folder that holds something else, and for settings that are not those of its run; `CheckpointError`
  ///   if its run had another base model, or if none of its checkpoints can be read because the system fails.
  static func resumedStep(
    in folder: String, resumes: Bool, _ learners: [Learner<B>], _ model: ModelFolder, note: (SettingsText) -> Void
  ) throws -> (step: Int, damaged: Set<Int>) {
    guard resumes else {
      guard Folder.names(in: folder).isEmpty else {
        throw SettingsError(
          "\(setting: "out") \(folder) is not empty; \(remedy: "resume") goes on with a run, or choose another folder.")
      }
      return (0, [])
    }
    var damage: [(step: Int, error: CheckpointError)] = []
    for step in TrainingCheckpoint.steps(in: folder).reversed() {
      do { try TrainingCheckpoint.check(folder, step: step, of: learners) } catch let error as CheckpointError {
        damage.append((step, error))
        continue
      }
      if let base = try TrainingCheckpoint.base(folder, step: step) { try model.requireSame(as: base) }
      if step > 0 { try requireSame(settings(of: learners), as: try TrainingCheckpoint.settings(folder, step: step), in: folder, step) }
      for (damaged, error) in damage {
        note("\(TrainingCheckpoint.path(folder, step: damaged)) is damaged and passed over for step \(step): \(error)")
      }
      return (step, Set(damage.map(\.step)))
    }
    if let error = damage.first(where: { $0.error.isSystemFailure })?.error { throw error }
    for (damaged, error) in damage {
      note("\(TrainingCheckpoint.path(folder, step: damaged)) is damaged and passed over; the run begins anew: \(error)")
    }
    // A run that was killed before its first checkpoint has none of these: they are somebody's, and the run would write over them.
    let precious = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "config.json", "model.safetensors"]
    let isRun = learners.contains { Folder.exists($0.folder(in: folder) + "/metrics.jsonl") }
    let own = learners.compactMap(\.place).flatMap { place in
      Folder.names(in: "\(folder)/\(place)").map { (path: "\(place)/\($0)", name: $0) }
    }
    let found = Folder.names(in: folder).filter { precious.contains($0) || !isRun && !$0.hasPrefix(".") }
    if let name = (found + own.filter { precious.contains($0.name) }.map(\.path)).first {
      throw SettingsError(
        "\(setting: "resume") finds no checkpoint in \(setting: "out") \(folder), but \(name), which would be overwritten; choose another folder."
      )
    }
    return (0, Set(damage.map(\.step)))
  }

  private static func requireSame(_ new: JSON, as old: JSON, in folder: String, _ step: Int) throws {
    let changes = differences(new, old, than: "the run was started with", but: ["memory", "recompute"])  // no bit depends on these
    guard !changes.isEmpty else { return }
    let start = start(fromRunIn: folder, step, old, for: new)
    let cure: SettingsText =
      "\(remedy: "resume") takes what the run was started with; to train on in another way, give \(remedy: old["method"] == "full" ? "model" : "adapter") \(start) and another \(remedy: "out")."
    throw SettingsError(SettingsText(changes + [cure], separator: "\n"))
  }

  /// The folder from which another run may start with the values of one: its own, or that of a checkpoint while it has not ended.
  private static func start(fromRunIn folder: String, _ step: Int, _ old: JSON, for new: JSON) -> String {
    let places = old["adapters"] == nil ? [""] : adapters(old).map { "/" + $0.name }
    let file = old["method"] == "full" ? "model.safetensors" : "adapter_model.safetensors"
    let hasEnded = places.allSatisfy { Folder.exists(folder + $0 + "/" + file) }
    let start = hasEnded ? folder : TrainingCheckpoint.path(folder, step: step)
    // One of several is in the folder of its name.
    guard new["adapters"] == nil, let name = new["name"]?.stringValue, places.contains("/" + name) else { return start }
    return "\(start)/\(name)"
  }

  /// What the settings of two runs differ in, a sentence each.
  ///
  /// - Parameters:
  ///   - other: what sentences call the other run: `the run was started with`.
  ///   - ignored: settings that may differ.
  static func differences(_ own: JSON, _ others: JSON, than other: String, but ignored: Set<String> = []) -> [SettingsText] {
    if own["adapters"] == nil, others["adapters"] == nil {
      return differences(ofOne: own, others, than: other, but: ignored).map { $0.about(recipe: 0) }
    }
    let (found, expected) = (adapters(own), adapters(others))
    let (names, otherNames) = (found.map(\.name), expected.map(\.name))
    guard names == otherNames else {
      return [
        "\(setting: "adapters"): \(presentable(names.joined(separator: ", "))), but \(other) \(presentable(otherNames.joined(separator: ", ")))."
      ]
    }
    return found.indices.flatMap { i in
      differences(ofOne: found[i].settings, expected[i].settings, than: other, but: ignored).map {
        SettingsText(["\(names[i]): ", $0.about(recipe: i)], separator: "")
      }
    }
  }

  /// The adapters that a run's settings have.
  private static func adapters(_ settings: JSON) -> [(name: String, settings: JSON)] {
    (settings["adapters"]?.arrayValue ?? [settings]).map { ($0["name"]?.stringValue ?? "one without a name", $0) }
  }

  private static func differences(ofOne own: JSON, _ others: JSON, than other: String, but ignored: Set<String>) -> [SettingsText] {
    func said(_ value: JSON?, of setting: String, orElse nothing: SettingsText) -> SettingsText {
      value.flatMap { $0 == .null ? nil : "\(value: $0, of: setting)" } ?? nothing
    }
    let dropped = (others.objectValue?.members ?? []).filter { own[$0.key] == nil }.map { (key: $0.key, value: JSON.null) }
    let members = (own.objectValue?.members ?? []).map { (key: $0.key, value: $0.value) } + dropped
    func differs(_ key: String, _ value: JSON) -> Bool {
      // Where one run has no validation, that is said already.
      if key == "validation_digest", [value, others[key]].contains(where: { $0?.stringValue == nil }) { return false }
      return !ignored.contains(key) && (others[key] ?? .null) != value
    }
    return members.filter { differs($0.key, $0.value) }.map { member in
      let key = member.key
      let found = said(member.value, of: key, orElse: "not given")
      let expected = said(others[key], of: key, orElse: "none")
      return switch key {
      case "samples": "\(setting: "data") has \(found) samples, but \(other) \(expected)."
      case "name": "\(setting: key) is \(found), but \(other) \(expected); random numbers are of the name."
      case "digest": "\(setting: "data") holds other samples than \(other)."
      case "validation_digest": "\(setting: "validation") holds other samples than \(other)."
      default: "\(setting: key) is \(found), but \(other) \(expected)."
      }
    }
  }

  /// Writes the batches of all steps N, from 1, to a safetensors file: `step.N.input_ids`, `step.N.attention_mask`, `step.N.labels`,
  /// and of several adapters `step.N.adapter`, the number of each row's.
  ///
  /// - Throws: `CheckpointError` if the file cannot be written or cannot hold them.
  public func writeBatches(to path: String) throws {
    try BatchFile.write(
      to: path, learners, steps: steps,
      metadata: ["format": "mixlora batches", "template": recipe.encoding.template.rawValue, "seed": "\(recipe.seed)"])
  }
}
