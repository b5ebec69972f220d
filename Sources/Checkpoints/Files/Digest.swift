import JSON
import Platform

/// A number that tells contents apart, for damage by accident; who wants to can make two of the same.
///
///     h ← (h ⊕ w) · p,  h ← h ⊕ (h ≫ 32)      for each eight bytes w, little-endian; zeros fill up the last ones
///
/// Either line can be undone, so contents of one length that differ in a single w never have the same h.
package struct Digest: Equatable {
  private var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  /// Bytes that were added.
  package private(set) var count = 0

  package init() {}

  /// Adds bytes. All but the last ones come in multiples of eight.
  ///
  /// - Complexity: O(bytes).
  package mutating func add(_ bytes: UnsafeRawBufferPointer) {
    let whole = bytes.count / 8 * 8
    for offset in stride(from: 0, to: whole, by: 8) {
      mix(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
    }
    if whole < bytes.count {
      mix(bytes[whole...].reversed().reduce(0) { $0 << 8 | UInt64($1) })
    }
    count += bytes.count
  }

  private mutating func mix(_ word: UInt64) {
    hash = (hash ^ word) &* 0x9e37_79b9_7f4a_7c15
    hash ^= hash >> 32
  }

  /// The number, with that of the bytes in it, in hexadecimal.
  package var text: String {
    var last = self
    last.mix(UInt64(count))
    return String(last.hash, radix: 16)
  }

  /// The digest of a whole file. It is read, not mapped: a damaged disk is then an error and not the end of the process.
  ///
  /// - Throws: `CheckpointError` if it is missing, no regular file, or cannot be read.
  package init(ofFile path: String) throws {
    try MappedFile.requireRegularFile(path)
    let file = try systemCall("open", path, "a file that can be read") {
      try FileDescriptor.open(path, .readOnly, options: [.closeOnExec, .nonBlocking])
    }
    defer { try? file.close() }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
    defer { buffer.deallocate() }
    var filled = 0
    while true {
      let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
      let count = try systemCall("read", path, "to read all of the file") { try file.read(into: room) }
      guard count > 0 else { break }
      filled += count
      if filled == buffer.count {
        add(UnsafeRawBufferPointer(buffer))
        filled = 0
      }
    }
    add(UnsafeRawBufferPointer(rebasing: buffer[..<filled]))
  }

  /// The digest of a sample of bytes: all of few, else sixteen pieces of 4 KiB, evenly spread, the first and the last bytes among them.
  package init(sampleOf bytes: UnsafeRawBufferPointer) {
    let (pieces, size) = (16, 4096)
    guard bytes.count > 4 * pieces * size else {
      add(bytes)
      return
    }
    for piece in 0..<pieces {
      let start = (bytes.count - size) / (pieces - 1) * piece
      let first = piece == pieces - 1 ? bytes.count - size : start
      add(UnsafeRawBufferPointer(rebasing: bytes[first..<first + size]))
    }
  }
}
