import Checkpoints
import Conformance
import Tensors

/// The tensors of a candidate by the names of a trace, read one at a time.
///
/// A safetensors file, a folder of them or of `.npy` files, an `.npz` archive, or a PyTorch file of a flat dictionary (data only).
public struct Candidate: Sendable {
  /// A tensor where it lies.
  public struct Tensor: Sendable {
    let source: any TensorSource
    /// Its name in the file, its element type and sizes.
    public let entry: TensorEntry

    /// The precision that it is stored in; nil for whole numbers.
    public var precision: Precision? {
      switch entry.elementType {
      case .float64: .float64
      case .float32: .float32
      case .float16: .float16
      case .bfloat16: .bfloat16
      default: nil
      }
    }

    /// Its numbers in row-major order.
    ///
    /// - Throws: `CheckpointError` for an element type that is no number of this kind.
    public func values() throws -> [Double] {
      guard precision != nil else { return try source.int64s(of: entry.name).map { Double($0) } }
      return try source.doubles(of: entry.name)
    }
  }

  /// The file or folder.
  public let path: String
  /// By the trace's name.
  public private(set) var tensors: [String: Tensor]
  /// Names of the file that no name of a trace answers to.
  public private(set) var unknown: [String]
  /// Metadata of a safetensors file.
  public let metadata: [String: String]

  /// Opens a candidate; `names` says what its names mean.
  ///
  /// - Throws: `CheckpointError` for a file that is none of these, and for two tensors of one meaning.
  public init(_ path: String, names: CandidateNames) throws {
    self.path = path
    let sources = try Self.sources(path)
    metadata = sources.reduce(into: [:]) { all, source in
      for member in (source as? Safetensors)?.metadata.members ?? [] { all[member.key] = member.value.stringValue }
    }
    (tensors, unknown) = ([:], [])
    for source in sources {
      for entry in source.entries {
        guard let name = names.traceName(entry.name) else {
          unknown.append(entry.name)
          continue
        }
        if let other = tensors[name] {
          throw CheckpointError(
            file: source.file, place: .tensor(entry.name), found: "the name \(name), which \(other.entry.name) has too",
            expected: "each tensor of a trace once; --map tells two apart")
        }
        tensors[name] = Tensor(source: source, entry: entry)
      }
    }
  }

  /// Forgets the tensors that a condition rejects.
  public mutating func filter(_ isIncluded: (String) -> Bool) { tensors = tensors.filter { isIncluded($0.key) } }

  /// The lowest precision that any tensor has.
  public var precision: Precision {
    tensors.values.lazy.compactMap(\.precision).max { $0.unitRoundoff < $1.unitRoundoff } ?? .float32
  }

  private static func sources(_ path: String) throws -> [any TensorSource] {
    if MappedFile.isFolder(path) {
      let names = Folder.names(in: path)
      var all: [any TensorSource] = try names.filter { $0.hasSuffix(".safetensors") }.map { try Safetensors(path: "\(path)/\($0)") }
      if names.contains(where: { $0.hasSuffix(".npy") }) { all.append(try NumPyArrays(path: path)) }
      guard !all.isEmpty else {
        throw CheckpointError(file: path, found: "a folder without .safetensors and .npy files", expected: "a candidate's tensors")
      }
      return all
    }
    if try NumPyArrays.isArrays(path: path) { return [try NumPyArrays(path: path)] }
    if path.hasSuffix(".safetensors") { return [try Safetensors(path: path)] }
    // Safetensors files come under any name; PyTorch's are zip archives.
    return try MappedFile(path: path).withBytes(in: 0..<min(2, MappedFile(path: path).size)) { Array($0) } == Array("PK".utf8)
      ? [PyTorchFile(path: path)] : [Safetensors(path: path)]
  }
}

extension TensorSource {
  /// A tensor's floating-point numbers in row-major order.
  ///
  /// - Throws: `CheckpointError` for an element type that is none of F64, F32, F16 and BF16.
  func doubles(of name: String) throws -> [Double] {
    let entry = try requiredEntry(name)
    guard let format = WeightFormat(entry.elementType), format.blockCount == 1 else {
      throw CheckpointError(
        file: file, place: .tensor(name), found: "dtype \(entry.elementType)", expected: "F64, F32, F16 or BF16")
    }
    return try withBytes(of: name) { bytes in
      [Double](unsafeUninitializedCapacity: entry.elementCount) { values, count in
        if let from = bytes.baseAddress, let to = values.baseAddress { format.decode(from, entry.elementCount, to: to) }
        count = entry.elementCount
      }
    }
  }
}
