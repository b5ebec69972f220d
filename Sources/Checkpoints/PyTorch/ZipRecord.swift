import JSON

/// One record of the central directory.
struct ZipRecord {
  let name: String
  let flags: UInt16
  let checksum: UInt32
  let size: Int
  let localOffset: Int

  private static let signature: UInt32 = 0x0201_4B50
  private static let localSignature: UInt32 = 0x0403_4B50
  private static let descriptorSignature: UInt32 = 0x0807_4B50
  /// Sizes and check value follow the data.
  private static let descriptorFlag: UInt16 = 1 << 3
  /// The name is UTF-8.
  private static let utf8Flag: UInt16 = 1 << 11
  private static let encryptionFlags: UInt16 = 1 << 0 | 1 << 6 | 1 << 13

  static func all(of directory: ZipDirectory, in file: MappedFile) throws -> [ZipRecord] {
    var records: [ZipRecord] = []
    var offset = directory.range.lowerBound
    for _ in 0..<directory.count {
      let (record, end) = try read(at: offset, before: directory.range.upperBound, in: file)
      records.append(record)
      offset = end
    }
    guard offset == directory.range.upperBound else {
      throw CheckpointError(
        file: file.path, place: .byte(offset), found: "\(directory.range.upperBound - offset) more bytes in the zip directory",
        expected: "the end after \(directory.count) members")
    }
    return records
  }

  private static func read(at start: Int, before limit: Int, in file: MappedFile) throws -> (ZipRecord, end: Int) {
    guard limit - start >= 46, try file.integer(UInt32.self, at: start) == signature else {
      throw CheckpointError(file: file.path, place: .byte(start), found: "no zip directory record", expected: "one of at least 46 bytes")
    }
    // +8 flags (2) · +10 method (2) · +16 check value (4) · +20 compressed (4) · +24 size (4) · +28 name, extra, comment (2 each)
    // · +34 disk (2) · +42 local header (4)
    let nameLength = Int(try file.integer(UInt16.self, at: start + 28))
    let extraLength = Int(try file.integer(UInt16.self, at: start + 30))
    let commentLength = Int(try file.integer(UInt16.self, at: start + 32))
    let end = start + 46 + nameLength + extraLength + commentLength
    guard end <= limit else {
      throw CheckpointError(
        file: file.path, place: .byte(start), found: "a zip directory record that ends at byte \(end)", expected: "at most \(limit)")
    }
    let nameBytes = try file.bytes(in: (start + 46)..<(start + 46 + nameLength))
    guard !nameBytes.isEmpty, firstInvalidUTF8(in: nameBytes) == nil else {
      throw CheckpointError(
        file: file.path, place: .byte(start + 46), found: nameBytes.isEmpty ? "an empty member name" : "a member name that is not UTF-8",
        expected: "a name in UTF-8")
    }
    let name = String(decoding: nameBytes, as: UTF8.self)
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: file.path, place: .member(name), found: found, expected: expected)
    }

    let flags = try file.integer(UInt16.self, at: start + 8)
    guard flags & encryptionFlags == 0 else { throw failure("encryption (flags \(flags))", "a plain member") }
    guard flags & ~(descriptorFlag | utf8Flag) == 0 else {
      throw failure("flags \(flags)", "none but \(descriptorFlag) (descriptor) and \(utf8Flag) (UTF-8)")
    }
    let method = try file.integer(UInt16.self, at: start + 10)
    guard method == 0 else { throw failure("compression method \(method)", "0, stored; PyTorch does not compress") }

    var compressed = UInt64(try file.integer(UInt32.self, at: start + 20))
    var size = UInt64(try file.integer(UInt32.self, at: start + 24))
    var offset = UInt64(try file.integer(UInt32.self, at: start + 42))
    let extraStart = start + 46 + nameLength
    var wide = try zip64Fields(in: extraStart..<(extraStart + extraLength), of: file, name: name)
    // The zip64 field holds, in this order, just those that do not fit.
    if size == 0xFFFF_FFFF { size = try wide.next(name, file) }
    if compressed == 0xFFFF_FFFF { compressed = try wide.next(name, file) }
    if offset == 0xFFFF_FFFF { offset = try wide.next(name, file) }
    guard compressed == size else { throw failure("\(compressed) stored bytes", "\(size), the size of the member") }
    guard try file.integer(UInt16.self, at: start + 34) == 0 else { throw failure("it in another part", "a single file") }
    guard size <= UInt64(file.size), offset <= UInt64(file.size) else {
      throw failure("\(size) bytes at byte \(offset)", "them within the \(file.size) bytes of the file")
    }
    return (
      ZipRecord(
        name: name, flags: flags, checksum: try file.integer(UInt32.self, at: start + 16), size: Int(size), localOffset: Int(offset)), end
    )
  }

  /// Checks the local header, the data and the descriptor against this record.
  ///
  /// - Returns: where the data is, and where the member ends.
  func locate(in file: MappedFile, before limit: Int) throws -> (range: Range<Int>, end: Int) {
    let start = localOffset
    guard limit - start >= 30, try file.integer(UInt32.self, at: start) == Self.localSignature else {
      throw failure(file, "no zip header at byte \(start)", "one of at least 30 bytes")
    }
    // +6 flags (2) · +8 method (2) · +14 check value (4) · +18 compressed (4) · +22 size (4) · +26 name, extra (2 each)
    let localFlags = try file.integer(UInt16.self, at: start + 6)
    let method = try file.integer(UInt16.self, at: start + 8)
    let nameLength = Int(try file.integer(UInt16.self, at: start + 26))
    let extraLength = Int(try file.integer(UInt16.self, at: start + 28))
    let extraStart = start + 30 + nameLength
    let dataStart = extraStart + extraLength
    guard dataStart <= limit, size <= limit - dataStart else {
      throw failure(file, "\(size) bytes of data at byte \(dataStart)", "them to end before the zip directory at byte \(limit)")
    }
    let localName = try file.bytes(in: (start + 30)..<extraStart)
    guard localName == Array(name.utf8) else {
      throw failure(file, "the name \(quoted(String(decoding: localName, as: UTF8.self))) in its header", "the name in the zip directory")
    }
    guard localFlags == flags, method == 0 else {
      throw failure(file, "flags \(localFlags) and method \(method) in its header", "\(flags) and 0 as in the zip directory")
    }

    var localCompressed = UInt64(try file.integer(UInt32.self, at: start + 18))
    var localSize = UInt64(try file.integer(UInt32.self, at: start + 22))
    let localChecksum = try file.integer(UInt32.self, at: start + 14)
    var wide = try Self.zip64Fields(in: extraStart..<dataStart, of: file, name: name)
    if localSize == 0xFFFF_FFFF { localSize = try wide.next(name, file) }
    if localCompressed == 0xFFFF_FFFF { localCompressed = try wide.next(name, file) }
    // A writer that did not know them yet leaves zeros and puts them behind the data.
    let hasDescriptor = flags & Self.descriptorFlag != 0
    let isLeftOpen = hasDescriptor && localChecksum == 0 && localSize == 0 && localCompressed == 0
    guard isLeftOpen || (localChecksum == checksum && localSize == UInt64(size) && localCompressed == UInt64(size)) else {
      throw failure(
        file, "\(localSize) bytes, \(localCompressed) stored, with check value \(localChecksum) in its header",
        "\(size), \(size) and \(checksum) as in the zip directory")
    }

    let range = dataStart..<(dataStart + size)
    let computed = try file.withBytes(in: range) { CRC32.checksum($0) }
    guard computed == checksum else {
      throw failure(file, "data with the check value \(computed)", "\(checksum); the file is damaged or was written without check values")
    }
    return (range, hasDescriptor ? try descriptorEnd(at: range.upperBound, before: limit, in: file) : range.upperBound)
  }

  /// signature (4) · check value (4) · stored size · size, the sizes 4 or 8 bytes each.
  private func descriptorEnd(at start: Int, before limit: Int, in file: MappedFile) throws -> Int {
    if limit - start >= 16, try file.integer(UInt32.self, at: start) == Self.descriptorSignature,
      try file.integer(UInt32.self, at: start + 4) == checksum
    {
      // The wide form first: read as the narrow one, its upper half of the stored size would have to be the size.
      if limit - start >= 24, try file.integer(UInt64.self, at: start + 8) == UInt64(size),
        try file.integer(UInt64.self, at: start + 16) == UInt64(size)
      {
        return start + 24
      }
      if try file.integer(UInt32.self, at: start + 8) == UInt32(truncatingIfNeeded: size),
        try file.integer(UInt32.self, at: start + 12) == UInt32(truncatingIfNeeded: size)
      {
        return start + 16
      }
    }
    throw failure(file, "no matching descriptor at byte \(start)", "check value \(checksum) and size \(size) behind the data")
  }

  /// The 8-byte numbers of the zip64 field (id 1) among the extra fields; empty where there is none.
  private static func zip64Fields(in range: Range<Int>, of file: MappedFile, name: String) throws -> Zip64Numbers {
    var offset = range.lowerBound
    var numbers: Range<Int>?
    while offset < range.upperBound {
      // id (2) · length (2) · payload
      guard range.upperBound - offset >= 4, case let length = Int(try file.integer(UInt16.self, at: offset + 2)),
        range.upperBound - offset - 4 >= length
      else {
        throw CheckpointError(
          file: file.path, place: .member(name), found: "a zip extra field at byte \(offset) that leaves its header",
          expected: "it to end at byte \(range.upperBound) at the latest")
      }
      if try file.integer(UInt16.self, at: offset) == 1 {
        guard numbers == nil else {
          throw CheckpointError(file: file.path, place: .member(name), found: "two zip64 fields", expected: "at most one")
        }
        numbers = (offset + 4)..<(offset + 4 + length)
      }
      offset += 4 + length
    }
    return Zip64Numbers(range: numbers ?? range.upperBound..<range.upperBound)
  }

  private func failure(_ file: MappedFile, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file.path, place: .member(name), found: found, expected: expected)
  }
}

/// The numbers of a zip64 field, taken one after the other.
private struct Zip64Numbers {
  var range: Range<Int>

  mutating func next(_ name: String, _ file: MappedFile) throws -> UInt64 {
    guard range.count >= 8 else {
      throw CheckpointError(
        file: file.path, place: .member(name), found: "no zip64 number for a field of FFFFFFFF", expected: "8 bytes in a zip64 field")
    }
    defer { range = (range.lowerBound + 8)..<range.upperBound }
    return try file.integer(UInt64.self, at: range.lowerBound)
  }
}
