extension JSON {
  /// Bounds on a text from an untrusted file; the defaults are far beyond any configuration.
  public struct Limits: Sendable {
    /// Bytes of a file; a longer one is not read into memory.
    public var bytes = 1 << 30
    /// Nested arrays and objects; more would exhaust the stack.
    public var depth = 128
    /// Values of any kind in the whole text.
    public var values = 50_000_000
    /// Members of one object.
    public var members = 10_000_000

    /// The defaults.
    public init() {}
  }

  /// Reads a whole text by the letter of RFC 8259: valid UTF-8, one value, white space around it and nothing else.
  ///
  /// Refused besides: a key that stands twice in one object, escapes of lone surrogates, numbers beyond the range of `Double`, a
  /// byte order mark, and what is beyond `limits`.
  /// - Parameters:
  ///   - bytes: the text.
  ///   - file: what messages call it.
  /// - Throws: `CheckpointError` with the byte offset, what was found and what was expected.
  /// - Complexity: O(bytes).
  public init(parsing bytes: [UInt8], file: String, limits: Limits = Limits()) throws {
    try self.init(parsing: bytes, at: 0, of: file, limits: limits)
  }

  /// Reads a text that begins at a byte of a file; see `init(parsing:file:limits:)`.
  init(parsing bytes: [UInt8], at origin: Int, of file: String, limits: Limits) throws {
    if let offset = firstInvalidUTF8(in: bytes) {
      throw CheckpointError(
        file: file, place: .byte(origin + offset), found: "byte 0x\(String(bytes[offset], radix: 16, uppercase: true))",
        expected: "UTF-8 text")
    }
    var parser = JSONParser(bytes: bytes, file: file, limits: limits, origin: origin)
    self = try parser.document()
  }

  /// Reads a text; see `init(parsing:file:limits:)`.
  ///
  /// - Throws: `CheckpointError` with the byte offset, what was found and what was expected.
  public init(parsing text: String, file: String, limits: Limits = Limits()) throws {
    try self.init(parsing: Array(text.utf8), file: file, limits: limits)
  }

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
