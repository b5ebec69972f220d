import JSON

/// The type of a value in the metadata of a GGUF file, by the number that the file has for it.
public enum GGUFValueType: UInt32, CaseIterable, Sendable, CustomStringConvertible {
  /// Unsigned 8-bit integer.
  case uint8
  /// Signed 8-bit integer.
  case int8
  /// Unsigned 16-bit integer.
  case uint16
  /// Signed 16-bit integer.
  case int16
  /// Unsigned 32-bit integer.
  case uint32
  /// Signed 32-bit integer.
  case int32
  /// IEEE 754 single precision.
  case float32
  /// One byte, 0 or 1.
  case bool
  /// A length and so many bytes.
  case string
  /// An element type, a count and so many values.
  case array
  /// Unsigned 64-bit integer.
  case uint64
  /// Signed 64-bit integer.
  case int64
  /// IEEE 754 double precision.
  case float64

  /// The name in ggml, such as `UINT32`.
  public var description: String {
    let names = [
      "UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING", "ARRAY", "UINT64", "INT64", "FLOAT64",
    ]
    return names[Int(rawValue)]
  }

  /// Bytes of a value of fixed size; nil for strings and arrays.
  var width: Int? {
    switch self {
    case .uint8, .int8, .bool: 1
    case .uint16, .int16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64: 8
    case .string, .array: nil
    }
  }
}

/// A value of the metadata of a GGUF file. Integers are widened exactly; the type in the file is `GGUFMetadata.type(_:)`.
public enum GGUFValue: Sendable {
  /// UINT8 to UINT64.
  case unsigned(UInt64)
  /// INT8 to INT64.
  case signed(Int64)
  /// FLOAT32 or FLOAT64.
  case number(Double)
  /// BOOL.
  case bool(Bool)
  /// STRING, any bytes.
  case string([UInt8])
  /// ARRAY, whose elements stay in the file until they are asked for.
  case array(GGUFArray)

  /// The integer; nil if it is none or beyond `Int`.
  public var intValue: Int? {
    switch self {
    case .unsigned(let value): Int(exactly: value)
    case .signed(let value): Int(exactly: value)
    default: nil
    }
  }

  /// The truth value; nil for anything else.
  public var boolValue: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The number, integers included; nil for anything else.
  public var doubleValue: Double? {
    switch self {
    case .unsigned(let value): Double(value)
    case .signed(let value): Double(value)
    case .number(let value): value
    default: nil
    }
  }

  /// The text of a string in UTF-8; nil for anything else.
  public var stringValue: String? {
    guard case .string(let bytes) = self, firstInvalidUTF8(in: bytes) == nil else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// The value in a few words, for messages.
  public var summary: String {
    switch self {
    case .unsigned(let value): "\(value)"
    case .signed(let value): "\(value)"
    case .number(let value): "\(value)"
    case .bool(let value): "\(value)"
    case .string(let bytes): "the string \(quoted(String(decoding: bytes.prefix(1000), as: UTF8.self)))"
    case .array(let array): "an array of \(array.count) \(array.elementType)"
    }
  }
}

extension GGUFValue: KeyedValue {
  /// False: a GGUF file has no null.
  package var isNull: Bool { false }
}

/// An array in the metadata of a GGUF file. Its place was checked when the file was opened; elements are read when asked for.
public struct GGUFArray: Sendable {
  /// The type of every element, never `array`.
  public let elementType: GGUFValueType
  /// The number of elements.
  public let count: Int

  let key: String
  let range: Range<Int>
  let file: MappedFile

  /// The bytes of every string.
  ///
  /// - Throws: `CheckpointError` if the elements are no strings.
  /// - Complexity: O(bytes).
  public func strings() throws -> [[UInt8]] {
    guard elementType == .string else { throw error("STRING") }
    var cursor = GGUFCursor(file, at: range.lowerBound)
    return try (0..<count).map { _ in try cursor.string("an element", atMost: GGUF.maximumLength) }
  }

  /// Every integer, widened exactly.
  ///
  /// - Throws: `CheckpointError` if the elements are no integers, or one is beyond `Int`.
  /// - Complexity: O(count).
  public func integers() throws -> [Int] {
    switch elementType {
    case .uint8, .int8, .uint16, .int16, .uint32, .int32, .uint64, .int64: break
    default: throw error("integers")
    }
    return try values().map {
      guard let integer = $0.intValue else { throw error("integers up to \(Int.max)") }
      return integer
    }
  }

  /// Every floating-point number.
  ///
  /// - Throws: `CheckpointError` if the elements are of another type.
  /// - Complexity: O(count).
  public func numbers() throws -> [Double] {
    guard elementType == .float32 || elementType == .float64 else { throw error("FLOAT32 or FLOAT64") }
    return try values().map { $0.doubleValue ?? .nan }
  }

  /// Every truth value.
  ///
  /// - Throws: `CheckpointError` if the elements are of another type.
  /// - Complexity: O(count).
  public func booleans() throws -> [Bool] {
    guard elementType == .bool else { throw error("BOOL") }
    return try file.bytes(in: range).map { $0 == 1 }
  }

  private func values() throws -> [GGUFValue] {
    let width = elementType.width ?? 1
    return try (0..<count).map { try GGUFMetadata.scalar(elementType, at: range.lowerBound + $0 * width, in: file) }
  }

  private func error(_ expected: String) -> CheckpointError {
    CheckpointError(file: file.path, place: .key(key), found: "an array of \(count) \(elementType)", expected: "one of \(expected)")
  }
}
