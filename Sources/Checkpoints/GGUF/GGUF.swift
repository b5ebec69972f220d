import JSON

/// A GGUF file of version 2 or 3, read by ggml's rules and a few stricter ones.
///
///     "GGUF" · u32 version · u64 tensors · u64 keys
///     keys × (string key · u32 type · value)                                  → metadata
///     tensors × (string name · u32 axes · axes × u64 size · u32 type · u64 offset)
///     padding to the alignment · data, each tensor padded to the alignment
///
/// A string is a u64 length and its bytes; everything is little-endian. Sizes stand innermost first in the file and outermost first
/// here, so that Hugging Face's (out,in) is the same bytes. Sorted as they are listed, the tensors must fill the data without hole or
/// overlap up to the end of the file, whose last padding may be missing. Arrays of arrays, empty or repeated keys and names, sizes
/// of 0, names of 64 bytes or more are refused, as in ggml; stricter than it: keys must be printable ASCII, a bool must be 0 or 1,
/// and nothing may follow the last tensor.
public struct GGUF: TensorSource {
  /// The longest string and the longest array that are read, as in ggml.
  public static let maximumLength = 1 << 30
  /// The most axes of a tensor.
  public static let maximumAxes = 4
  /// The longest name of a tensor, in bytes.
  public static let maximumNameLength = 63
  /// The longest key of the metadata, in bytes.
  public static let maximumKeyLength = 65_535

  /// The path of the file.
  public var file: String { mapped.path }
  /// The tensors, in the order of their bytes.
  public var entries: [TensorEntry] { table.entries }
  /// What the file says beside its tensors.
  public let metadata: GGUFMetadata
  /// What offsets are multiples of: `general.alignment`, else 32.
  public let alignment: Int

  private let mapped: MappedFile
  private let table: TensorTable<Range<Int>>

  /// Opens a file and checks its metadata and the place of every tensor.
  ///
  /// - Throws: `CheckpointError` naming the file, the byte, key or tensor, and the offending numbers.
  /// - Complexity: O(header); the data is not touched.
  public init(path: String) throws {
    try self.init(MappedFile(path: path))
  }

  /// Reads a file that is mapped already; see `init(path:)`.
  ///
  /// - Throws: `CheckpointError` naming the file, the byte, key or tensor, and the offending numbers.
  public init(_ mapped: MappedFile) throws {
    var cursor = GGUFCursor(mapped)
    try Self.readMagic(&cursor)
    let tensorCount = try Self.count("tensors", each: 25, &cursor)
    let keyCount = try Self.count("keys", each: 14, &cursor)
    metadata = try GGUFMetadata(keyCount, &cursor)
    alignment = try Self.alignment(metadata)
    let infos = try (0..<tensorCount).map { _ in try GGUFTensorInfo(&cursor) }
    table = try Self.place(infos, after: cursor.offset, alignment: alignment, in: mapped)
    self.mapped = mapped
  }

  /// The tensor of this name, compared by bytes; nil if there is none.
  public func entry(_ name: String) -> TensorEntry? { table[name]?.entry }

  /// Lends a tensor's bytes, straight from the mapped file.
  ///
  /// - Throws: `CheckpointError` if there is no such tensor, and what `body` throws.
  public func withBytes<R>(of name: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    try mapped.withBytesOnce(in: table.find(name, in: file).payload, body)
  }

  private static func readMagic(_ cursor: inout GGUFCursor) throws {
    let magic = try cursor.integer(UInt32.self, "the magic \"GGUF\"")
    guard magic == 0x4655_4747 else {
      let bytes = withUnsafeBytes(of: magic.littleEndian) { Array($0) }
      throw cursor.error(at: 0, found: "the magic \(quoted(String(decoding: bytes, as: UTF8.self)))", "\"GGUF\"; is this a GGUF file?")
    }
    let version = try cursor.integer(UInt32.self, "the version")
    guard version & 0xFFFF != 0 else {
      throw cursor.error(at: 4, found: "version \(version)", "2 or 3; \(version == 0 ? "0 never was one" : "the file is big-endian")")
    }
    guard version == 2 || version == 3 else {
      throw cursor.error(at: 4, found: "version \(version)", "2 or 3; \(version == 1 ? "1 has other widths" : "newer ones are unknown")")
    }
  }

  /// A number of things of which each takes at least `minimum` bytes.
  private static func count(_ things: String, each minimum: Int, _ cursor: inout GGUFCursor) throws -> Int {
    let start = cursor.offset
    let count = try cursor.integer(UInt64.self, "the number of \(things)")
    guard count <= UInt64(cursor.remaining / minimum) else {
      throw cursor.error(
        at: start, found: "\(count) \(things) in \(cursor.remaining) more bytes",
        "at most \(cursor.remaining / minimum), each of at least \(minimum) bytes; the file may be cut off")
    }
    return Int(count)
  }

  private static func alignment(_ metadata: GGUFMetadata) throws -> Int {
    let key = "general.alignment"
    guard let value = try metadata.value(key) else { return 32 }
    guard metadata.type(key) == .uint32, case .unsigned(let alignment) = value else {
      throw metadata.error(key, value.summary + " (\(metadata.type(key)?.description ?? ""))", "a UINT32")
    }
    guard alignment >= 8, alignment & (alignment - 1) == 0 else {
      throw metadata.error(key, "\(alignment)", "a power of two that is at least 8")
    }
    return Int(alignment)
  }

  /// Gives every tensor its range, if each begins where the padded bytes of the one before end.
  private static func place(
    _ infos: [GGUFTensorInfo], after headerEnd: Int, alignment: Int, in mapped: MappedFile
  ) throws -> TensorTable<Range<Int>> {
    // All sums stay below 2^62: the header ends in the file and the alignment is below 2^32.
    func padded(_ size: Int) -> Int { (size + alignment - 1) / alignment * alignment }
    let dataStart = padded(headerEnd)
    var table = TensorTable<Range<Int>>()
    var (start, end) = (dataStart, headerEnd)  // of the next tensor; of the last
    for info in infos {
      let offset = UInt64(start - dataStart)
      guard info.offset == offset else {
        throw info.error("offset \(info.offset)", "\(offset), where the padded bytes of the tensor before end", in: mapped)
      }
      guard info.entry.byteCount <= mapped.size - start else {
        throw info.error(
          "\(info.entry.byteCount) bytes for \(info.entry.elementType) \(info.entry.shape) at byte \(start)",
          "at most \(max(0, mapped.size - start)) up to the end of the file; the file may be cut off", in: mapped)
      }
      end = start + info.entry.byteCount
      if table.insert(info.entry, start..<end) != nil { throw info.error("the name twice", "each name once", in: mapped) }
      start = padded(end)
    }
    guard mapped.size <= padded(end) else {
      throw CheckpointError(
        file: mapped.path, found: "\(mapped.size) bytes",
        expected: "at most \(padded(end)): \(dataStart) before the data and \(padded(end) - dataStart) of data")
    }
    return table
  }
}
