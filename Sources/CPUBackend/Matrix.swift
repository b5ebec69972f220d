import COpenBLAS

/// A matrix as a product reads or writes it: where it begins, the distance of its rows, and whether it is read transposed.
struct Matrix<Scalar> {
  var base: UnsafeMutablePointer<Scalar>
  var stride: Int
  var isTransposed = false

  /// The matrix from row `i`, column `j` on, counted after the transposition.
  @inline(__always)
  func from(row i: Int = 0, column j: Int = 0) -> Matrix {
    Matrix(base: base + (isTransposed ? j * stride + i : i * stride + j), stride: stride, isTransposed: isTransposed)
  }

  /// The transposed matrix; nothing is moved.
  var transposed: Matrix { Matrix(base: base, stride: stride, isTransposed: !isTransposed) }

  var transposition: CBLAS_TRANSPOSE { isTransposed ? CblasTrans : CblasNoTrans }
  /// BLAS wants a leading dimension of at least 1, and at least the width even of a single row.
  func leading(_ width: Int) -> blasint { blasint(max(1, stride, width)) }
}
