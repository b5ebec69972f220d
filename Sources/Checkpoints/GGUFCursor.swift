/// Walks through the header of a GGUF file; every step is checked against the rest of the file.
struct GGUFCursor {
  let file: MappedFile
  private(set) var offset: Int

  init(_ file: MappedFile, at offset: Int = 0) {
    self.file = file
    self.offset = offset
  }

  /// Bytes from here to the end of the file.
  var remaining: Int { file.size - offset }

  /// The next number; `what` names it for the message.
  mutating func integer<T: FixedWidthInteger>(_: T.Type, _ what: @autoclosure () -> String) throws -> T {
    let width = MemoryLayout<T>.size
    guard remaining >= width else {
      throw error(at: offset, found: "\(remaining) more bytes", "\(width) bytes of \(what()); the file is cut off")
    }
    defer { offset += width }
    return try file.integer(T.self, at: offset)
  }

  /// Steps over `count` things of `width` bytes each.
  mutating func skip(_ count: Int, each width: Int, _ what: @autoclosure () -> String) throws -> Range<Int> {
    guard count <= remaining / width else {
      throw error(
        at: offset, found: "\(remaining) more bytes", "\(count) × \(width) bytes of \(what()); the file may be cut off")
    }
    defer { offset += count * width }
    return offset..<(offset + count * width)
  }

  /// Steps over a string; returns where its bytes are.
  mutating func skipString(_ what: @autoclosure () -> String, atMost limit: Int = GGUF.maximumLength) throws -> Range<Int> {
    let start = offset
    let length = try integer(UInt64.self, "the length of \(what())")
    guard length <= UInt64(limit) else {
      throw error(at: start, found: "a length of \(length) of \(what())", "at most \(limit)")
    }
    guard length <= UInt64(remaining) else {
      throw error(
        at: start, found: "a length of \(length) of \(what())", "at most the \(remaining) bytes that are left; the file may be cut off")
    }
    return try skip(Int(length), each: 1, what())
  }

  /// The bytes of the next string.
  mutating func string(_ what: @autoclosure () -> String, atMost limit: Int) throws -> [UInt8] {
    try file.bytes(in: skipString(what(), atMost: limit))
  }

  func error(at offset: Int, found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file.path, place: .byte(offset), found: found, expected: expected)
  }
}
