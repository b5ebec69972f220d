import JSON
import Platform

/// A regular file, mapped for reading; unmapped when the last reference goes.
///
/// All reads are checked against the size and return errors, so that no number out of a hostile file can lead outside. What cannot be
/// caught here is a file that somebody else shortens while it is mapped: the system then stops the process (SIGBUS).
public final class MappedFile: Sendable {
  /// The path as it was given, for messages.
  public let path: String
  /// The size in bytes when it was opened.
  public let size: Int
  /// The first byte; nil for an empty file. Never written through and valid until `deinit`, hence safe to share.
  private nonisolated(unsafe) let base: UnsafeRawPointer?

  /// Maps a file.
  ///
  /// - Throws: `CheckpointError` if it is missing, not a regular file (directory, FIFO, device, socket), or the system fails.
  public init(path: String) throws {
    // A device may react to being opened and a FIFO may wait, so the kind is looked at first, and again once it is open.
    try Self.requireRegularFile(path)
    let file = try systemCall("open", path, "a file that can be read") {
      try FileDescriptor.open(path, .readOnly, options: [.closeOnExec, .nonBlocking])
    }
    defer { try? file.close() }
    let status = try systemCall("fstat", path, "the size of the file") { try Stat(file) }
    try Self.requireRegular(status, path)
    guard let size = Int(exactly: status.size), size >= 0 else {
      throw CheckpointError(file: path, found: "a size of \(status.size) bytes", expected: "a size within the address space")
    }
    self.path = path
    self.size = size
    // An empty range cannot be mapped.
    base = size == 0 ? nil : try systemCall("mmap", path, "\(size) bytes of address space") { try POSIX.map(file, count: size) }
  }

  deinit {
    if let base { POSIX.unmap(base, count: size) }
  }

  /// Lends the bytes of a range; do not keep the pointer.
  ///
  /// - Throws: `CheckpointError` if the range leaves the file, and what `body` throws.
  public func withBytes<R>(in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    guard range.lowerBound >= 0, range.upperBound <= size else {
      throw CheckpointError(
        file: path, found: "\(size) bytes", expected: "bytes \(range.lowerBound) to \(range.upperBound); the file may be cut off")
    }
    return try body(UnsafeRawBufferPointer(start: base.map { $0 + range.lowerBound }, count: range.count))
  }

  /// Lends the bytes of a range once: the memory of its whole pages is given back afterwards, so that reading a large file tensor by
  /// tensor never holds all of it. Reading them again is right, and slower.
  ///
  /// - Throws: as `withBytes(in:)`.
  public func withBytesOnce<R>(in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    defer { release(range) }
    return try withBytes(in: range, body)
  }

  private func release(_ range: Range<Int>) {
    let page = POSIX.pageSize
    guard let base, page > 0, range.lowerBound >= 0, range.upperBound <= size else { return }
    let (start, end) = ((range.lowerBound + page - 1) / page * page, range.upperBound / page * page)
    if start < end { POSIX.release(base + start, count: end - start) }
  }

  /// A copy of the bytes of a range.
  ///
  /// - Throws: `CheckpointError` if the range leaves the file.
  public func bytes(in range: Range<Int>) throws -> [UInt8] {
    try withBytes(in: range) { Array($0) }
  }

  /// The little-endian integer at an offset, which need not be aligned.
  ///
  /// - Throws: `CheckpointError` if any of its bytes is outside the file.
  public func integer<T: FixedWidthInteger>(_ type: T.Type = T.self, at offset: Int) throws -> T {
    // An offset near Int.max has no end, so it is refused before the end is formed.
    guard offset >= 0, offset <= size else {
      throw CheckpointError(file: path, found: "\(size) bytes", expected: "\(MemoryLayout<T>.size) bytes at byte \(offset)")
    }
    return try withBytes(in: offset..<(offset + MemoryLayout<T>.size)) { T(littleEndian: $0.loadUnaligned(as: T.self)) }
  }
}

// MARK: What stands at a path

extension MappedFile {
  /// Whether anything stands at a path, links followed.
  ///
  /// - Throws: `CheckpointError` where the system cannot tell.
  static func exists(_ path: String) throws -> Bool {
    do {
      _ = try Stat(path)
      return true
    } catch {
      guard error == .noSuchFileOrDirectory || error == .notDirectory else {
        throw CheckpointError(file: path, call: "stat", code: error, expected: "to see whether it is there")
      }
      return false
    }
  }

  /// Whether a path leads to a regular file, links followed; false where nothing is there or the system cannot tell.
  public static func isRegularFile(_ path: String) -> Bool { type(path) == .regular }

  /// Whether a path leads to a folder, links followed; false where nothing is there or the system cannot tell.
  public static func isFolder(_ path: String) -> Bool { type(path) == .directory }

  private static func type(_ path: String) -> FileType? { path.utf8.contains(0) ? nil : try? Stat(path).type }

  /// Checks that a path leads to a regular file.
  ///
  /// - Throws: `CheckpointError` naming what is there instead.
  static func requireRegularFile(_ path: String) throws {
    try requirePath(path)
    try requireRegular(systemCall("stat", path, "a file") { try Stat(path) }, path)
  }

  /// Checks that the system will see the path that the caller sees: it would stop at a NUL.
  static func requirePath(_ path: String) throws {
    guard !path.isEmpty, !path.utf8.contains(0) else {
      throw CheckpointError(file: quoted(path), found: path.isEmpty ? "an empty path" : "a NUL in the path", expected: "a path")
    }
  }

  static func requireRegular(_ status: Stat, _ path: String) throws {
    let kind =
      switch status.type {
      case .regular: ""
      case .directory: "a directory"
      case .fifo: "a FIFO"
      case .characterSpecial, .blockSpecial: "a device"
      case .socket: "a socket"
      default: "no regular file"
      }
    guard kind.isEmpty else { throw CheckpointError(file: path, found: kind, expected: "a regular file") }
  }
}
