/// Named tensors with a payload each (where their bytes are), found by the bytes of their names.
struct TensorTable<Payload: Sendable>: Sendable {
  private(set) var entries: [TensorEntry] = []
  private(set) var payloads: [Payload] = []
  private var indices: [ByteKey: Int] = [:]

  /// Adds a tensor; returns the payload already there if the name is taken, and then adds nothing.
  mutating func insert(_ entry: TensorEntry, _ payload: Payload) -> Payload? {
    let key = ByteKey(entry.name)
    if let index = indices[key] { return payloads[index] }
    indices[key] = entries.count
    entries.append(entry)
    payloads.append(payload)
    return nil
  }

  subscript(name: String) -> (entry: TensorEntry, payload: Payload)? {
    indices[ByteKey(name)].map { (entries[$0], payloads[$0]) }
  }

  /// The tensor of this name, or an error that names it and the file.
  func find(_ name: String, in file: String) throws -> (entry: TensorEntry, payload: Payload) {
    guard let found = self[name] else { throw CheckpointError.missingTensor(name, file: file, among: entries.count) }
    return found
  }
}
