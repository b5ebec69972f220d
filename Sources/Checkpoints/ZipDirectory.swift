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
