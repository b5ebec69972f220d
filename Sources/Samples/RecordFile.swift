import Checkpoints

/// Reads files of records as `datasets.load_dataset("json")` does: JSON Lines, one JSON array, or a single object over several lines.
///
/// A UTF-8 byte order mark, empty lines and the CR of CR LF are passed over.
enum RecordFile {
  /// What is read in one piece has at most this many bytes: it takes many times its size in memory.
  private static let wholeBytes = JSON.Limits().bytes

  /// Hands the records over, one after the other, each with what messages call it: `mine.jsonl, line 3`.
  ///
  /// - Parameter limit: how many records to read at most.
  /// - Throws: `CheckpointError` for text that is no JSON, naming file and line; for a table or a file of another format, saying what it
  ///   is; and what `body` throws.
  /// - Complexity: O(bytes); of JSON Lines one record at a time is in memory.
  static func forEach(_ path: String, limit: Int = .max, _ body: (_ record: JSON, _ name: String) throws -> Void) throws {
    let file = try MappedFile(path: path)
    let start = try file.textStart()
    try file.withBytes(in: start..<file.size) { text in
      guard let first = text.firstIndex(where: { !$0.isWhiteSpace }) else { return }
      switch text[first] {
      case UInt8(ascii: "["):
        guard text.count <= wholeBytes else {
          throw CheckpointError(
            file: path, found: "a JSON array of \(text.count) bytes", expected: "at most \(wholeBytes); JSON Lines may have any length")
        }
        let elements = try JSON(parsing: Array(text), at: start, of: path, limits: JSON.Limits()).arrayValue ?? []
        for (n, element) in elements.prefix(limit).enumerated() { try body(element, "\(path), element \(n + 1)") }
      case UInt8(ascii: "{"): try forEachLine(text, path, limit, body)
      default: throw foreign(text, path)
      }
    }
  }

  private static func forEachLine(
    _ text: UnsafeRawBufferPointer, _ path: String, _ limit: Int, _ body: (_ record: JSON, _ name: String) throws -> Void
  ) throws {
    var (number, count, rest) = (0, 0, text[...])
    while count < limit, !rest.isEmpty {
      number += 1
      let line = rest.prefix { $0 != UInt8(ascii: "\n") }
      rest = rest.dropFirst(line.count + 1)
      guard !line.allSatisfy(\.isWhiteSpace) else { continue }
      let name = "\(path), line \(number)"
      let record: JSON
      do { record = try JSON(parsing: Array(line), file: name) } catch {
        // One object over several lines is one record, if that is all there is.
        guard count == 0, text.count <= wholeBytes, let whole = try? JSON(parsing: Array(text), file: path) else { throw error }
        return try body(whole, path)
      }
      try body(record, name)
      count += 1
    }
  }

  /// What a file is that does not begin as JSON does.
  private static func foreign(_ text: UnsafeRawBufferPointer, _ path: String) -> CheckpointError {
    let line = text.prefix(1 << 16).prefix { $0 != UInt8(ascii: "\n") }
    let known: [(sign: [UInt8], name: String)] = [
      (Array("PAR1".utf8), "a Parquet file"), ([0x1f, 0x8b], "a gzip file"), (Array("PK".utf8) + [3, 4], "a zip file"),
      ([0xff, 0xfe], "UTF-16 text"), ([0xfe, 0xff], "UTF-16 text"), (Array("ARROW1".utf8), "an Arrow file"),
    ]
    let found: String
    if let format = known.first(where: { text.starts(with: $0.sign) }) {
      found = format.name
    } else if line.contains(UInt8(ascii: "\t")) {
      found = "tab-separated text"
    } else if line.contains(UInt8(ascii: ",")) {
      found = "comma-separated text"
    } else {
      found = "text that begins with \(quoted(String(decoding: line.prefix(40), as: UTF8.self)))"
    }
    return CheckpointError(
      file: path, found: found,
      expected: "JSON Lines or one JSON array in UTF-8; in Python, pandas' to_json(path, orient=\"records\", lines=True) writes a table so")
  }
}

extension UInt8 {
  fileprivate var isWhiteSpace: Bool { self == 0x20 || self == 0x09 || self == 0x0a || self == 0x0d }
}
