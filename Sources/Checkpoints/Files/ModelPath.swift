import JSON

/// The path that stands for a model: a Hugging Face folder, or one GGUF file.
public enum ModelPath {
  /// Whether a path is that of a GGUF file: by its name, or because it is a file and no folder.
  public static func isGGUF(_ path: String) -> Bool {
    path.utf8.suffix(5).elementsEqual(".gguf".utf8) || MappedFile.isRegularFile(path)
  }

  /// Says so where nothing, or an adapter, is given as a model, before a file is missed inside.
  ///
  /// - Throws: `CheckpointError` for a path without anything, and for a folder with an `adapter_config.json` and no `config.json`.
  public static func require(_ path: String) throws {
    guard isGGUF(path) || Folder.exists(path) else {
      throw CheckpointError(file: path, found: "nothing of this name", expected: "a model's folder or GGUF file")
    }
    guard Folder.exists(path + "/adapter_config.json"), !Folder.exists(path + "/config.json") else { return }
    throw CheckpointError(file: path, found: "an adapter", expected: "a model's folder or GGUF file; the adapter goes to --adapter")
  }
}
