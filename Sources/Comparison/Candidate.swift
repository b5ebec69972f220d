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
  /// - Throws: `CheckpointError` for a file that is none of these or has no tensors, and for two tensors of one meaning;
  ///   `CandidateNames.RuleError` for a rule that gives a tensor a meaning that there is not.
  public init(_ path: String, names: CandidateNames) throws {
    self.path = path
    let sources = try Self.sources(path)
    metadata = sources.reduce(into: [:]) { all, source in
      for member in (source as? Safetensors)?.metadata.members ?? [] { all[member.key] = member.value.stringValue }
    }
    guard sources.contains(where: { !$0.entries.isEmpty }) else {
      throw CheckpointError(file: path, found: "no tensors", expected: "those of a run")
    }
    (tensors, unknown) = ([:], [])
    for source in sources {
      for entry in source.entries {
        guard let name = try names.traceName(entry.name) else {
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

  /// No name is one of the other side's.
  func nothingInCommon(with other: String, expected: String) -> CheckpointError {
    let some = unknown.prefix(3).map { presentable($0) }.joined(separator: ", ")
    return CheckpointError(
      file: path,
      found: "nothing in common with \(other)\(some.isEmpty ? "; it has no tensors" : "; it has \(some)\(unknown.count > 3 ? ", …" : "")")",
      expected: "\(expected); --map translates others")
  }

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
    func has(_ suffixes: String...) -> Bool { suffixes.contains { path.hasSuffix($0) } }
    // A name that says what a file is is believed, so that a damaged one is told as what it should be.
    if try has(".npz", ".npy") || NumPyArrays.isArrays(path: path) { return [try NumPyArrays(path: path)] }
    if has(".safetensors") { return [try Safetensors(path: path)] }
    if has(".pt", ".pth", ".bin") { return [try PyTorchFile(path: path)] }
    let mapped = try MappedFile(path: path)
    let start = try mapped.bytes(in: 0..<min(9, mapped.size))
    if start.starts(with: "PK".utf8) { return [try PyTorchFile(path: path)] }
    if start.last == UInt8(ascii: "{") { return [try Safetensors(path: path)] }
    throw CheckpointError(
      file: path, found: start.isEmpty ? "an empty file" : "the bytes \(start)", expected: "safetensors, .npz or .npy, or a PyTorch file")
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
