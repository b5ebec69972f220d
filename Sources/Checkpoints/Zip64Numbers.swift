/// The numbers of a zip64 field, taken one after the other.
struct Zip64Numbers {
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
