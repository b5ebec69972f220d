import Checkpoints

extension ModelFolder {
  /// What tells this model from another: `configuration`, as it was understood, and for each tensor of `tensors` element type, shape and
  /// the digest of a sample of its bytes. A run keeps it in its checkpoints.
  ///
  /// - Throws: `CheckpointError` if a tensor cannot be read.
  /// - Complexity: O(tensors): at most 256 KiB of each are read.
  public func identity() throws -> JSON {
    var tensors = JSON.Object()
    for entry in source?.entries ?? [] { tensors[entry.name] = JSON(try description(of: entry)) }
    return ["configuration": configuration.json, "tensors": .object(tensors)]
  }

  private func description(of entry: TensorEntry) throws -> String {
    let digest = try source?.withBytes(of: entry.name) { Digest(sampleOf: $0) } ?? Digest()
    return "\(entry.elementType) \(entry.shape) \(digest.text)"
  }

  /// Throws if an identity that was kept is not this model's; the first difference is named. Keys that it lacks are not compared.
  ///
  /// - Throws: `CheckpointError` naming the tensor or key.
  public func requireSame(as kept: JSON) throws {
    let expected = "that of the base model that the run was started with; the model has been replaced"
    let (now, file) = (configuration.json, source?.file ?? path)
    for member in kept["configuration"]?.objectValue?.members ?? [] {
      guard let value = now[member.key], value != member.value else { continue }
      throw CheckpointError(
        file: path, place: .key(member.key), found: value.excerpt, expected: "\(member.value.excerpt), \(expected)")
    }
    guard let tensors = kept["tensors"]?.objectValue else { return }
    for entry in source?.entries ?? [] {
      guard let old = tensors[entry.name]?.stringValue else {
        throw CheckpointError(file: file, place: .tensor(entry.name), found: "a tensor", expected: "none of this name, \(expected)")
      }
      let (words, oldWords) = (try description(of: entry).split(separator: " "), old.split(separator: " "))
      guard words != oldWords else { continue }
      func kind(_ words: [Substring]) -> String { words.dropLast().joined(separator: " ") }
      let isOther = kind(words) != kind(oldWords)
      throw CheckpointError(
        file: file, place: .tensor(entry.name), found: isOther ? kind(words) : "other values",
        expected: "\(isOther ? kind(oldWords) + ", " : "")\(expected)")
    }
    if let missing = tensors.keys.first(where: { source?.entry($0) == nil }) {
      throw CheckpointError(file: file, place: .tensor(missing), found: "no tensor of this name", expected: expected)
    }
  }
}
