import JSON

/// Something that holds named tensors: a file, or a folder of files.
public protocol TensorSource: Sendable {
  /// The path that messages name.
  var file: String { get }

  /// All tensors, each name once.
  var entries: [TensorEntry] { get }

  /// The tensor of this name, compared by bytes; nil if there is none.
  ///
  /// - Complexity: O(length of the name).
  func entry(_ name: String) -> TensorEntry?

  /// Lends a tensor's elements: contiguous, row-major, little-endian, exactly `entry.byteCount` bytes.
  ///
  /// The bytes may stand at any address: read them with unaligned loads, and do not keep the pointer.
  /// - Throws: `CheckpointError` naming the file and the tensor if there is none, and what `body` throws.
  func withBytes<R>(of name: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R
}

extension TensorSource {
  /// The tensor of this name, or an error that names it.
  ///
  /// - Throws: `CheckpointError` if there is no such tensor.
  public func requiredEntry(_ name: String) throws -> TensorEntry {
    guard let entry = entry(name) else { throw CheckpointError.missingTensor(name, file: file, among: entries.count) }
    return entry
  }
}

extension TensorSource {
  /// The elements of an integer tensor, in row-major order, each widened exactly.
  ///
  /// Taken are I64, I32, I16, I8, U32, U16, U8 and BOOL; U64 is not, since half of its values do not fit.
  /// - Throws: `CheckpointError` naming tensor and element type for any other type, and naming the index of a BOOL that is neither
  ///   0 nor 1.
  /// - Complexity: O(elements).
  public func int64s(of name: String) throws -> [Int64] {
    let entry = try requiredEntry(name)
    return try withBytes(of: name) { bytes in
      switch entry.elementType {
      case .int64: integers(Int64.self, in: bytes)
      case .int32: integers(Int32.self, in: bytes)
      case .int16: integers(Int16.self, in: bytes)
      case .int8: integers(Int8.self, in: bytes)
      case .uint32: integers(UInt32.self, in: bytes)
      case .uint16: integers(UInt16.self, in: bytes)
      case .uint8: integers(UInt8.self, in: bytes)
      case .bool: try booleans(in: bytes, of: name)
      default:
        throw CheckpointError(
          file: file, place: .tensor(name), found: "dtype \(entry.elementType)",
          expected: "an integer dtype (I64, I32, I16, I8, U32, U16, U8 or BOOL)")
      }
    }
  }

  private func integers<T: FixedWidthInteger>(_: T.Type, in bytes: UnsafeRawBufferPointer) -> [Int64] {
    stride(from: 0, to: bytes.count, by: MemoryLayout<T>.size).map { offset in
      Int64(T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self)))
    }
  }

  private func booleans(in bytes: UnsafeRawBufferPointer, of name: String) throws -> [Int64] {
    if let index = bytes.firstIndex(where: { $0 > 1 }) {
      throw CheckpointError(file: file, place: .tensor(name), found: "\(bytes[index]) at index \(index)", expected: "BOOL elements 0 or 1")
    }
    return bytes.map(Int64.init)
  }
}

/// Named tensors with a payload each (where their bytes are), found by the bytes of their names.
struct TensorTable<Payload: Sendable>: Sendable {
  private(set) var entries: [TensorEntry] = []
  private(set) var payloads: [Payload] = []
  private var indices: [ByteKey: Int] = [:]

  /// Adds a tensor; returns the payload already there if the name is taken, and then adds nothing.
  mutating func insert(_ entry: TensorEntry, _ payload: Payload) -> Payload? {
    let key = ByteKey(entry.name)
    if let index = indices[key] { return payloads[index] }
    indices[key] = entries.count
    entries.append(entry)
    payloads.append(payload)
    return nil
  }

  subscript(name: String) -> (entry: TensorEntry, payload: Payload)? {
    indices[ByteKey(name)].map { (entries[$0], payloads[$0]) }
  }

  /// The tensor of this name, or an error that names it and the file.
  func find(_ name: String, in file: String) throws -> (entry: TensorEntry, payload: Payload) {
    guard let found = self[name] else { throw CheckpointError.missingTensor(name, file: file, among: entries.count) }
    return found
  }
}

extension CheckpointError {
  /// A tensor that a source does not have.
  static func missingTensor(_ name: String, file: String, among count: Int) -> CheckpointError {
    CheckpointError(file: file, place: .tensor(name), found: "no tensor of this name among \(count)", expected: "it to be there")
  }
}
