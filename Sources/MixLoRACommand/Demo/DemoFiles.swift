import CEmbedded
import Checkpoints
import Samples

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
      try AtomicFile.write(file.is_short ? ShortQuestions.records(bytes) : Array(bytes), to: folder + "/" + String(cString: file.name))
    }
  }
}
