import Checkpoints
import Tensors

/// Adapters written to disk, as MoE-PEFT and PEFT name and read them.
public enum AdapterFolder {
  static let tensorsFile = "adapter_model.safetensors"

  /// Writes `adapter_model.safetensors`, then `adapter_config.json`, into an existing folder; each whole or not at all.
  ///
  /// All values are float32, as both libraries expect. A plain LoRA folder is PEFT's; a MixLoRA folder has MoE-PEFT's
  /// names, in safetensors.
  ///
  /// - Parameter baseModel: what `base_model_name_or_path` says.
  /// - Throws: `CheckpointError` if the folder cannot be written, and what the device reports.
  public static func write<B: Backend>(_ decoder: Decoder<B>, to folder: String, baseModel: String?, on backend: B) throws {
    guard let adapter = decoder.adapter else { trap("AdapterFolder.write: the model has no adapter") }
    let prefix = adapter.mixture == nil ? "base_model." : "mixlora."
    let tensors = decoder.trainedTensors.filter { $0.name.hasPrefix(prefix) }
    try TrainedTensor.write(tensors, to: "\(folder)/\(tensorsFile)", format: adapter.mixture == nil ? "pt" : "mixlora", on: backend)
    try AtomicFile.write(adapter.json(baseModel: baseModel).serialized(.indented(2)) + "\n", to: folder + "/adapter_config.json")
  }
}
