import Checkpoints
import Tensors

extension Trace {
  /// Writes the tensors to a safetensors file, in the precision that they have; `order` in its metadata lists the names in the order of
  /// the run.
  ///
  /// - Parameter metadata: what else the file should say of itself.
  /// - Throws: `CheckpointError` if the file cannot be written; what was there is untouched.
  public func write(to path: String, metadata: [(String, String)] = []) throws {
    let type: ElementType = MemoryLayout<Scalar>.size == 8 ? .float64 : .float32
    let entries = try tensors.map { try TensorEntry(name: $0.name, elementType: type, shape: $0.shape) }
    let values = Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0.values) })
    let order = JSON.array(tensors.map { JSON($0.name) }).serialized()
    try SafetensorsWriter.write(
      to: path, entries: entries, metadata: [("format", "mixlora trace")] + metadata + [("order", order)]
    ) { entry, emit in
      try values[entry.name]?.withUnsafeBytes { try emit($0) }
    }
  }
}

extension Trace where Scalar == Double {
  /// Reads the tensors of a safetensors file, each number as it is, in the order of the file.
  ///
  /// - Throws: `CheckpointError` for a file that is none, and for a tensor of whole numbers.
  public init(contentsOf path: String) throws {
    let file = try Safetensors(path: path)
    for entry in file.entries {
      guard let format = WeightFormat(entry.elementType) else {
        throw CheckpointError(
          file: path, place: .tensor(entry.name), found: "dtype \(entry.elementType)", expected: "F64, F32, F16 or BF16")
      }
      let values = try file.withBytes(of: entry.name) { bytes in
        [Double](unsafeUninitializedCapacity: entry.elementCount) { values, count in
          if let from = bytes.baseAddress, let to = values.baseAddress { format.decode(from, entry.elementCount, to: to) }
          count = entry.elementCount
        }
      }
      append(entry.name, entry.shape, values)
    }
  }
}
