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
