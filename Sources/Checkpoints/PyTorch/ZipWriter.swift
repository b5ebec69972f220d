import JSON

/// Writes a zip archive of stored members, as `ZipArchive` and PyTorch read it (format: PKWARE APPNOTE 6.3).
///
/// Every member's data begins at a multiple of 64 bytes, so that it can be mapped: an extra field "FB" fills the header, as PyTorch does.
struct ZipWriter {
  /// The first number that a field of 32 bits cannot hold.
  static let firstWide = 0xFFFF_FFFF

  private let output: AtomicFile.Output
  private let wide: Int
  private var directory: [UInt8] = []
  private var count = 0

  /// An archive into `output`, from its first byte on; sizes and places from `wide` on stand in zip64 fields.
  init(_ output: AtomicFile.Output, wideFrom wide: Int) {
    self.output = output
    self.wide = wide
  }

  /// Adds a member.
  mutating func add(_ name: String, _ data: [UInt8]) throws {
    let (offset, size, name) = (output.count, data.count, Array(name.utf8))
    let checksum = data.withUnsafeBytes { CRC32.checksum($0) }
    let (isWideSize, isWideOffset) = (size >= wide, offset >= wide)
    let sizes = isWideSize ? Self.bytes(UInt32.max) + Self.bytes(UInt32.max) : Self.bytes(UInt32(size)) + Self.bytes(UInt32(size))
    let sizeNumbers = isWideSize ? Self.bytes(UInt64(size)) + Self.bytes(UInt64(size)) : []
    // version (2) · flags: names are UTF-8 (2) · stored (2) · time and date (4) · check value (4)
    let common = Self.bytes(UInt16(0x800)) + Self.bytes(UInt16(0)) + Self.bytes(UInt32(0)) + Self.bytes(checksum) + sizes

    var extra = Self.zip64(sizeNumbers)
    let start = offset + 30 + name.count + extra.count + 4
    extra += Array("FB".utf8) + Self.bytes(UInt16((64 - start % 64) % 64))
    extra += [UInt8](repeating: UInt8(ascii: "Z"), count: (64 - start % 64) % 64)
    try output.write(
      Array("PK\u{3}\u{4}".utf8) + Self.bytes(UInt16(45)) + common + Self.bytes(UInt16(name.count)) + Self.bytes(UInt16(extra.count)) + name
        + extra)
    try output.write(data)

    let numbers = Self.zip64(sizeNumbers + (isWideOffset ? Self.bytes(UInt64(offset)) : []))
    directory += Array("PK\u{1}\u{2}".utf8) + Self.bytes(UInt16(45)) + Self.bytes(UInt16(45)) + common
    directory += Self.bytes(UInt16(name.count)) + Self.bytes(UInt16(numbers.count)) + [UInt8](repeating: 0, count: 10)
    directory += Self.bytes(isWideOffset ? UInt32.max : UInt32(offset)) + name + numbers
    count += 1
  }

  /// Writes the directory and the records at the end.
  func finish() throws {
    let start = output.count
    try output.write(directory)
    let isWide = count >= 0xFFFF || start >= wide || directory.count >= wide
    if isWide {
      let record = output.count
      try output.write(
        Array("PK\u{6}\u{6}".utf8) + Self.bytes(UInt64(44)) + Self.bytes(UInt16(45)) + Self.bytes(UInt16(45)) + Self.bytes(UInt64(0))
          + Self.bytes(UInt64(count)) + Self.bytes(UInt64(count)) + Self.bytes(UInt64(directory.count)) + Self.bytes(UInt64(start)))
      try output.write(Array("PK\u{6}\u{7}".utf8) + Self.bytes(UInt32(0)) + Self.bytes(UInt64(record)) + Self.bytes(UInt32(1)))
    }
    let members = Self.bytes(isWide ? UInt16.max : UInt16(count))
    let place =
      isWide ? Self.bytes(UInt64.max) : Self.bytes(UInt32(directory.count)) + Self.bytes(UInt32(start))
    try output.write(Array("PK\u{5}\u{6}".utf8) + Self.bytes(UInt32(0)) + members + members + place + Self.bytes(UInt16(0)))
  }

  /// The extra field of 8-byte numbers; none where there are none.
  private static func zip64(_ numbers: [UInt8]) -> [UInt8] {
    numbers.isEmpty ? [] : bytes(UInt16(1)) + bytes(UInt16(numbers.count)) + numbers
  }

  private static func bytes(_ value: some FixedWidthInteger & UnsignedInteger) -> [UInt8] {
    (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }
}
