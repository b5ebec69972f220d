import JSON
import Tensors

/// A safetensors file that is written tensor by tensor, before the shapes of all of them are known.
///
/// The header stands in front of the data and lists every tensor, so room is left for it, from the names that there may be; it is
/// written at the end, with spaces for what it did not need.
public final class SafetensorsStream {
  /// The tensors written so far, in the order of the file.
  public private(set) var entries: [TensorEntry] = []
  private let output: AtomicFile.Output
  private let path: String
  private let most: Int

  private init(_ output: AtomicFile.Output, _ path: String, most: Int) {
    (self.output, self.path, self.most) = (output, path, most)
  }

  /// The most bytes that one entry takes beside its name: a type, offsets and up to eight sizes of twenty digits.
  private static let entryRoom = 320

  /// Writes a file: whole or not at all, as ``SafetensorsWriter`` does.
  ///
  /// - Parameters:
  ///   - path: the file to write or replace.
  ///   - names: the tensors that may come; not all of them have to.
  ///   - metadata: the members of `__metadata__`, asked for before the first tensor and again behind the last, when they must not have
  ///     become longer.
  ///   - body: appends the tensors.
  /// - Throws: `CheckpointError` if a tensor comes twice, if one comes that was not named, if the header would be beyond the format's cap,
  ///   or if the system fails; and what `body` throws.
  public static func write<Result>(
    to path: String, names: [String], metadata: () -> [(key: String, value: String)],
    _ body: (SafetensorsStream) throws -> Result
  ) throws -> Result {
    let empty = try SafetensorsWriter.headerText([], metadata(), path)
    let room = names.reduce(empty.count) { $0 + JSON($1).serialized().utf8.count + entryRoom }
    let length = (room + 7) / 8 * 8
    var result: Result?
    try AtomicFile.write(to: path) { output in
      try output.write(SafetensorsWriter.prefixed([], length: length, tensors: names.count, path))
      let stream = SafetensorsStream(output, path, most: names.count)
      result = try body(stream)
      let text = try SafetensorsWriter.headerText(stream.entries, metadata(), path)
      guard text.count <= length else {
        throw stream.surplus("a header of \(text.count) bytes", "at most the \(length) that were left for it")
      }
      try output.writeAtBeginning(SafetensorsWriter.prefixed(text, length: length, tensors: stream.entries.count, path))
    }
    guard let result else { trap("\(path): nothing was written and nothing thrown") }
    return result
  }

  /// Appends a tensor: its little-endian row-major bytes.
  ///
  /// - Precondition: `bytes` are as many as the entry says.
  /// - Throws: `CheckpointError` if there are more tensors than were named, or if the system fails.
  public func append(_ entry: TensorEntry, _ bytes: UnsafeRawBufferPointer) throws {
    guard bytes.count == entry.byteCount else { trap("\(path): \(bytes.count) bytes for \(entry)") }
    guard entries.count < most else { throw surplus("the tensor \(entry)", "at most the \(most) that were named") }
    entries.append(entry)
    try output.write(bytes)
  }

  private func surplus(_ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: path, found: found, expected: expected)
  }
}
