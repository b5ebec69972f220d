/// How the matrices of an ``ExpertStack`` are stacked.
public enum StackAxis: Sendable {
  /// One below the other: (E·r, I), expert e has rows e·r ..< (e+1)·r.
  case rows
  /// Side by side: (O, E·r), expert e has columns e·r ..< (e+1)·r.
  case columns
}

/// E matrices of one size in one tensor, side by side or one below the other.
///
/// All experts' A (r,I) lie below each other in (E·r,I), so that x A_allᵀ is one product; all experts' B (O,r)
/// lie side by side in (O,E·r), so that T B_allᵀ is one product as well.
public struct ExpertStack<B: Backend> {
  /// All matrices.
  public let matrices: Tensor<B>
  /// Their number E.
  public let experts: Int
  /// How they are stacked.
  public let axis: StackAxis
  /// True if each matrix is read transposed.
  public let isTransposed: Bool

  /// A stack of E matrices along `axis`.
  ///
  /// - Precondition: E ≥ 1 divides the rows or columns that it stacks.
  public init(_ matrices: Tensor<B>, experts: Int, along axis: StackAxis, isTransposed: Bool = false) {
    guard experts > 0, (axis == .rows ? matrices.rowCount : matrices.columnCount) % experts == 0 else {
      trap("ExpertStack: \(matrices.shape) is no stack of \(experts) matrices")
    }
    self.matrices = matrices
    self.experts = experts
    self.axis = axis
    self.isTransposed = isTransposed
  }

  /// The stack with each of its matrices transposed; nothing is moved.
  public var T: ExpertStack { ExpertStack(matrices, experts: experts, along: axis, isTransposed: !isTransposed) }

  /// Rows and columns of one expert's matrix as a product reads it.
  public var matrixShape: Shape {
    let stored =
      axis == .rows
      ? Shape(matrices.rowCount / experts, matrices.columnCount) : Shape(matrices.rowCount, matrices.columnCount / experts)
    return isTransposed ? Shape(stored.columns, stored.rows) : stored
  }

  /// All matrices as one, side by side (k,E·n) or below each other (E·k,n); nothing is moved.
  ///
  /// - Precondition: they are stored so, or transposed along the other axis.
  public func joined(along direction: StackAxis) -> Operand<B> {
    guard (axis == direction) != isTransposed else { trap("ExpertStack: \(matrices.shape) does not lie along the \(direction)") }
    return isTransposed ? matrices.T : matrices.operand
  }

  /// Expert e's matrix, as it is stored: a view, transposed or not.
  public subscript(_ e: Int) -> Tensor<B> {
    switch axis {
    case .rows:
      let r = matrices.rowCount / experts
      return matrices.rows(e * r..<(e + 1) * r)
    case .columns:
      let r = matrices.columnCount / experts
      return matrices.columns(e * r..<(e + 1) * r)
    }
  }
}
