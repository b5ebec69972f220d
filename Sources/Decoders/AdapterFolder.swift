import Checkpoints
import Tensors

/// An adapter on disk, as MoE-PEFT and PEFT name, write and read it: `adapter_config.json` and its tensors.
public enum AdapterFolder {
  static let tensorsFile = "adapter_model.safetensors"

  /// The tensors of an adapter folder: `adapter_model.safetensors`, else `adapter_model.bin`.
  ///
  /// - Throws: `CheckpointError` if neither can be read.
  public static func tensors(in folder: String) throws -> any TensorSource {
    guard MappedFile.isFolder(folder) else {
      throw CheckpointError(
        file: folder, found: MappedFile.isRegularFile(folder) ? "a file" : "nothing of this name", expected: "an adapter's folder")
    }
    let safetensors = "\(folder)/\(tensorsFile)"
    do { return try Safetensors(path: safetensors) } catch let error as CheckpointError where error.isMissingFile {
      do { return try PyTorchFile(path: folder + "/adapter_model.bin") } catch let error as CheckpointError where error.isMissingFile {
        throw CheckpointError(
          file: folder, found: "neither adapter_model.safetensors nor adapter_model.bin", expected: "one of them beside adapter_config.json"
        )
      }
    }
  }

  /// Writes the first adapter of `decoder` into an existing folder: `adapter_model.safetensors`, then `adapter_config.json`; each whole
  /// or not at all.
  ///
  /// All values are float32, as both libraries expect. A plain LoRA folder is PEFT's; a MixLoRA folder has MoE-PEFT's
  /// names, in safetensors.
  ///
  /// - Parameter baseModel: what `base_model_name_or_path` says.
  /// - Precondition: the model has an adapter.
  /// - Throws: `CheckpointError` if the folder cannot be written, and what the device reports.
  public static func write<B: Backend>(_ decoder: Decoder<B>, to folder: String, baseModel: String?, on backend: B) throws {
    guard let adapter = decoder.adapters.first else { trap("AdapterFolder.write: the model has no adapter") }
    let configuration = adapter.configuration
    try adapter.trained.write(to: "\(folder)/\(tensorsFile)", format: configuration.mixture == nil ? "pt" : "mixlora", on: backend)
    try AtomicFile.write(configuration.json(baseModel: baseModel).serialized(.indented(2)) + "\n", to: folder + "/adapter_config.json")
  }
}
