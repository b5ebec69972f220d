/// A weight of the model: frozen as it was stored, or trained.
///
/// Weight gradients are formed exactly when the weight is trained, in every layer alike.
public enum Weight<B: Backend> {
  /// A matrix or vector that never changes; the backend may keep it in the file's own encoding.
  case frozen(B.FrozenMatrix)
  /// A matrix or vector with a gradient.
  case trained(Parameter<B>)

  /// The parameter, when the weight is trained.
  public var parameter: Parameter<B>? {
    if case .trained(let parameter) = self { parameter } else { nil }
  }

  /// The size of the weight: `(outputs, inputs)` of a linear layer, `(channels)` of a norm or a bias.
  public var shape: Shape {
    switch self {
    case .frozen(let matrix): matrix.shape
    case .trained(let parameter): parameter.value.shape
    }
  }

  /// The weight as an operand of a product.
  public var operand: Operand<B> {
    switch self {
    case .frozen(let matrix): .frozen(matrix, transposed: false)
    case .trained(let parameter): .dense(parameter.value, transposed: false)
    }
  }

  /// The transposed weight as an operand of a product.
  public var T: Operand<B> {
    switch self {
    case .frozen(let matrix): .frozen(matrix, transposed: true)
    case .trained(let parameter): parameter.value.T
    }
  }
}

/// A trained tensor with its gradient, under the name that checkpoints give it.
///
/// A class, because a tied head and the embedding are one parameter and an optimiser updates what layers read.
public final class Parameter<B: Backend> {
  /// The name in the checkpoint or adapter file.
  public let name: String
  /// The current value.
  public var value: Tensor<B>
  /// The sum of the gradients since `zeroGradient`; the shape of `value`.
  public var gradient: Tensor<B>

  /// A parameter with a zero gradient.
  public init(_ name: String, _ value: Tensor<B>, on backend: B) {
    self.name = name
    self.value = value
    gradient = backend.zeros(value.shape)
  }
}

/// What a product reads: a matrix as it is or transposed, dense or frozen.
public enum Operand<B: Backend> {
  /// A tensor on the device.
  case dense(Tensor<B>, transposed: Bool)
  /// A frozen matrix in whatever encoding the backend keeps.
  case frozen(B.FrozenMatrix, transposed: Bool)

  /// True for a weight that never changes.
  public var isFrozen: Bool {
    if case .frozen = self { true } else { false }
  }

  /// Rows and columns after the transposition.
  public var shape: Shape {
    let (stored, transposed) =
      switch self {
      case .dense(let tensor, let transposed): (tensor.shape, transposed)
      case .frozen(let matrix, let transposed): (matrix.shape, transposed)
      }
    return transposed ? Shape(stored.columns, stored.rows) : stored
  }
}

/// Anything that a product reads without further ado: `Tensor`, `Operand`, `Weight`.
public protocol OperandConvertible<B> {
  /// The backend on which the matrix lives.
  associatedtype B: Backend
  /// The matrix as an operand, not transposed.
  var operand: Operand<B> { get }
}

extension Weight: OperandConvertible {}

extension Operand: OperandConvertible {
  /// Itself.
  public var operand: Operand<B> { self }
}

extension Tensor: OperandConvertible {
  /// The tensor as it is.
  public var operand: Operand<B> { .dense(self, transposed: false) }
}

/// How the numbers of a frozen weight are encoded in its file.
///
/// A 16-bit or quantised value *is* the float32 number that it decodes to; `CPUDouble` widens that number, so that both
/// precisions run the same model. The quantised formats are ggml's: 32 consecutive numbers of a row share what stands
/// in front of them, and a number is computed in float32, each operation rounded:
///
///     q8_0   half d · 32 signed bytes q                                      q d            34 bytes
///     q4_0   half d · 16 bytes, low halves q_0 … q_15, high q_16 … q_31      (q − 8) d      18 bytes
///     q4_1   half d · half m · 16 bytes as in q4_0                           q d + m        20 bytes
public enum WeightFormat: String, Sendable, CaseIterable {
  /// IEEE 754 binary32.
  case float32
  /// IEEE 754 binary64.
  case float64
  /// IEEE 754 binary16.
  case float16
  /// The upper half of a binary32.
  case bfloat16

  /// ggml's 8 bits with a scale.
  case q8_0
  /// ggml's 4 bits around 8 with a scale.
  case q4_0
  /// ggml's 4 bits with a scale and a minimum.
  case q4_1

  /// Consecutive numbers of a row that are stored together: 1, or 32 of a quantised format.
  public var blockCount: Int {
    switch self {
    case .float64, .float32, .float16, .bfloat16: 1
    case .q8_0, .q4_0, .q4_1: 32
    }
  }

  /// Bytes of one block, hence those of one number unless the format is quantised.
  public var blockBytes: Int {
    switch self {
    case .float64: 8
    case .float32: 4
    case .float16, .bfloat16: 2
    case .q8_0: 34
    case .q4_0: 18
    case .q4_1: 20
    }
  }

  /// Bytes of a row of `columns` numbers.
  ///
  /// - Precondition: `columns` is a multiple of `blockCount`.
  public func rowBytes(_ columns: Int) -> Int {
    guard columns % blockCount == 0 else { trap("\(rawValue): a row of \(columns) is no whole number of blocks of \(blockCount)") }
    return columns / blockCount * blockBytes
  }
}

/// What every backend's frozen matrix can tell about itself.
public protocol FrozenMatrixShape {
  /// Rows and columns, or the length of a vector.
  var shape: Shape { get }
}
