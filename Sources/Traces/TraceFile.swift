import Checkpoints
import Decoders
import Tensors

/// A trace on disk: a safetensors file, written as a run forms its tensors and read a tensor at a time.
///
/// `order` in the file's metadata lists the names in the order of the run, as a JSON array.
public struct TraceFile {
  /// The file.
  public let source: Safetensors
  /// The names of its tensors in the order of the run; where the file does not say, in that of the file.
  public let names: [String]

  /// Opens a trace, or any other safetensors file; no number is read.
  ///
  /// - Throws: `CheckpointError` for a file that is none.
  public init(path: String) throws {
    let file = try Safetensors(path: path)
    let inFile = file.entries.map(\.name)
    let listed = try file.metadata[Self.orderKey]?.stringValue.flatMap { text in
      try JSON(parsing: Array(text.utf8), file: path).arrayValue?.compactMap(\.stringValue)
    }
    (source, names) = (file, listed.map { Set($0) == Set(inFile) && $0.count == inFile.count ? $0 : inFile } ?? inFile)
  }

  /// The sizes of a tensor; nil if there is none.
  public func shape(of name: String) -> [Int]? { source.entry(name)?.shape }

  /// The numbers of one tensor, each as it is.
  ///
  /// - Throws: `CheckpointError` if there is no such tensor, and for one of whole numbers.
  public func values(of name: String) throws -> [Double] {
    try values(of: name, in: 0..<source.requiredEntry(name).elementCount)
  }

  /// Some numbers of one tensor, row-major.
  ///
  /// - Precondition: the tensor has these elements.
  /// - Throws: `CheckpointError` if there is no such tensor, and for one of whole numbers.
  public func values(of name: String, in range: Range<Int>) throws -> [Double] {
    let entry = try source.requiredEntry(name)
    guard let format = WeightFormat(entry.elementType) else {
      throw CheckpointError(
        file: source.file, place: .tensor(entry.name), found: "dtype \(entry.elementType)", expected: "F64, F32, F16 or BF16")
    }
    return try source.withBytes(of: entry.name) { bytes in
      let size = entry.elementCount == 0 ? 0 : entry.byteCount / entry.elementCount
      return [Double](unsafeUninitializedCapacity: range.count) { values, count in
        if let from = bytes.baseAddress, let to = values.baseAddress {
          format.decode(from + range.lowerBound * size, range.count, to: to)
        }
        count = range.count
      }
    }
  }

  private static let orderKey = "order"

  /// Runs the batch through the model and writes what the contract names, in the precision that is computed in.
  ///
  /// - Parameters:
  ///   - metadata: what else the file should say of itself.
  ///   - patches: numbers that are put in as the run passes them.
  ///   - check: throws where there is to be no file after all.
  /// - Throws: `CheckpointError` if the file cannot be written, and what the device reports; what was there is untouched.
  public static func record<B: Backend>(
    _ decoder: Decoder<B>, _ batch: TraceBatch, _ request: TraceRequest, to path: String, metadata: [(String, String)] = [],
    patches: [Patch] = [], on backend: B,
    moments: TraceRecording<B>.Moments? = nil, update: (_ step: Int) -> Void, check: (TraceSummary) throws -> Void = { _ in }
  ) throws -> TraceSummary {
    let type: ElementType = MemoryLayout<B.Scalar>.size == 8 ? .float64 : .float32
    let names = try Provenances(decoder, hasBaseRows: batch.adapters.contains(nil)).all.map(\.name)
    var order = names
    return try SafetensorsStream.write(
      to: path, names: names,
      metadata: {
        [("format", "mixlora trace")] + metadata + [(orderKey, JSON.array(order.map { JSON($0) }).serialized())]
      }
    ) { stream in
      let recording = TraceRecording(decoder, batch, request, on: backend)
      let hooks = patches.isEmpty ? [] : [recording.hook(patching: patches)]
      let summary = try recording.run(hooks: hooks, moments: moments, update: update) { tensor in
        let entry = try TensorEntry(name: tensor.name, elementType: type, shape: tensor.shape)
        try tensor.values.withUnsafeBytes { try stream.append(entry, $0) }
      }
      try check(summary)
      order = summary.order
      return summary
    }
  }
}

extension Trace where Scalar == Double {
  /// Reads the tensors of a safetensors file, each number as it is, in the order of the file.
  ///
  /// - Throws: `CheckpointError` for a file that is none, and for a tensor of whole numbers.
  public init(contentsOf path: String) throws {
    let file = try TraceFile(path: path)
    tensors = try file.source.entries.map { NamedTensor(name: $0.name, shape: $0.shape, values: try file.values(of: $0.name)) }
  }
}
