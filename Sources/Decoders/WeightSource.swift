import Checkpoints
import Tensors

/// Where a model's values come from: files, or random numbers for a new model.
public protocol WeightSource<B> {
  /// The backend that the values go to.
  associatedtype B: Backend
  /// Throws unless there is a value of this name and shape; nothing is read.
  func require(_ name: String, _ shape: Shape) throws
  /// The value of a tensor that will be trained.
  func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Tensor<B>
  /// The value of a tensor that stays as it is.
  func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> B.FrozenMatrix
}

extension WeightSource {
  /// Fine: values that are made have whatever shape is asked for.
  public func require(_ name: String, _ shape: Shape) throws {}
}

/// What a tensor holds in a model that nobody has trained.
public enum InitialValue: Equatable, Sendable {
  /// All elements alike: 1 for a norm, 0 for a bias and for every B.
  case constant(Double)
  /// Drawn from a distribution.
  case random(Distribution)

  /// Kaiming-uniform with a = √5, as PEFT and MoE-PEFT draw A (r,I): uniform in ±1/√I.
  public static func kaimingUniform(inputs: Int) -> InitialValue { .random(.uniform(bound: 1 / Double(inputs).squareRoot())) }
}

/// Values read from tensor files. A missing, unread or mis-shaped tensor is an error that names it.
public final class CheckpointWeights<B: Backend>: WeightSource {
  private let source: any TensorSource
  private let layout: (any TensorLayout)?
  private let standIns: [String: String]
  private let backend: B
  private var read: Set<String> = []

  /// Values of `source` for `backend`.
  public convenience init(_ source: any TensorSource, on backend: B) { self.init(source, nil, on: backend) }

  /// Values of `source`, which has names and an order of its own.
  ///
  /// - Parameter standIns: the name under which a tensor may stand instead of its own; where both are there, they must be the same.
  init(_ source: any TensorSource, _ layout: (any TensorLayout)?, standIns: [String: String] = [:], on backend: B) {
    self.source = source
    self.layout = layout
    self.standIns = standIns.filter { source.entry($0.key) == nil && source.entry($0.value) != nil }
    self.backend = backend
  }

  /// Throws `CheckpointError` if the tensor is missing, of another shape, or not floating-point. What was asked for counts as read.
  public func require(_ name: String, _ shape: Shape) throws { read.insert(try format(of: name, shape).name) }

  /// The tensor of this name.
  ///
  /// - Throws: `CheckpointError` if it is missing, of another shape, or not floating-point.
  public func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Tensor<B> {
    try withValues(of: name, shape) { backend.upload($0, $1, shape) }
  }

  /// The tensor of this name, in the backend's encoding for weights that never change.
  ///
  /// - Throws: `CheckpointError` as above.
  public func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> B.FrozenMatrix {
    try withValues(of: name, shape) { backend.freeze($0, $1, shape) }
  }

  /// The bytes of this name, one after the other in the memory of scalars that mean nothing as such.
  ///
  /// - Throws: `CheckpointError` if they are missing, of another shape, or not U8.
  public func bytes(_ name: String, _ shape: Shape) throws -> Tensor<B> {
    let entry = try source.requiredEntry(name)
    guard entry.elementType == .uint8, entry.shape == shape.sizes else {
      throw CheckpointError(
        file: source.file, place: .tensor(name), found: "dtype \(entry.elementType), shape \(entry.shape)",
        expected: "dtype \(ElementType.uint8), shape \(shape.sizes)")
    }
    read.insert(name)
    let size = MemoryLayout<B.Scalar>.size
    var memory = [B.Scalar](repeating: 0, count: (shape.count + size - 1) / size)
    try source.withBytes(of: name) { bytes in memory.withUnsafeMutableBytes { $0.copyMemory(from: bytes) } }
    return backend.upload(memory, Shape(memory.count))
  }

  /// What the file calls a tensor of the model.
  func fileName(_ name: String) -> String { layout?.name(name) ?? standIns[name] ?? name }

  /// Throws if the file holds a tensor that nobody read.
  ///
  /// - Parameter isIgnored: names of tensors that are known to carry nothing.
  public func finish(ignoring isIgnored: (String) -> Bool = { _ in false }) throws {
    guard let entry = source.entries.first(where: { !read.contains($0.name) && !isIgnored($0.name) }) else { return }
    throw CheckpointError(
      file: source.file, place: .tensor(entry.name), found: "a tensor \(entry.elementType) \(entry.shape) that nothing reads",
      expected: "only tensors that the configuration calls for")
  }

  /// Accepts a second copy of `original` under the name `copy`, as some files carry for a tied head.
  func acceptCopy(_ copy: String, of original: String) throws {
    guard let entry = source.entry(copy), standIns[original] == nil else { return }
    let first = try source.requiredEntry(original)
    guard entry.elementType == first.elementType, entry.shape == first.shape else {
      throw CheckpointError(
        file: source.file, place: .tensor(copy), found: "dtype \(entry.elementType), shape \(entry.shape)",
        expected: "dtype \(first.elementType), shape \(first.shape) as \(original) has, since tie_word_embeddings is true")
    }
    let isSame = try source.withBytes(of: copy) { copied in
      try source.withBytes(of: original) { copied.elementsEqual($0) }
    }
    guard isSame else {
      throw CheckpointError(
        file: source.file, place: .tensor(copy), found: "other values than \(original)",
        expected: "the same, since tie_word_embeddings is true")
    }
    read.insert(copy)
  }

  private func withValues<R>(
    of modelName: String, _ shape: Shape, _ body: (UnsafeRawBufferPointer, WeightFormat) throws -> R
  ) throws -> R {
    let (name, format, entry) = try format(of: modelName, shape)
    read.insert(name)
    guard let order = layout?.rowOrder(modelName, rows: entry.shape[0]) else {
      return try source.withBytes(of: name) { try body($0, format) }
    }
    return try reordered(name, order) { try body($0, format) }
  }

  /// The file's name of a tensor, how its numbers are encoded, and its entry.
  private func format(of modelName: String, _ shape: Shape) throws -> (name: String, format: WeightFormat, entry: TensorEntry) {
    let name = fileName(modelName)
    let entry = try source.requiredEntry(name)
    guard entry.shape == shape.sizes else {
      throw CheckpointError(file: source.file, place: .tensor(name), found: "shape \(entry.shape)", expected: "shape \(shape.sizes)")
    }
    guard let format = WeightFormat(entry.elementType) else {
      throw CheckpointError(
        file: source.file, place: .tensor(name), found: "dtype \(entry.elementType)",
        expected: "F32, F64, F16 or BF16\(layout == nil ? "" : ", or a quantized type")")
    }
    return (name, format, entry)
  }

  /// Lends the rows of a tensor (of a vector, its elements) in another order.
  private func reordered<R>(_ name: String, _ order: [Int], _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    let moved = try source.withBytes(of: name) { bytes in
      let width = bytes.count / order.count
      return [UInt8](unsafeUninitializedCapacity: bytes.count) { moved, count in
        for (to, from) in order.enumerated() {
          let row = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(moved)[to * width..<(to + 1) * width])
          row.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[from * width..<(from + 1) * width]))
        }
        count = bytes.count
      }
    }
    return try moved.withUnsafeBytes(body)
  }
}

/// Initial values, drawn from a seed: the same numbers whatever the order, threads or precision.
public struct InitialWeights<B: Backend>: WeightSource {
  private let key: RandomKey
  private let backend: B

  /// Values under `seed` for `backend`.
  public init(seed: UInt64, on backend: B) {
    key = RandomKey(seed: seed)
    self.backend = backend
  }

  /// A new value for the tensor of this name.
  public func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) -> Tensor<B> {
    switch initial {
    case .constant(0): backend.zeros(shape)
    case .constant(let value): backend.upload([B.Scalar](repeating: B.Scalar(value), count: shape.count), shape)
    case .random(let distribution): backend.random(shape, distribution, key.derived(name, "initial value"))
    }
  }

  /// A new value for the tensor of this name, as a weight that never changes.
  public func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) -> B.FrozenMatrix {
    backend.freeze(tensor(name, shape, initial))
  }
}

extension WeightFormat {
  /// The format of a file's element type; nil if it is not floating-point.
  public init?(_ type: ElementType) {
    guard case .float(let format) = type else { return nil }
    self = format
  }
}
