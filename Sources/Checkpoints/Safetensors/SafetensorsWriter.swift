import JSON

/// Writes safetensors files: whole or not at all, and byte for byte as the reference implementation lays them out.
public enum SafetensorsWriter {
  /// Writes a file.
  ///
  /// The header is compact JSON, metadata first, then the tensors by descending alignment of their type and then by the bytes of their
  /// names, padded with spaces to a multiple of 8. Only one tensor needs to be in memory at a time.
  /// - Parameters:
  ///   - path: the file to write or replace (see `AtomicFile`).
  ///   - entries: the tensors, in any order.
  ///   - metadata: the members of `__metadata__`, written in this order.
  ///   - contents: called once for every tensor, in file order; hands the little-endian row-major bytes to `emit`, in one or several
  ///     pieces.
  /// - Throws: `CheckpointError` if a name is `__metadata__` or stands twice, if a type is quantized, if the header would be beyond the format's cap, if a
  ///   tensor emits another number of bytes than its entry says, or if the system fails; and what `contents` throws.
  public static func write(
    to path: String,
    entries: [TensorEntry],
    metadata: KeyValuePairs<String, String> = [:],
    contents: (_ entry: TensorEntry, _ emit: (UnsafeRawBufferPointer) throws -> Void) throws -> Void
  ) throws {
    try write(to: path, entries: entries, metadata: metadata.map { ($0.key, $0.value) }, contents: contents)
  }

  /// Writes a file; as above, for metadata that is computed.
  ///
  /// - Throws: as above.
  public static func write(
    to path: String,
    entries: [TensorEntry],
    metadata: [(key: String, value: String)],
    contents: (_ entry: TensorEntry, _ emit: (UnsafeRawBufferPointer) throws -> Void) throws -> Void
  ) throws {
    let entries = sorted(entries)
    let header = try header(entries, metadata, path)
    try AtomicFile.write(to: path) { output in
      try output.write(header)
      for entry in entries {
        let start = output.count
        try contents(entry) { try output.write($0) }
        guard output.count - start == entry.byteCount else {
          throw CheckpointError(
            file: path, place: .tensor(entry.name), found: "\(output.count - start) bytes to write",
            expected: "\(entry.byteCount) bytes for \(entry.elementType) of shape \(entry.shape)")
        }
      }
    }
  }

  private static func sorted(_ entries: [TensorEntry]) -> [TensorEntry] {
    let types = ElementType.allCases
    let keys = entries.map { entry in (rank: types.firstIndex(of: entry.elementType) ?? 0, name: ByteKey(entry.name)) }
    return entries.indices.sorted { left, right in
      keys[left].rank == keys[right].rank ? keys[left].name < keys[right].name : keys[left].rank > keys[right].rank
    }.map { entries[$0] }
  }

  /// u64 length · JSON · spaces
  private static func header(
    _ entries: [TensorEntry], _ metadata: [(key: String, value: String)], _ path: String
  ) throws -> [UInt8] {
    let text = try headerText(entries, metadata, path)
    return try prefixed(text, length: text.count + (8 - text.count % 8) % 8, tensors: entries.count, path)
  }

  /// u64 length · text · spaces up to the length
  static func prefixed(_ text: [UInt8], length: Int, tensors: Int, _ path: String) throws -> [UInt8] {
    guard length <= Safetensors.maximumHeaderLength, tensors <= Safetensors.maximumTensorCount else {
      throw CheckpointError(
        file: path, found: "\(tensors) tensors with a header of \(length) bytes",
        expected: "at most \(Safetensors.maximumTensorCount) and \(Safetensors.maximumHeaderLength)")
    }
    let bytes = (0..<8).map { UInt8(truncatingIfNeeded: UInt64(length) >> (8 * $0)) }
    return bytes + text + [UInt8](repeating: UInt8(ascii: " "), count: length - text.count)
  }

  /// The header of tensors in the order of the file.
  static func headerText(
    _ entries: [TensorEntry], _ metadata: [(key: String, value: String)], _ path: String
  ) throws -> [UInt8] {
    var header = JSON.Object()
    if !metadata.isEmpty {
      var members = JSON.Object()
      for (key, value) in metadata {
        guard members.insert(key, .string(value)) else {
          throw CheckpointError(file: path, place: .key(key), found: "it twice in the metadata to write", expected: "each key once")
        }
      }
      header[Safetensors.metadataKey] = .object(members)
    }
    var end = 0
    for entry in entries {
      let begin = end
      guard !entry.elementType.isQuantized else {
        throw CheckpointError(
          file: path, place: .tensor(entry.name), found: "\(entry.elementType) to write", expected: "a type that safetensors has")
      }
      let (sum, overflow) = begin.addingReportingOverflow(entry.byteCount)
      guard !overflow else {
        throw CheckpointError(
          file: path, place: .tensor(entry.name), found: "\(entry.byteCount) bytes after \(begin)", expected: "less than 2^63 in all")
      }
      end = sum
      let fields: JSON = [
        "dtype": JSON(entry.elementType.rawValue), "shape": .array(entry.shape.map { JSON($0) }), "data_offsets": [JSON(begin), JSON(end)],
      ]
      guard entry.name != Safetensors.metadataKey, header.insert(entry.name, fields) else {
        throw CheckpointError(
          file: path, place: .tensor(entry.name), found: entry.name == Safetensors.metadataKey ? "a reserved name" : "the name twice",
          expected: "another name")
      }
    }
    return Array(JSON.object(header).serialized().utf8)
  }
}
