// Whoever reads or writes a file here meets JSON values and `CheckpointError`.
@_exported import JSON

extension JSON {
  /// Reads the text of a file; see `init(parsing:file:limits:)`.
  ///
  /// - Throws: `CheckpointError` if the file cannot be read or is not JSON.
  public init(contentsOf path: String, limits: Limits = Limits()) throws {
    let file = try MappedFile(path: path)
    guard file.size <= limits.bytes else {
      throw CheckpointError(file: path, found: "\(file.size) bytes", expected: "at most \(limits.bytes) bytes of JSON")
    }
    try self.init(parsing: try file.bytes(in: 0..<file.size), file: path, limits: limits)
  }
}
