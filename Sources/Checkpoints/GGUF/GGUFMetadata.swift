import JSON

/// The keys and values of a GGUF file. Every value's place and form was checked when the file was opened; it is read when asked for.
public struct GGUFMetadata: Sendable {
  private struct Field {
    let type: GGUFValueType
    /// The bytes of the value: of a string without its length, of an array without type and count.
    let range: Range<Int>
    let elements: (type: GGUFValueType, count: Int)?
  }

  /// All keys, in the order of the file.
  public private(set) var keys: [String] = []
  private var fields: [ByteKey: Field] = [:]
  private let file: MappedFile

  init(_ count: Int, _ cursor: inout GGUFCursor) throws {
    file = cursor.file
    for _ in 0..<count {
      let start = cursor.offset
      let bytes = try cursor.string("a key", atMost: GGUF.maximumKeyLength)
      guard !bytes.isEmpty, bytes.allSatisfy({ (0x20...0x7E).contains($0) }) else {
        throw cursor.error(
          at: start, found: bytes.isEmpty ? "an empty key" : "the key \(quoted(String(decoding: bytes, as: UTF8.self)))", "printable ASCII")
      }
      let key = String(decoding: bytes, as: UTF8.self)
      let field = try Self.field(key, &cursor)
      guard fields.updateValue(field, forKey: ByteKey(key)) == nil else {
        throw error(key, "it a second time at byte \(start)", "each key once")
      }
      keys.append(key)
    }
  }

  /// The type of a value as the file has it; nil if there is no such key.
  public func type(_ key: String) -> GGUFValueType? { fields[ByteKey(key)]?.type }

  /// The value of a key; nil if there is none.
  ///
  /// - Complexity: O(bytes) for a string, O(1) for everything else.
  public func value(_ key: String) throws -> GGUFValue? {
    guard let field = fields[ByteKey(key)] else { return nil }
    switch field.type {
    case .string: return .string(try file.bytes(in: field.range))
    case .array:
      guard let elements = field.elements else { return nil }
      return .array(GGUFArray(elementType: elements.type, count: elements.count, key: key, range: field.range, file: file))
    default: return try Self.scalar(field.type, at: field.range.lowerBound, in: file)
    }
  }

  /// The array of a key; nil if there is none.
  ///
  /// - Throws: `CheckpointError` if the value is no array.
  public func array(_ key: String) throws -> GGUFArray? {
    guard let value = try value(key) else { return nil }
    guard case .array(let array) = value else { throw error(key, value.summary, "an array") }
    return array
  }

  /// An error about the value of a key.
  public func error(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file.path, place: .key(key), found: found, expected: expected)
  }

  /// u32 type · value, or u32 9 · u32 element type · u64 count · elements
  private static func field(_ key: String, _ cursor: inout GGUFCursor) throws -> Field {
    let path = cursor.file.path
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: path, place: .key(key), found: found, expected: expected)
    }
    func type(_ what: String) throws -> GGUFValueType {
      let code = try cursor.integer(UInt32.self, "\(what) of \(quoted(key))")
      guard let type = GGUFValueType(rawValue: code) else { throw failure("\(what) \(code)", "0 to \(GGUFValueType.allCases.count - 1)") }
      return type
    }
    let kind = try type("the type")
    if let width = kind.width {
      let range = try cursor.skip(1, each: width, quoted(key))
      if kind == .bool { try requireBooleans(in: range, key, cursor.file) }
      return Field(type: kind, range: range, elements: nil)
    }
    if kind == .string { return Field(type: kind, range: try cursor.skipString(quoted(key)), elements: nil) }

    let elementType = try type("the element type")
    guard elementType != .array else { throw failure("an array of arrays", "an array of numbers, bools or strings") }
    let count = try cursor.integer(UInt64.self, "the length of \(quoted(key))")
    guard count <= UInt64(GGUF.maximumLength) else { throw failure("an array of \(count) elements", "at most \(GGUF.maximumLength)") }
    let start = cursor.offset
    guard Int(count) <= cursor.remaining / (elementType.width ?? 8) else {
      throw failure(
        "an array of \(count) \(elementType) in \(cursor.remaining) more bytes",
        "at most \(cursor.remaining / (elementType.width ?? 8)); the file may be cut off")
    }
    if let width = elementType.width {
      _ = try cursor.skip(Int(count), each: width, quoted(key))
    } else {
      for _ in 0..<count { _ = try cursor.skipString("an element of \(quoted(key))") }
    }
    if elementType == .bool { try requireBooleans(in: start..<cursor.offset, key, cursor.file) }
    return Field(type: kind, range: start..<cursor.offset, elements: (elementType, Int(count)))
  }

  private static func requireBooleans(in range: Range<Int>, _ key: String, _ file: MappedFile) throws {
    try file.withBytes(in: range) { bytes in
      guard let index = bytes.firstIndex(where: { $0 > 1 }) else { return }
      throw CheckpointError(
        file: file.path, place: .key(key), found: "\(bytes[index]) at byte \(range.lowerBound + index)", expected: "a BOOL, 0 or 1")
    }
  }

  /// A value of fixed size.
  static func scalar(_ type: GGUFValueType, at offset: Int, in file: MappedFile) throws -> GGUFValue {
    switch type {
    case .uint8: .unsigned(UInt64(try file.integer(UInt8.self, at: offset)))
    case .uint16: .unsigned(UInt64(try file.integer(UInt16.self, at: offset)))
    case .uint32: .unsigned(UInt64(try file.integer(UInt32.self, at: offset)))
    case .uint64: .unsigned(try file.integer(UInt64.self, at: offset))
    case .int8: .signed(Int64(try file.integer(Int8.self, at: offset)))
    case .int16: .signed(Int64(try file.integer(Int16.self, at: offset)))
    case .int32: .signed(Int64(try file.integer(Int32.self, at: offset)))
    case .int64: .signed(try file.integer(Int64.self, at: offset))
    case .float32: .number(Double(Float(bitPattern: try file.integer(UInt32.self, at: offset))))
    case .float64: .number(Double(bitPattern: try file.integer(UInt64.self, at: offset)))
    case .bool: .bool(try file.integer(UInt8.self, at: offset) == 1)
    case .string, .array: .string([])  // neither has a fixed size, so nobody asks
    }
  }
}
