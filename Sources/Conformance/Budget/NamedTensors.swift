import Checkpoints
import Tensors
import Traces

/// Tensors by name, on the host: one side of a comparison in a test.
///
///     let candidate = NamedTensors("y", [0.5, 0.25] as [Float], shape: [1, 2])
///     let golden = try NamedTensors(contentsOf: "expected.safetensors")
///     #expect(candidate.matches(golden, within: .budget))
///
/// A trace is one, too: `NamedTensors(trace.tensors)`. Under names of a trace the budget knows what kind a tensor is.
public struct NamedTensors: Sendable, CustomStringConvertible {
  /// A tensor.
  public struct Element: Sendable {
    /// Its name.
    public let name: String
    /// Its sizes, outermost first.
    public let shape: [Int]
    /// Its values, row-major.
    public let values: [Double]
    /// What they were stored in.
    public let precision: Precision
  }

  /// In the order in which they were given.
  public private(set) var elements: [Element] = []

  /// Nothing yet.
  public init() {}

  /// One tensor of a name, values and sizes.
  public init<Scalar: BinaryFloatingPoint>(_ name: String, _ values: [Scalar], shape: [Int]) { append(name, values, shape: shape) }

  /// The tensors of a trace.
  public init<Scalar>(_ tensors: [Trace<Scalar>.NamedTensor]) {
    for tensor in tensors { append(tensor.name, tensor.values, shape: tensor.shape) }
  }

  /// The tensors of a safetensors file, each in the precision that it is stored in; whole numbers of 32 and 64 bits are exact.
  ///
  /// - Throws: `CheckpointError` for a file that is none, and for a tensor of another type.
  public init(contentsOf path: String) throws {
    let file = try Safetensors(path: path)
    for entry in file.entries {
      let precision: Precision =
        switch entry.elementType {
        case .float32: .float32
        case .float16: .float16
        case .bfloat16: .bfloat16
        default: .float64
        }
      let values = try file.withBytes(of: entry.name) { try Self.values($0, entry, path) }
      elements.append(Element(name: entry.name, shape: entry.shape, values: values, precision: precision))
    }
  }

  private static func values(_ bytes: UnsafeRawBufferPointer, _ entry: TensorEntry, _ path: String) throws -> [Double] {
    func whole<I: FixedWidthInteger>(_ type: I.Type) -> [Double] {
      (0..<entry.elementCount).map { Double(I(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<I>.size, as: I.self))) }
    }
    if entry.elementType == .int64 { return whole(Int64.self) }
    if entry.elementType == .int32 { return whole(Int32.self) }
    guard let format = WeightFormat(entry.elementType) else {
      throw CheckpointError(
        file: path, place: .tensor(entry.name), found: "dtype \(entry.elementType)", expected: "F64, F32, F16, BF16, I64 or I32")
    }
    return [Double](unsafeUninitializedCapacity: entry.elementCount) { values, count in
      if let from = bytes.baseAddress, let to = values.baseAddress { format.decode(from, entry.elementCount, to: to) }
      count = entry.elementCount
    }
  }

  /// Adds a tensor; its precision is that of its scalars' type, or of a narrower one that its values were kept in.
  ///
  /// - Parameter precision: what the values were kept in, where that is not the scalars' own type: bfloat16 in `Float`, say.
  public mutating func append<Scalar: BinaryFloatingPoint>(
    _ name: String, _ values: [Scalar], shape: [Int], precision: Precision? = nil
  ) {
    let own: Precision =
      switch Scalar.significandBitCount {
      case ...10: .float16
      case ...23: .float32
      default: .float64
      }
    elements.append(Element(name: name, shape: shape, values: values.map { Double($0) }, precision: precision ?? own))
  }

  /// The first tensor of a name; nil if there is none.
  public subscript(name: String) -> Element? { elements.first { $0.name == name } }

  /// The names with their sizes, the first few.
  public var description: String {
    let shown = elements.prefix(3).map { "\($0.name) \($0.shape)" }.joined(separator: ", ")
    return elements.count > 3 ? "\(shown), … (\(elements.count) tensors)" : shown.isEmpty ? "no tensors" : shown
  }

  /// True if every golden tensor is here, of the same shape, finite where it is finite, and within the budget; of no golden tensors
  /// false.
  ///
  /// Inside `#expect` the failure says which tensor is wrong, where first and where most, and by how much: the budget prints it, if
  /// there is no `try` within the expectation.
  /// Tensors that only this side has are not looked at.
  public func matches(_ golden: NamedTensors, within budget: Budget) -> Bool {
    let judgement = Judgement(of: self, against: golden, within: budget)
    budget.remember(judgement.description)
    return judgement.matches
  }
}

extension Trace {
  /// True if every tensor of another trace is here and within the budget (``/Conformance/NamedTensors/matches(_:within:)``).
  public func matches<Other>(_ golden: Trace<Other>, within budget: Budget) -> Bool {
    NamedTensors(tensors).matches(NamedTensors(golden.tensors), within: budget)
  }
}
