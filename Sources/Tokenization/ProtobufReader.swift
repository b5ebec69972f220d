import JSON

/// Reads the fields of a protobuf message, one after the other, within bounds.
///
///     field = varint (number << 3 | type) · value      type 0 varint, 1 eight bytes, 2 varint length and so many bytes, 5 four bytes
struct ProtobufReader {
  /// A value as it stands in the file: its type is the schema's business.
  enum Value {
    case varint(UInt64)
    case fixed(UInt64)
    case bytes(Range<Int>)
  }

  private let bytes: [UInt8]
  private let file: String
  private var offset: Int
  private let end: Int

  /// A message that takes up a range, or all, of a file.
  init(_ bytes: [UInt8], in range: Range<Int>? = nil, of file: String) {
    self.bytes = bytes
    self.file = file
    (offset, end) = (range?.lowerBound ?? 0, range?.upperBound ?? bytes.count)
  }

  /// The next field; nil at the end of the message.
  ///
  /// - Throws: `CheckpointError` with the byte where something else begins.
  mutating func next() throws -> (number: Int, value: Value)? {
    guard offset < end else { return nil }
    let start = offset
    let key = try varint()
    let number = key >> 3
    guard (1...0x1FFF_FFFF).contains(number) else { throw error(at: start, "field \(number)", "a field from 1 to 536870911") }
    switch key & 7 {
    case 0: return (Int(number), .varint(try varint()))
    case 1: return (Int(number), .fixed(try fixed(8)))
    case 2:
      let length = try varint()
      guard length <= UInt64(end - offset) else { throw error(at: start, "\(length) bytes", "at most \(end - offset), which are left") }
      defer { offset += Int(length) }
      return (Int(number), .bytes(offset..<(offset + Int(length))))
    case 5: return (Int(number), .fixed(try fixed(4)))
    case let type: throw error(at: start, "wire type \(type)", "0, 1, 2 or 5")
    }
  }

  private mutating func varint() throws -> UInt64 {
    let start = offset
    var value: UInt64 = 0
    for shift in stride(from: UInt64(0), to: 70, by: 7) {
      guard offset < end else { throw error(at: start, "the end", "the rest of a number") }
      let byte = UInt64(bytes[offset])
      offset += 1
      guard shift < 63 || byte <= 1 else { break }
      value |= (byte & 0x7F) << shift
      if byte < 0x80 { return value }
    }
    throw error(at: start, "a number of more than 64 bits", "64 bits")
  }

  private mutating func fixed(_ count: Int) throws -> UInt64 {
    guard end - offset >= count else { throw error(at: offset, "\(end - offset) bytes", "\(count)") }
    defer { offset += count }
    return (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
  }

  private func error(at place: Int, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .byte(place), found: found, expected: expected + " (of protobuf, as SentencePiece writes it)")
  }
}
