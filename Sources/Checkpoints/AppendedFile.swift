#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// Text added to the end of a file, such as a log; unlike `AtomicFile`, a killed process may leave half a line.
public enum AppendedFile {
  /// Appends `text`, creating the file if it is missing.
  ///
  /// - Throws: `CheckpointError` if the system fails.
  public static func append(_ text: String, to path: String) throws {
    let descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT, 0o666)
    guard descriptor >= 0 else { throw CheckpointError(file: path, call: "open", code: errno, expected: "a file that can be written") }
    defer { close(descriptor) }
    try Array(text.utf8).withUnsafeBytes { bytes in
      try AtomicFile.writeFully(bytes, to: path) { write(descriptor, $0, $1) }
    }
  }
}
