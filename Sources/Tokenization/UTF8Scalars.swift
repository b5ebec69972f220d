import JSON

/// Reads scalars out of bytes that need not be valid UTF-8.
enum UTF8Scalars {
  /// The scalar at `offset` and its length, within `bytes[..<end]`; a byte that begins no well-formed sequence there is nil, of length 1.
  ///
  /// - Precondition: `offset < end`, both within `bytes`.
  @inline(__always)
  static func scalar(_ bytes: UnsafeBufferPointer<UInt8>, at offset: Int, end: Int) -> (value: UInt32?, length: Int) {
    let first = bytes[offset]
    if first < 0x80 { return (UInt32(first), 1) }
    return longScalar(bytes, at: offset, end: end)
  }

  /// The same for a byte beyond ASCII (The Unicode Standard, table 3-7).
  private static func longScalar(_ bytes: UnsafeBufferPointer<UInt8>, at offset: Int, end: Int) -> (value: UInt32?, length: Int) {
    let first = bytes[offset]
    guard let (length, second) = utf8Form(after: first) else { return (nil, 1) }
    guard end - offset >= length, second.contains(bytes[offset + 1]) else { return (nil, 1) }
    var value = UInt32(first) & (0x7F >> UInt32(length))
    for i in 1..<length {
      let byte = bytes[offset + i]
      guard byte & 0xC0 == 0x80 else { return (nil, 1) }
      value = value << 6 | UInt32(byte & 0x3F)
    }
    return (value, length)
  }

  /// How many bytes at the end of a text may still become a well-formed sequence when more bytes follow: 0 to 3.
  static func incompleteSuffix(of bytes: [UInt8]) -> Int {
    for length in 1...3 where length <= bytes.count {
      let first = bytes[bytes.count - length]
      if first & 0xC0 == 0x80 { continue }
      let needed = first >= 0xF0 && first <= 0xF4 ? 4 : first >= 0xE0 && first < 0xF0 ? 3 : first >= 0xC2 && first < 0xE0 ? 2 : 1
      guard length < needed else { return 0 }
      guard length > 1 else { return 1 }
      // The second byte of some sequences has a narrower range; outside it nothing that follows helps.
      let second = bytes[bytes.count - length + 1]
      let isPossible =
        switch first {
        case 0xE0: second >= 0xA0
        case 0xED: second <= 0x9F
        case 0xF0: second >= 0x90
        case 0xF4: second <= 0x8F
        default: true
        }
      return isPossible ? length : 0
    }
    return 0
  }

  /// Appends the UTF-8 bytes of a scalar.
  static func append(_ value: UInt32, to bytes: inout [UInt8]) {
    switch value {
    case 0..<0x80: bytes.append(UInt8(value))
    case 0x80..<0x800:
      bytes.append(UInt8(0xC0 | value >> 6))
      bytes.append(UInt8(0x80 | value & 0x3F))
    case 0x800..<0x10000:
      bytes.append(UInt8(0xE0 | value >> 12))
      bytes.append(UInt8(0x80 | value >> 6 & 0x3F))
      bytes.append(UInt8(0x80 | value & 0x3F))
    default:
      bytes.append(UInt8(0xF0 | value >> 18))
      bytes.append(UInt8(0x80 | value >> 12 & 0x3F))
      bytes.append(UInt8(0x80 | value >> 6 & 0x3F))
      bytes.append(UInt8(0x80 | value & 0x3F))
    }
  }
}
