import Checkpoints
import Decoders
import Samples
import Tensors

extension TrainingRun {
  /// The texts that a recipe's data holds.
  static func texts(_ recipe: TrainingRecipe, note: (SettingsText) -> Void) throws -> [TextSample] {
    guard MappedFile.isFolder(recipe.data) else {
      if recipe.task != nil { throw SettingsError("\(setting: "task") goes with a folder; \(recipe.data) is a file.") }
      return try TrainingData.samples(recipe.data, template: recipe.encoding.template, note: note)
    }
    return try TrainingData.samples(recipe.data, try QuestionTask.chosen(recipe.task, in: recipe.data, split: "train"), split: "train")
  }

  /// What a checkpoint says that its run was started with: the recipe, what its data came to, and the steps that follow from it.
  static func settings(_ recipe: TrainingRecipe, samples: [EncodedSample], validation: [EncodedSample], steps: Int) -> JSON {
    var settings = JSON.Object()
    for member in recipe.json.objectValue?.members ?? [] {
      settings[member.key] = member.key == "steps" ? JSON(steps) : member.value
      guard member.key == "task" else { continue }
      settings["samples"] = JSON(samples.count)
      settings["digest"] = JSON(String(EncodedSample.digest(samples + validation), radix: 16))
    }
    return .object(settings)
  }

  /// The step to go on from, 0 for a run from the beginning, and the newer ones whose checkpoints are damaged.
  ///
  /// - Throws: `SettingsError` for a folder that holds something else, and for settings that are not those of its run; `CheckpointError`
  ///   if its run had another base model, or if none of its checkpoints can be read because the system fails.
  static func resumedStep(
    in folder: String, resumes: Bool, _ settings: JSON, _ model: ModelFolder, as form: TrainedFolder, note: (SettingsText) -> Void
  ) throws -> (step: Int, damaged: Set<Int>) {
    guard resumes else {
      guard Folder.names(in: folder).isEmpty else {
        throw SettingsError(
          "\(setting: "out") \(folder) is not empty; \(setting: "resume") goes on with a run, or choose another folder.")
      }
      return (0, [])
    }
    var damage: [(step: Int, error: CheckpointError)] = []
    for step in TrainingCheckpoint.steps(in: folder).reversed() {
      do { try TrainingCheckpoint.check(folder, step: step, as: form) } catch let error as CheckpointError {
        damage.append((step, error))
        continue
      }
      if let base = try TrainingCheckpoint.base(folder, step: step) { try model.requireSame(as: base) }
      if step > 0 { try requireSame(settings, as: try TrainingCheckpoint.settings(folder, step: step), in: folder) }
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
    let isRun = Folder.exists(folder + "/metrics.jsonl")
    if let name = Folder.names(in: folder).first(where: { precious.contains($0) || !isRun && !$0.hasPrefix(".") }) {
      throw SettingsError(
        "\(setting: "resume") finds no checkpoint in \(setting: "out") \(folder), but \(name), which would be overwritten; choose another folder."
      )
    }
    return (0, Set(damage.map(\.step)))
  }

  private static func requireSame(_ new: JSON, as old: JSON, in folder: String) throws {
    let dropped = (old.objectValue?.members ?? []).filter { new[$0.key] == nil }.map { (key: $0.key, value: JSON.null) }
    let members = (new.objectValue?.members ?? []).map { (key: $0.key, value: $0.value) } + dropped
    let changes: [SettingsText] = members.filter { (old[$0.key] ?? .null) != $0.value }.map { member in
      let (key, found, expected) = (member.key, member.value.serialized(), old[member.key]?.serialized() ?? "nothing")
      return switch key {
      case "samples": "\(setting: "data") has \(found) samples, but had \(expected) when the run was started."
      case "digest": "\(setting: "data") or \(setting: "validation") holds other samples than when the run was started."
      default: "\(setting: key) is \(found), but the run was started with \(expected)."
      }
    }
    guard !changes.isEmpty else { return }
    let cure: SettingsText =
      "\(setting: "resume") takes what the run was started with; to train on under other settings, give \(setting: "adapter") \(folder) another \(setting: "out")."
    throw SettingsError(SettingsText(changes + [cure], separator: "\n"))
  }

  /// The trained values and the pictures of the run.
  func writeResult(to folder: String) throws {
    try form.write(decoder, to: folder, on: backend)
    if decoder.adapter?.mixture != nil { try AdapterFolder.addPickle(to: folder) }
    try AtomicFile.write(Charts.loss(metrics), to: folder + "/loss.svg")
    if recipe.method != .full { try AtomicFile.write(Charts.experts(metrics), to: folder + "/experts.svg") }
  }

  /// Writes the batches of all steps N, from 1, to a safetensors file: `step.N.input_ids`, `step.N.attention_mask`, `step.N.labels`.
  ///
  /// - Throws: `CheckpointError` if the file cannot be written or cannot hold them.
  public func writeBatches(to path: String) throws {
    try BatchFile.write(
      to: path, plan, samples, steps: steps,
      metadata: ["format": "mixlora batches", "template": recipe.encoding.template.rawValue, "seed": "\(recipe.seed)"])
  }
}
