import Checkpoints
import Tensors

/// An adapter on disk, as MoE-PEFT and PEFT name, write and read it: `adapter_config.json` and its tensors.
public enum AdapterFolder {
  static let tensorsFile = "adapter_model.safetensors"
  static let configurationFile = "adapter_config.json"

  /// What an adapter's folder says, and its tensors under the names that its program writes today.
  ///
  /// - Throws: `CheckpointError` for what is missing, wrong, not built yet, or of another program.
  static func open(_ folder: String) throws -> (configuration: AdapterConfiguration, tensors: any TensorSource) {
    let tensors = try tensors(in: folder)
    let configuration = try AdapterConfiguration(contentsOf: "\(folder)/\(configurationFile)")
    return (configuration, configuration.mixture == nil ? try PEFTNames(tensors) : tensors)
  }

  /// What an adapter's folder says.
  ///
  /// - Throws: `CheckpointError` as for all of it.
  public static func configuration(of folder: String) throws -> AdapterConfiguration { try open(folder).configuration }

  /// The tensors of an adapter folder: `adapter_model.safetensors`, else `adapter_model.bin`.
  ///
  /// - Throws: `CheckpointError` if neither can be read.
  public static func tensors(in folder: String) throws -> any TensorSource {
    guard MappedFile.isFolder(folder) else {
      let isGGUF = folder.hasSuffix(".gguf") && MappedFile.isRegularFile(folder)
      throw CheckpointError(
        file: folder,
        found: isGGUF ? "a GGUF file, as llama.cpp keeps adapters" : MappedFile.isRegularFile(folder) ? "a file" : "nothing of this name",
        expected: isGGUF ? "the folder of PEFT or MoE-PEFT that it was converted from" : "an adapter's folder")
    }
    let safetensors = "\(folder)/\(tensorsFile)"
    do { return try Safetensors(path: safetensors) } catch let error as CheckpointError where error.isMissingFile {
      do { return try PyTorchFile(path: folder + "/adapter_model.bin") } catch let error as CheckpointError where error.isMissingFile {
        let names = Folder.names(in: folder)
        let other =
          names.contains("adapters.safetensors") || names.contains("adapters.npz")
          ? ", but adapters.safetensors or .npz: an adapter of mlx-lm, which is not read"
          : names.contains { $0.hasSuffix(".gguf") } ? ", but a GGUF file: an adapter of llama.cpp, which is not read" : ""
        throw CheckpointError(
          file: folder, found: "neither adapter_model.safetensors nor adapter_model.bin\(other)",
          expected: "one of them beside adapter_config.json, as PEFT and MoE-PEFT write them")
      }
    }
  }

  /// Writes an adapter into an existing folder: `adapter_model.safetensors`, then `adapter_config.json`; each whole
  /// or not at all.
  ///
  /// All values are float32, as both libraries expect. A plain LoRA folder is PEFT's; a MixLoRA folder has MoE-PEFT's
  /// names, in safetensors.
  ///
  /// - Parameter baseModel: what `base_model_name_or_path` says.
  /// - Throws: `CheckpointError` if the folder cannot be written, and what the device reports.
  public static func write<B: Backend>(_ adapter: Adapter<B>, to folder: String, baseModel: String?, on backend: B) throws {
    let configuration = adapter.configuration
    try adapter.trained.write(to: "\(folder)/\(tensorsFile)", format: configuration.mixture == nil ? "pt" : "mixlora", on: backend)
    try AtomicFile.write(configuration.json(baseModel: baseModel).serialized(.indented(2)) + "\n", to: "\(folder)/\(configurationFile)")
  }
}
