import JSON

/// A zip archive of stored (uncompressed) members, as PyTorch writes it (format: PKWARE APPNOTE 6.3).
///
///     local header · data [· descriptor]   for every member, one after the other from byte 0
///     central directory · [zip64 record · zip64 locator] · end record · comment
///
/// The central directory says what is there; every local header must repeat it, the members must fill the file without hole or
/// overlap, and every check value is computed. So there is one way only to read the file, and damage is noticed.
struct ZipArchive: Sendable {
  /// A member: its name and where its data is.
  struct Member: Sendable {
    let name: String
    let range: Range<Int>
  }

  let file: MappedFile
  /// The members in the order of the central directory.
  let members: [Member]

  private static let maximumMemberCount = 1_000_000

  init(_ file: MappedFile) throws {
    let directory = try ZipDirectory(in: file)
    guard directory.count <= Self.maximumMemberCount else {
      throw CheckpointError(file: file.path, found: "\(directory.count) zip members", expected: "at most \(Self.maximumMemberCount)")
    }
    let records = try ZipRecord.all(of: directory, in: file)
    var names: Set<ByteKey> = []
    for record in records where !names.insert(ByteKey(record.name)).inserted {
      throw CheckpointError(file: file.path, place: .member(record.name), found: "it twice", expected: "each member once")
    }

    var ranges: [Int: Range<Int>] = [:]  // data by offset of the local header
    var end = 0
    for record in records.sorted(by: { $0.localOffset < $1.localOffset }) {
      guard record.localOffset == end else {
        throw CheckpointError(
          file: file.path, place: .member(record.name), found: "its header at byte \(record.localOffset)",
          expected: "it at byte \(end), where the member before it ends")
      }
      let (range, memberEnd) = try record.locate(in: file, before: directory.range.lowerBound)
      ranges[record.localOffset] = range
      end = memberEnd
    }
    guard end == directory.range.lowerBound else {
      throw CheckpointError(
        file: file.path, found: "the zip directory at byte \(directory.range.lowerBound)",
        expected: "it at byte \(end), where the last member ends")
    }
    self.file = file
    self.members = records.map { Member(name: $0.name, range: ranges[$0.localOffset] ?? 0..<0) }
  }
}

/// Where the central directory is, from the records at the end of the file.
struct ZipDirectory {
  let range: Range<Int>
  let count: Int

  private static let endSignature: UInt32 = 0x0605_4B50
  private static let zip64EndSignature: UInt32 = 0x0606_4B50
  private static let zip64LocatorSignature: UInt32 = 0x0706_4B50

  init(in file: MappedFile) throws {
    let end = try Self.endRecord(in: file)
    // +4 this disk (2) · +6 disk of the directory (2) · +8 entries here (2) · +10 entries (2) · +12 size (4) · +16 offset (4)
    var disks = [UInt32(try file.integer(UInt16.self, at: end + 4)), UInt32(try file.integer(UInt16.self, at: end + 6))]
    var countHere = UInt64(try file.integer(UInt16.self, at: end + 8))
    var count = UInt64(try file.integer(UInt16.self, at: end + 10))
    var size = UInt64(try file.integer(UInt32.self, at: end + 12))
    var offset = UInt64(try file.integer(UInt32.self, at: end + 16))
    var directoryEnd = end

    // A zip64 locator right before the end record leads to wider numbers; fields that fit stand in both.
    let locator = end - 20
    if locator >= 0, try file.integer(UInt32.self, at: locator) == Self.zip64LocatorSignature {
      let record = locator - 56
      let stated = try file.integer(UInt64.self, at: locator + 8)
      guard record >= 0, stated == UInt64(record), try file.integer(UInt32.self, at: record) == Self.zip64EndSignature,
        try file.integer(UInt64.self, at: record + 4) == 44
      else {
        throw CheckpointError(
          file: file.path, place: .byte(locator), found: "a zip64 record at byte \(stated)",
          expected: "it at byte \(locator - 56), 56 bytes before its locator")
      }
      // +16 this disk (4) · +20 disk of the directory (4) · +24 entries here (8) · +32 entries (8) · +40 size (8) · +48 offset (8)
      let wide = (
        disks: [try file.integer(UInt32.self, at: record + 16), try file.integer(UInt32.self, at: record + 20)],
        countHere: try file.integer(UInt64.self, at: record + 24), count: try file.integer(UInt64.self, at: record + 32),
        size: try file.integer(UInt64.self, at: record + 40), offset: try file.integer(UInt64.self, at: record + 48)
      )
      guard count == 0xFFFF || count == wide.count, size == 0xFFFF_FFFF || size == wide.size,
        offset == 0xFFFF_FFFF || offset == wide.offset
      else {
        throw CheckpointError(
          file: file.path, place: .byte(record),
          found: "\(wide.count) members, directory of \(wide.size) bytes at \(wide.offset) in the zip64 record",
          expected: "\(count), \(size) and \(offset) as in the end record")
      }
      (disks, countHere, count, size, offset) = (wide.disks, wide.countHere, wide.count, wide.size, wide.offset)
      directoryEnd = record
    }
    guard disks.allSatisfy({ $0 == 0 || $0 == 0xFFFF }), countHere == count else {
      throw CheckpointError(file: file.path, place: .byte(end), found: "a zip archive in several parts", expected: "a single file")
    }
    guard offset <= UInt64(directoryEnd), size == UInt64(directoryEnd) - offset else {
      throw CheckpointError(
        file: file.path, place: .byte(end), found: "a zip directory of \(size) bytes at byte \(offset)",
        expected: "it to end at byte \(directoryEnd)")
    }
    self.range = Int(offset)..<directoryEnd
    self.count = Int(clamping: count)
  }

  /// The last place whose signature and comment length fit the end of the file.
  private static func endRecord(in file: MappedFile) throws -> Int {
    let length = 22
    for comment in 0...Int(UInt16.max) {
      let offset = file.size - length - comment
      guard offset >= 0 else { break }
      if try file.integer(UInt32.self, at: offset) == endSignature, try file.integer(UInt16.self, at: offset + 20) == UInt16(comment) {
        return offset
      }
    }
    throw CheckpointError(
      file: file.path, found: "no zip end record in \(file.size) bytes", expected: "a whole zip archive; the file may be cut off")
  }
}

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
