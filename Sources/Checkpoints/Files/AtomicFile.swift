import JSON
import Platform
import Tensors

/// Writes files that appear whole or not at all.
///
/// The bytes go to a temporary file in the same directory; it is flushed to the device, renamed over the target, and the directory is
/// flushed too (rename without a flush can leave an empty file after a power failure). On any failure before the rename the temporary
/// file is removed and what was at the path stays. A process that is killed midway leaves `.partial-<process>-<number>` behind.
/// A symbolic link at the path is replaced, not followed.
public enum AtomicFile {
  /// Where the body of a streaming write puts its bytes.
  public final class Output {
    private let path: String
    private let file: FileDescriptor
    /// The bytes written so far.
    public private(set) var count = 0

    fileprivate init(path: String, file: FileDescriptor) {
      self.path = path
      self.file = file
    }

    /// Appends bytes.
    ///
    /// - Throws: `CheckpointError` if the system cannot take all of them.
    public func write(_ bytes: UnsafeRawBufferPointer) throws {
      try writeFully(bytes, to: path) { try file.write($0) }
      count += bytes.count
    }

    /// Appends bytes.
    ///
    /// - Throws: `CheckpointError` if the system cannot take all of them.
    public func write(_ bytes: [UInt8]) throws {
      try bytes.withUnsafeBytes(write)
    }

    /// Writes over the first bytes, which are there already.
    ///
    /// - Throws: `CheckpointError` if the system cannot take all of them.
    func writeAtBeginning(_ bytes: [UInt8]) throws {
      guard bytes.count <= count else { trap("\(path): \(bytes.count) bytes over the first \(count)") }
      var offset: Int64 = 0
      try bytes.withUnsafeBytes { bytes in
        try writeFully(bytes, to: path) { piece in
          let taken = try file.write(toAbsoluteOffset: offset, piece)
          offset += Int64(taken)
          return taken
        }
      }
    }
  }

  /// Writes a file from bytes that are all at hand.
  ///
  /// - Throws: `CheckpointError` naming the path.
  public static func write(_ bytes: [UInt8], to path: String) throws {
    try write(to: path) { try $0.write(bytes) }
  }

  /// Writes a text file in UTF-8.
  ///
  /// - Throws: `CheckpointError` naming the path.
  public static func write(_ text: String, to path: String) throws {
    try write(Array(text.utf8), to: path)
  }

  /// Writes a file piece by piece.
  ///
  /// - Throws: `CheckpointError` naming the path, or what `body` throws; the old file is then still there. Only if flushing the
  ///   directory fails is the new one in place already.
  public static func write(to path: String, _ body: (Output) throws -> Void) throws {
    try MappedFile.requirePath(path)
    // Renaming over a device or a FIFO would remove it.
    if try MappedFile.exists(path) { try MappedFile.requireRegularFile(path) }
    let directory = Self.directory(of: path)
    let (temporary, file) = try createTemporary(in: directory, for: path)
    do {
      do {
        try body(Output(path: path, file: file))
        try systemCall("fsync", path, "to flush the file to its device") { try POSIX.flush(file) }
      } catch {
        try? file.close()
        throw error
      }
      try systemCall("close", path, "to finish writing the file") {
        // An interrupted close has closed; any other failure may be a delayed write that was lost.
        do { try file.close() } catch Errno.interrupted {}
      }
      try systemCall("rename", path, "to put the finished file in place") { try POSIX.move(temporary, to: path) }
    } catch {
      try? POSIX.removeFile(temporary)
      throw error
    }
    try flushFolder(directory, path)
  }

  /// Throws what `write` would throw before its first byte: for finding a folder that is missing or read-only before long work.
  ///
  /// - Throws: `CheckpointError` naming the path.
  public static func check(_ path: String) throws {
    try MappedFile.requirePath(path)
    if try MappedFile.exists(path) { try MappedFile.requireRegularFile(path) }
    let (temporary, file) = try createTemporary(in: directory(of: path), for: path)
    try? file.close()
    try? POSIX.removeFile(temporary)
  }

  /// Flushes a file, or the names in a folder, to the device.
  ///
  /// - Throws: `CheckpointError` if the system refuses.
  public static func flush(_ path: String) throws {
    let expected = "a file or folder that can be synced"
    let file = try systemCall("open", path, expected) { try FileDescriptor.open(path, .readOnly, options: .closeOnExec) }
    defer { try? file.close() }
    try systemCall("fsync", path, expected) { try POSIX.flush(file) }
  }

  /// Hands all bytes to a system call that may be interrupted or take fewer than it was given.
  static func writeFully(_ bytes: UnsafeRawBufferPointer, to path: String, _ write: (UnsafeRawBufferPointer) throws -> Int) throws {
    // Darwin refuses counts beyond 2^31 - 1 and Linux cuts them, so larger buffers go in pieces.
    let limit = 1 << 30
    var done = 0
    while done < bytes.count {
      try systemCall("write", path, "to write \(bytes.count) bytes, \(done) were written") {
        let piece = bytes[done..<(done + min(limit, bytes.count - done))]
        let taken: Int
        do { taken = try write(UnsafeRawBufferPointer(rebasing: piece)) } catch Errno.interrupted { return }
        guard taken > 0 else { throw Errno.ioError }
        done += taken
      }
    }
  }

  private static func directory(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private static func createTemporary(in directory: String, for path: String) throws -> (path: String, file: FileDescriptor) {
    for number in 0..<10_000 {
      let temporary = "\(directory)/.partial-\(POSIX.processID)-\(number)"
      let file: FileDescriptor? = try systemCall("open", path, "a folder \(directory) that can be written to") {
        do {
          return try .open(
            temporary, .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec], permissions: FilePermissions(rawValue: 0o666))
        } catch Errno.fileExists {
          return nil  // another thread is writing there, or a killed process with this number left it
        }
      }
      if let file { return (temporary, file) }
    }
    throw CheckpointError(file: path, found: "10000 unfinished files in \(directory)", expected: "room for one; remove .partial-*")
  }

  /// Flushes the folder of a file that is in place already, where the system can: some folders may be written but not read, and some
  /// file systems cannot flush any.
  private static func flushFolder(_ folder: String, _ path: String) throws {
    try systemCall("open", path, "to flush the folder \(folder)") {
      let file: FileDescriptor
      do { file = try .open(folder, .readOnly, options: .closeOnExec) } catch Errno.permissionDenied { return }
      defer { try? file.close() }
      try systemCall("fsync", path, "to flush the folder \(folder)") {
        do { try POSIX.flush(file) } catch .invalidArgument {}
      }
    }
  }
}

/// Text added to the end of a file, such as a log; unlike `AtomicFile`, a killed process may leave half a line.
public enum AppendedFile {
  /// Appends `text`, creating the file if it is missing.
  ///
  /// - Throws: `CheckpointError` if the system fails.
  public static func append(_ text: String, to path: String) throws {
    let file = try systemCall("open", path, "a file that can be written") {
      try FileDescriptor.open(path, .writeOnly, options: [.append, .create], permissions: FilePermissions(rawValue: 0o666))
    }
    defer { try? file.close() }
    try Array(text.utf8).withUnsafeBytes { bytes in
      try AtomicFile.writeFully(bytes, to: path) { try file.write($0) }
    }
  }
}
