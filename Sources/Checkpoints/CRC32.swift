/// The cyclic redundancy check of zip (polynomial 04C11DB7, bits reversed), eight bytes at a time ("slicing by 8").
enum CRC32 {
  /// `tables[k][b]`: what the byte b contributes when k more bytes follow it.
  private static let tables: [[UInt32]] = {
    var first = [UInt32](repeating: 0, count: 256)
    for byte in 0..<256 {
      var crc = UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0xEDB8_8320 : crc >> 1 }
      first[byte] = crc
    }
    var tables = [first]
    for k in 1..<8 {
      tables.append(tables[k - 1].map { crc in (crc >> 8) ^ first[Int(crc & 0xFF)] })
    }
    return tables
  }()

  /// The check value of some bytes.
  ///
  /// - Complexity: O(bytes).
  static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    let tables = Self.tables
    var crc = UInt32.max
    var offset = 0
    while bytes.count - offset >= 8 {
      let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) ^ UInt64(crc)
      crc = 0
      for k in 0..<8 { crc ^= tables[7 - k][Int((word >> UInt64(8 * k)) & 0xFF)] }
      offset += 8
    }
    for byte in bytes[offset...] {
      crc = (crc >> 8) ^ tables[0][Int((crc ^ UInt32(byte)) & 0xFF)]
    }
    return ~crc
  }
}
