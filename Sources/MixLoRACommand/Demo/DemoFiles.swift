import CEmbedded
import Checkpoints

/// The demo's base model and questions, which lie in the program itself.
enum DemoFiles {
  /// Writes `base/` (a Hugging Face folder) and `data/` below `folder`.
  ///
  /// - Throws: `CheckpointError` if the system fails.
  static func write(to folder: String) throws {
    for part in ["", "/base", "/data"] { try Folder.create(folder + part) }
    for index in 0..<embedded_file_count() {
      let file = embedded_file_at(index)
      let bytes = UnsafeBufferPointer(start: file.bytes, count: file.size)
      let name = String(cString: file.name)
      if name.hasSuffix(".txt") {
        try AtomicFile.write(questions(bytes), to: "\(folder)/\(name.dropLast(4)).jsonl")
      } else {
        try AtomicFile.write(Array(bytes), to: folder + "/" + name)
      }
    }
  }

  /// A line `swap: a b -> b a` is prompt and completion of the task swap, and becomes the line of JSON that users' files have. The program
  /// carries the short form, which is a third of it.
  private static func questions(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8] {
    var lines: [UInt8] = []
    for line in text.split(separator: UInt8(ascii: "\n")) {
      let (colon, arrow) = (line.firstIndex(of: UInt8(ascii: ":"))!, line.lastIndex(of: UInt8(ascii: ">"))!)
      lines += Array("{\"task\": \"".utf8) + line[..<colon] + Array("\", \"prompt\": \"".utf8) + line[...arrow]
      lines += Array("\", \"completion\": \"".utf8) + line[(arrow + 1)...] + Array("\"}\n".utf8)
    }
    return lines
  }
}
