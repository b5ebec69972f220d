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
  package init(parsing bytes: [UInt8], at origin: Int, of file: String, limits: Limits) throws {
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
}

/// A recursive descent through the grammar of RFC 8259, one method a production.
///
/// `offset` is the next unread byte. The bytes are known to be valid UTF-8, so that a string may be cut out between its quotes.
private struct JSONParser {
  let bytes: [UInt8]
  let file: String
  let limits: JSON.Limits
  /// Where in the file the text begins; added to every offset in a message.
  let origin: Int
  private var offset = 0
  private var valueCount = 0

  init(bytes: [UInt8], file: String, limits: JSON.Limits, origin: Int) {
    self.bytes = bytes
    self.file = file
    self.limits = limits
    self.origin = origin
  }

  /// ws value ws
  mutating func document() throws -> JSON {
    skipWhitespace()
    let value = try value(depth: 0)
    skipWhitespace()
    guard offset == bytes.count else { throw failure(expected: "the end of the text") }
    return value
  }

  private mutating func value(depth: Int) throws -> JSON {
    valueCount += 1
    guard valueCount <= limits.values else { throw failure(found: "more values", expected: "at most \(limits.values) values") }
    switch peek {
    case UInt8(ascii: "{"): return .object(try object(depth: depth + 1))
    case UInt8(ascii: "["): return .array(try array(depth: depth + 1))
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try literal("true", .bool(true))
    case UInt8(ascii: "f"): return try literal("false", .bool(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    case UInt8(ascii: "-"), .some(UInt8(ascii: "0")...UInt8(ascii: "9")): return .number(try number())
    default: throw failure(expected: "a JSON value")
    }
  }

  /// { string : value , … }
  private mutating func object(depth: Int) throws -> JSON.Object {
    try open(depth: depth)
    var object = JSON.Object()
    if take("}") { return object }
    while true {
      let keyOffset = offset
      guard peek == UInt8(ascii: "\"") else { throw failure(expected: object.count == 0 ? "a key in quotes or \"}\"" : "a key in quotes") }
      let key = try string()
      skipWhitespace()
      guard take(":") else { throw failure(expected: "\":\" after the key \(quoted(key))") }
      skipWhitespace()
      guard object.insert(key, try value(depth: depth)) else {
        throw CheckpointError(
          file: file, place: .key(key), found: "it a second time at byte \(origin + keyOffset)", expected: "each key once")
      }
      guard object.count <= limits.members else {
        throw failure(found: "more members", expected: "at most \(limits.members) members in an object")
      }
      skipWhitespace()
      if take("}") { return object }
      guard take(",") else { throw failure(expected: "\",\" or \"}\"") }
      skipWhitespace()
    }
  }

  /// [ value , … ]
  private mutating func array(depth: Int) throws -> [JSON] {
    try open(depth: depth)
    var elements: [JSON] = []
    if take("]") { return elements }
    while true {
      elements.append(try value(depth: depth))
      skipWhitespace()
      if take("]") { return elements }
      guard take(",") else { throw failure(expected: "\",\" or \"]\"") }
      skipWhitespace()
    }
  }

  /// Goes past an opening bracket.
  private mutating func open(depth: Int) throws {
    guard depth <= limits.depth else { throw failure(found: "nesting \(depth) deep", expected: "at most \(limits.depth) levels") }
    offset += 1
    skipWhitespace()
  }

  private mutating func literal(_ word: StaticString, _ value: JSON) throws -> JSON {
    for expected in word.description.utf8 {
      guard peek == expected else { throw failure(expected: "\(word)") }
      offset += 1
    }
    return value
  }

  /// - (0 | 1–9 digits) (. digits) (e ± digits)
  private mutating func number() throws -> JSON.Number {
    let start = offset
    _ = take("-")
    if !take("0") { try digits() }
    var mayOverflow = offset - start > 300
    if take(".") { try digits() }
    if take("e") || take("E") {
      if !take("+") { _ = take("-") }
      try digits()
      mayOverflow = true
    }
    let number = JSON.Number(validated: String(decoding: bytes[start..<offset], as: UTF8.self))
    if mayOverflow, !number.double.isFinite {
      offset = start
      throw failure(found: "the number \(JSON.number(number).summary)", expected: "a number within the range of Double")
    }
    return number
  }

  private mutating func digits() throws {
    let start = offset
    while let byte = peek, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { offset += 1 }
    guard offset > start else { throw failure(expected: "a digit") }
  }

  private mutating func string() throws -> String {
    offset += 1
    var decoded: [UInt8] = []  // what stands before the last escape; stays empty where there is none
    var start = offset
    while true {
      switch peek {
      case UInt8(ascii: "\""):
        decoded += bytes[start..<offset]
        offset += 1
        return String(decoding: decoded, as: UTF8.self)
      case UInt8(ascii: "\\"):
        decoded += bytes[start..<offset]
        decoded += String(try escape()).utf8
        start = offset
      case nil, .some(0..<0x20): throw failure(expected: "the rest of a string (control characters must be escaped)")
      default: offset += 1
      }
    }
  }

  private mutating func escape() throws -> Unicode.Scalar {
    offset += 1
    guard let letter = peek else { throw failure(expected: "an escape") }
    let scalar: Unicode.Scalar
    switch letter {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): scalar = Unicode.Scalar(letter)
    case UInt8(ascii: "b"): scalar = "\u{8}"
    case UInt8(ascii: "f"): scalar = "\u{C}"
    case UInt8(ascii: "n"): scalar = "\n"
    case UInt8(ascii: "r"): scalar = "\r"
    case UInt8(ascii: "t"): scalar = "\t"
    case UInt8(ascii: "u"): return try unicodeEscape()
    default: throw failure(expected: "one of \" \\ / b f n r t u after \\")
    }
    offset += 1
    return scalar
  }

  /// uXXXX, or a surrogate pair uD8XX \uDCXX; `offset` stands on the first u.
  private mutating func unicodeEscape() throws -> Unicode.Scalar {
    let start = offset - 1
    let high = try hexadecimalUnit()
    if let scalar = Unicode.Scalar(high) { return scalar }
    if UTF16.isLeadSurrogate(UInt16(high)), take("\\") {
      guard peek == UInt8(ascii: "u") else { throw failure(expected: "the second half of a surrogate pair") }
      let low = try hexadecimalUnit()
      if UTF16.isTrailSurrogate(UInt16(low)), let scalar = Unicode.Scalar(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)) {
        return scalar
      }
    }
    offset = start
    throw failure(found: "a lone surrogate \\u\(String(high, radix: 16, uppercase: true))", expected: "a surrogate pair")
  }

  private mutating func hexadecimalUnit() throws -> UInt32 {
    offset += 1
    var unit: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = peek, let digit = Unicode.Scalar(byte).hexadecimalValue else { throw failure(expected: "four hexadecimal digits") }
      unit = unit << 4 | digit
      offset += 1
    }
    return unit
  }

  private var peek: UInt8? { offset < bytes.count ? bytes[offset] : nil }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard peek == UInt8(ascii: character) else { return false }
    offset += 1
    return true
  }

  private mutating func skipWhitespace() {
    while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
  }

  private func failure(found: String? = nil, expected: String) -> CheckpointError {
    let next =
      switch peek {
      case nil: "the end of the text"
      case 0xEF? where offset == 0 && bytes.starts(with: [0xEF, 0xBB, 0xBF]): "byte 0xEF of a byte order mark"
      case let byte? where (0x21..<0x7F).contains(byte): "\"\(Unicode.Scalar(byte))\""
      case let byte?: "byte 0x\(String(byte, radix: 16, uppercase: true))"
      }
    return CheckpointError(file: file, place: .byte(origin + offset), found: found ?? next, expected: expected)
  }
}

extension Unicode.Scalar {
  /// The value of a hexadecimal digit; nil for anything else, signs included.
  fileprivate var hexadecimalValue: UInt32? {
    switch self {
    case "0"..."9": value - 0x30
    case "a"..."f": value - 0x61 + 10
    case "A"..."F": value - 0x41 + 10
    default: nil
    }
  }
}

/// The offset of the first byte that is not part of well-formed UTF-8 (The Unicode Standard, table 3-7); nil if all is well.
///
/// Overlong forms, surrogates and scalars beyond 10FFFF are refused by narrowing the range of the second byte.
/// - Complexity: O(bytes).
package func firstInvalidUTF8(in bytes: [UInt8]) -> Int? {
  var offset = 0
  while offset < bytes.count {
    if bytes[offset] < 0x80 {
      offset += 1
      continue
    }
    guard let (length, second) = utf8Form(after: bytes[offset]) else { return offset }
    guard bytes.count - offset >= length, second.contains(bytes[offset + 1]),
      bytes[(offset + 2)..<(offset + length)].allSatisfy({ (0x80...0xBF).contains($0) })
    else { return offset }
    offset += length
  }
  return nil
}

/// How a sequence goes on that begins with a byte beyond ASCII: its length and the range of its second byte (The Unicode Standard, table
/// 3-7); nil for a byte that begins none.
package func utf8Form(after first: UInt8) -> (length: Int, second: ClosedRange<UInt8>)? {
  switch first {
  case 0xC2...0xDF: (2, 0x80...0xBF)
  case 0xE0: (3, 0xA0...0xBF)
  case 0xE1...0xEC, 0xEE...0xEF: (3, 0x80...0xBF)
  case 0xED: (3, 0x80...0x9F)
  case 0xF0: (4, 0x90...0xBF)
  case 0xF1...0xF3: (4, 0x80...0xBF)
  case 0xF4: (4, 0x80...0x8F)
  default: nil
  }
}
