/// What a product reads: a matrix as it is or transposed, dense or frozen.
public enum Operand<B: Backend> {
  /// A tensor on the device.
  case dense(Tensor<B>, transposed: Bool)
  /// A frozen matrix in whatever encoding the backend keeps.
  case frozen(B.FrozenMatrix, transposed: Bool)

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
