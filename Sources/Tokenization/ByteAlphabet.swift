/// GPT-2's alphabet: a printable character for each byte, in which byte-level vocabularies are written.
///
/// Printable Latin-1 stands for itself, every other byte, in order, for a character from U+0100 on ("Ġ" is the blank).
enum ByteAlphabet {
  /// The character of each byte.
  static let scalars: [UInt32] = {
    var table = [UInt32](repeating: 0, count: 256)
    var next: UInt32 = 0x100
    for byte in 0..<UInt32(256) {
      if (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte) {
        table[Int(byte)] = byte
      } else {
        table[Int(byte)] = next
        next += 1
      }
    }
    return table
  }()

  /// The byte of each character up to the greatest one, −1 where a character is outside of the alphabet.
  private static let bytes: [Int16] = {
    var table = [Int16](repeating: -1, count: Int(scalars.max() ?? 0) + 1)
    for (byte, value) in scalars.enumerated() { table[Int(value)] = Int16(byte) }
    return table
  }()

  /// The bytes that a token of the vocabulary stands for: each character's byte; where one is outside of the alphabet, the token's
  /// own UTF-8, as Hugging Face's decoder has it.
  static func decode(_ token: [UInt8]) -> [UInt8] {
    token.withUnsafeBufferPointer { text in
      var result: [UInt8] = []
      var offset = 0
      while offset < text.count {
        let (value, length) = UTF8Scalars.scalar(text, at: offset, end: text.count)
        guard let value, value < bytes.count, bytes[Int(value)] >= 0 else { return token }
        result.append(UInt8(bytes[Int(value)]))
        offset += length
      }
      return result
    }
  }

  /// Bytes in the alphabet, as UTF-8.
  static func encode(_ bytes: some Sequence<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    for byte in bytes { UTF8Scalars.append(scalars[Int(byte)], to: &result) }
    return result
  }
}
