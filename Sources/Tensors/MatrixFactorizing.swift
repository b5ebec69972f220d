/// A backend that can factorize whole matrices: what PiSSA and OLoRA make their branches of.
public protocol MatrixFactorizing {
  /// The leading factors of a matrix W (rows,columns), L (rows,rank) and R (rank,columns), all row-major.
  ///
  /// - Returns: nil where an element is not finite or the iteration does not converge.
  /// - Precondition: `w` has rows·columns elements, and rank is at least 1 and at most the smaller size.
  func factors(_ kind: Factorization, of w: [Double], rows: Int, columns: Int, rank: Int) -> (l: [Double], r: [Double])?
}

/// How a matrix is factorized.
public enum Factorization: Sendable {
  /// By its largest singular values, W ≈ U S Vᵀ: L = U √S, R = √S Vᵀ.
  case singular
  /// By the first columns of Q and rows of R of W = Q R.
  case orthogonal
}
