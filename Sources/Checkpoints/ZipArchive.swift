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
