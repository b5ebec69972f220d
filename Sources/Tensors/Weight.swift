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

/// What every backend's frozen matrix can tell about itself.
public protocol FrozenMatrixShape {
  /// Rows and columns, or the length of a vector.
  var shape: Shape { get }
}
