import JSON

/// A safetensors file, read by the rules of its reference implementation and a few stricter ones.
///
///     u64 N · N bytes of JSON, beginning with "{" · data
///     { "__metadata__": {string: string}, name: {"dtype": …, "shape": […], "data_offsets": [begin, end]}, … }
///
/// Offsets count from the beginning of the data; elements are little-endian and row-major. Sorted by offset, the tensors must fill the
/// data without hole or overlap up to the last byte of the file, so that the file can be nothing else besides. Stricter than the
/// reference: duplicate keys, unknown keys in an entry, more than 64 axes and more than 1 000 000 tensors are refused.
public struct Safetensors: TensorSource {
  /// The longest header that is read, as in the reference implementation.
  public static let maximumHeaderLength = 100_000_000
  /// The most tensors that are read.
  public static let maximumTensorCount = 1_000_000

  /// The one key of a header that is no tensor.
  static let metadataKey = "__metadata__"

  /// The path of the file.
  public var file: String { mapped.path }
  /// The tensors, in the order of their bytes.
  public var entries: [TensorEntry] { table.entries }
  /// The members of `__metadata__`, all of them strings; empty where the header has none, or null.
  public let metadata: JSON.Object

  private let mapped: MappedFile
  private let table: TensorTable<Range<Int>>

  /// Opens a file and checks all of its header.
  ///
  /// - Throws: `CheckpointError` naming the file, the tensor or key, and the offending numbers.
  /// - Complexity: O(header), n log n in its entries; the data is not touched.
  public init(path: String) throws {
    try self.init(MappedFile(path: path))
  }

  /// Reads a file that is mapped already; see `init(path:)`.
  ///
  /// - Throws: `CheckpointError` naming the file, the tensor or key, and the offending numbers.
  public init(_ mapped: MappedFile) throws {
    let dataStart = try Self.dataStart(in: mapped)
    let header = try Self.header(in: mapped, dataStart: dataStart)
    let metadata = try Self.metadata(in: header, of: mapped.path)
    let placements = try header.members.filter { $0.key != Self.metadataKey }.map { try SafetensorsPlacement($0, in: mapped.path) }

    var table = TensorTable<Range<Int>>()
    var end = 0
    // Zero-size tensors sort before the tensor that begins where they stand.
    for placement in placements.sorted(by: { ($0.begin, $0.end) < ($1.begin, $1.end) }) {
      let entry = try placement.entry(after: end, in: mapped.path)
      end = placement.end
      // A tensor far outside the file must not be given a range that cannot be formed.
      let (fileEnd, overflow) = dataStart.addingReportingOverflow(end)
      guard !overflow else {
        throw CheckpointError(
          file: mapped.path, place: .tensor(entry.name), found: "data_offsets [\(placement.begin), \(end)]",
          expected: "offsets within the \(mapped.size - dataStart) bytes of data")
      }
      // The header had each key once, so no name is taken.
      _ = table.insert(entry, (fileEnd - entry.byteCount)..<fileEnd)
    }
    guard dataStart + end == mapped.size else {
      throw CheckpointError(
        file: mapped.path, found: "\(mapped.size) bytes",
        expected: "\(dataStart + end) bytes: \(dataStart) of header and \(end) of data"
          + (dataStart + end > mapped.size ? "; the file is cut off" : ""))
    }
    self.mapped = mapped
    self.metadata = metadata
    self.table = table
  }

  /// The tensor of this name, compared by bytes; nil if there is none.
  public func entry(_ name: String) -> TensorEntry? { table[name]?.entry }

  /// Lends a tensor's bytes, straight from the mapped file.
  ///
  /// - Throws: `CheckpointError` if there is no such tensor, and what `body` throws.
  public func withBytes<R>(of name: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    try mapped.withBytesOnce(in: table.find(name, in: file).payload, body)
  }

  /// 8 + N, checked against the cap and the file.
  private static func dataStart(in mapped: MappedFile) throws -> Int {
    guard mapped.size >= 8 else {
      throw CheckpointError(
        file: mapped.path, found: "\(mapped.size) bytes", expected: "at least the 8 bytes of a safetensors header length")
    }
    let length = try mapped.integer(UInt64.self, at: 0)
    guard length <= UInt64(maximumHeaderLength) else {
      throw CheckpointError(
        file: mapped.path, place: .byte(0), found: "a header length of \(length)",
        expected: "at most \(maximumHeaderLength); is this a safetensors file?")
    }
    let dataStart = 8 + Int(length)
    guard dataStart <= mapped.size else {
      throw CheckpointError(
        file: mapped.path, place: .byte(0), found: "a header length of \(length) in a file of \(mapped.size) bytes",
        expected: "at most \(mapped.size - 8); the file is cut off")
    }
    return dataStart
  }

  private static func header(in mapped: MappedFile, dataStart: Int) throws -> JSON.Object {
    let bytes = try mapped.bytes(in: 8..<dataStart)
    guard bytes.first == UInt8(ascii: "{") else {
      throw CheckpointError(
        file: mapped.path, place: .byte(8),
        found: bytes.first.map { "byte 0x\(String($0, radix: 16, uppercase: true))" } ?? "an empty header",
        expected: "a header that begins with \"{\"")
    }
    var limits = JSON.Limits()
    limits.members = maximumTensorCount + 1  // and the metadata
    limits.values = 16 * maximumTensorCount  // an entry of rank 9 has 16
    guard case .object(let header) = try JSON(parsing: bytes, at: 8, of: mapped.path, limits: limits) else {
      throw CheckpointError(file: mapped.path, found: "a header that is no object", expected: "an object")
    }
    let count = header.count - (header[Self.metadataKey] == nil ? 0 : 1)
    guard count <= maximumTensorCount else {
      throw CheckpointError(file: mapped.path, found: "\(count) tensors", expected: "at most \(maximumTensorCount)")
    }
    return header
  }

  private static func metadata(in header: JSON.Object, of file: String) throws -> JSON.Object {
    guard let value = header[Self.metadataKey], value != .null else { return JSON.Object() }
    guard case .object(let metadata) = value else {
      throw CheckpointError(file: file, place: .key(Self.metadataKey), found: value.summary, expected: "an object of strings")
    }
    for member in metadata.members where member.value.stringValue == nil {
      throw CheckpointError(
        file: file, place: .key("\(Self.metadataKey).\(member.key)"), found: member.value.summary, expected: "a string")
    }
    return metadata
  }
}

/// An entry of the header, its parts of the right types but not yet held against each other.
struct SafetensorsPlacement {
  let name: String
  let elementType: ElementType
  let shape: [Int]
  let begin: Int
  let end: Int

  init(_ member: JSON.Object.Member, in file: String) throws {
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: file, place: .tensor(member.key), found: found, expected: expected)
    }
    guard case .object(let fields) = member.value else {
      throw failure(member.value.summary, "an object with dtype, shape and data_offsets")
    }
    let known = ["dtype", "shape", "data_offsets"]
    for key in fields.keys where !known.contains(key) {
      throw failure("the key \(quoted(key))", "only dtype, shape and data_offsets")
    }
    func field(_ key: String) throws -> JSON {
      guard let value = fields[key] else { throw failure("no \(key)", "dtype, shape and data_offsets") }
      return value
    }
    func sizes(_ key: String) throws -> [Int] {
      let value = try field(key)
      guard let elements = value.arrayValue else { throw failure("\(key) \(value.summary)", "an array of integers") }
      return try elements.map { element in
        guard let size = element.intValue, size >= 0 else {
          throw failure("\(element.summary) in \(key)", "an integer from 0 to \(Int.max)")
        }
        return size
      }
    }
    let dtype = try field("dtype")
    guard let elementType = dtype.stringValue.flatMap(ElementType.init(rawValue:)), !elementType.isQuantized else {
      throw failure("dtype \(dtype.summary)", "one of " + ElementType.safetensors.map(\.rawValue).joined(separator: " "))
    }
    let offsets = try sizes("data_offsets")
    guard offsets.count == 2 else { throw failure("\(offsets.count) data_offsets", "two, [begin, end]") }
    self.name = member.key
    self.elementType = elementType
    self.shape = try sizes("shape")
    self.begin = offsets[0]
    self.end = offsets[1]
  }

  /// The entry, if it begins at the end of its predecessor and is as long as its shape says.
  func entry(after previousEnd: Int, in file: String) throws -> TensorEntry {
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: file, place: .tensor(name), found: found, expected: expected)
    }
    let offsets = "data_offsets [\(begin), \(end)]"
    guard begin <= previousEnd else {
      throw failure("\(offsets) after a hole of \(begin - previousEnd) bytes", "a tensor that begins at \(previousEnd)")
    }
    guard begin == previousEnd else {
      throw failure("\(offsets), an overlap of \(previousEnd - begin) bytes", "a tensor that begins at \(previousEnd)")
    }
    guard end >= begin else { throw failure("\(offsets), which end before they begin", "begin ≤ end") }
    let entry: TensorEntry
    do {
      entry = try TensorEntry(name: name, elementType: elementType, shape: shape)
    } catch {
      throw failure(error.description, "a shape of whole bytes that fits into the file")
    }
    guard end - begin == entry.byteCount else {
      throw failure("\(offsets), that is \(end - begin) bytes", "\(entry.byteCount) bytes for \(elementType) of shape \(shape)")
    }
    return entry
  }
}
