// Whoever reads or writes a file here meets JSON values and `CheckpointError`.
@_exported import JSON

extension JSON {
  /// Reads the text of a file; see `init(parsing:file:limits:)`.
  ///
  /// - Parameter skipsByteOrderMark: whether the text may stand behind one: where a person writes the file.
  /// - Throws: `CheckpointError` if the file cannot be read or is not JSON.
  public init(contentsOf path: String, limits: Limits = Limits(), skipsByteOrderMark: Bool = false) throws {
    let file = try MappedFile(path: path)
    guard file.size <= limits.bytes else {
      throw CheckpointError(file: path, found: "\(file.size) bytes", expected: "at most \(limits.bytes) bytes of JSON")
    }
    let start = skipsByteOrderMark ? try file.textStart() : 0
    try self.init(parsing: try file.bytes(in: start..<file.size), at: start, of: path, limits: limits)
  }
}

extension MappedFile {
  /// Where the text begins: behind the byte order mark of UTF-8, which editors on Windows put before it.
  ///
  /// - Throws: `CheckpointError` as reading does.
  package func textStart() throws -> Int {
    let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
    return try size >= mark.count && bytes(in: 0..<mark.count) == mark ? mark.count : 0
  }
}
