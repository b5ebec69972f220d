#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

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
    fileprivate let descriptor: Int32
    /// The bytes written so far.
    public private(set) var count = 0

    fileprivate init(path: String, descriptor: Int32) {
      self.path = path
      self.descriptor = descriptor
    }

    /// Appends bytes.
    ///
    /// - Throws: `CheckpointError` if the system cannot take all of them.
    public func write(_ bytes: UnsafeRawBufferPointer) throws {
      try writeFully(bytes, to: path) { pointer, count in
        #if canImport(Darwin)
          Darwin.write(descriptor, pointer, count)
        #else
          Glibc.write(descriptor, pointer, count)
        #endif
      }
      count += bytes.count
    }

    /// Appends bytes.
    ///
    /// - Throws: `CheckpointError` if the system cannot take all of them.
    public func write(_ bytes: [UInt8]) throws {
      try bytes.withUnsafeBytes(write)
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
    let (temporary, descriptor) = try createTemporary(in: directory, for: path)
    do {
      do {
        try body(Output(path: path, descriptor: descriptor))
        try flush(descriptor, path)
      } catch {
        close(descriptor)
        throw error
      }
      // An interrupted close has closed; any other failure may be a delayed write that was lost.
      guard close(descriptor) == 0 || errno == EINTR else {
        throw CheckpointError(file: path, call: "close", code: errno, expected: "to finish writing the file")
      }
      guard rename(temporary, path) == 0 else {
        throw CheckpointError(file: path, call: "rename", code: errno, expected: "to put the finished file in place")
      }
    } catch {
      unlink(temporary)
      throw error
    }
    try flushDirectory(directory, path)
  }

  /// Throws what `write` would throw before its first byte: for finding a folder that is missing or read-only before long work.
  ///
  /// - Throws: `CheckpointError` naming the path.
  public static func check(_ path: String) throws {
    try MappedFile.requirePath(path)
    if try MappedFile.exists(path) { try MappedFile.requireRegularFile(path) }
    let (temporary, descriptor) = try createTemporary(in: directory(of: path), for: path)
    close(descriptor)
    unlink(temporary)
  }

  /// Hands all bytes to a system call that may be interrupted or take fewer than it was given.
  static func writeFully(
    _ bytes: UnsafeRawBufferPointer, to path: String, _ write: (UnsafeRawPointer, Int) -> Int
  ) throws {
    guard let base = bytes.baseAddress else { return }
    // Darwin refuses counts beyond 2^31 - 1 and Linux cuts them, so larger buffers go in pieces.
    let limit = 1 << 30
    var done = 0
    while done < bytes.count {
      let taken = write(base + done, min(limit, bytes.count - done))
      if taken < 0 {
        if errno == EINTR { continue }
        throw CheckpointError(file: path, call: "write", code: errno, expected: "to write \(bytes.count) bytes, \(done) were written")
      }
      guard taken > 0 else {
        throw CheckpointError(file: path, call: "write", code: EIO, expected: "to write \(bytes.count) bytes, \(done) were written")
      }
      done += taken
    }
  }

  private static func directory(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private static func createTemporary(in directory: String, for path: String) throws -> (path: String, descriptor: Int32) {
    for number in 0..<10_000 {
      let temporary = "\(directory)/.partial-\(getpid())-\(number)"
      let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
      if descriptor >= 0 { return (temporary, descriptor) }
      // EEXIST: another thread is writing there, or a killed process with this number left it.
      guard errno == EEXIST || errno == EINTR else {
        throw CheckpointError(file: path, call: "open", code: errno, expected: "a folder \(directory) that can be written to")
      }
    }
    throw CheckpointError(file: path, found: "10000 unfinished files in \(directory)", expected: "room for one; remove .partial-*")
  }

  private static func flush(_ descriptor: Int32, _ path: String) throws {
    while fsync(descriptor) != 0 {
      if errno == EINTR { continue }
      throw CheckpointError(file: path, call: "fsync", code: errno, expected: "to flush the file to its device")
    }
  }

  private static func flushDirectory(_ directory: String, _ path: String) throws {
    let descriptor = open(directory, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      // A directory that may be written but not read cannot be flushed; the file is in place all the same.
      if errno == EACCES { return }
      throw CheckpointError(file: path, call: "open", code: errno, expected: "to flush the folder \(directory)")
    }
    defer { close(descriptor) }
    while fsync(descriptor) != 0 {
      if errno == EINTR { continue }
      if errno == EINVAL { return }  // some file systems cannot flush a directory
      throw CheckpointError(file: path, call: "fsync", code: errno, expected: "to flush the folder \(directory)")
    }
  }
}
