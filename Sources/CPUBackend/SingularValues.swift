import COpenBLAS
import Tensors

extension CPUDouble {
  /// The singular values of a low-rank update s B A, r of them in descending order, without forming its O·I elements.
  ///
  /// r rank, O outputs, I inputs, p = min(O, r), q = min(I, r):
  ///
  ///     B  = Q_B R_B        (O,r) = (O,p)(p,r)
  ///     Aᵀ = Q_A R_A        (I,r) = (I,q)(q,r)
  ///     s B A = Q_B M Q_Aᵀ,    M = s R_B R_Aᵀ        (p,q)
  ///
  /// The columns of both Q are orthonormal, so the singular values are those of M; what p or q lack to r is zero.
  ///
  /// - Parameters:
  ///   - b: B (O,r).
  ///   - a: A (r,I).
  /// - Returns: nil where an element of M is not finite, or the iteration does not converge.
  /// - Precondition: `b` and `a` have the same r ≥ 1, and O, I ≥ 1.
  /// - Complexity: 2·(O + I)·r² + O(r³) flops, on the calling thread.
  public func singularValues(_ s: Double, _ b: Tensor<CPUDouble>, _ a: Tensor<CPUDouble>) -> [Double]? {
    let (o, r, i) = (b.rowCount, b.columnCount, a.columnCount)
    guard r >= 1, a.rowCount == r, o >= 1, i >= 1 else { trap("singularValues: B \(b.shape), A \(a.shape)") }
    let (p, q) = (min(o, r), min(i, r))
    var (bs, at) = (values(b), values(a))  // A by rows is Aᵀ by columns
    var tau = [Double](repeating: 0, count: r)
    guard LAPACKE_dgeqrf(LAPACK_ROW_MAJOR, lapack_index(o), lapack_index(r), &bs, lapack_index(r), &tau) == 0,
      LAPACKE_dgeqrf(LAPACK_COL_MAJOR, lapack_index(i), lapack_index(r), &at, lapack_index(i), &tau) == 0
    else { return nil }
    var m = [Double](repeating: 0, count: p * q)  // (p,q)  s R_B R_Aᵀ, of two upper triangles
    for row in 0..<p {
      for column in 0..<q {
        var sum = 0.0
        for k in max(row, column)..<r { sum += bs[row * r + k] * at[k * i + column] }
        m[row * q + column] = s * sum
      }
    }
    var values = [Double](repeating: 0, count: r)
    guard m.allSatisfy(\.isFinite),
      // (p,q) by rows is Mᵀ by columns, which has the same singular values.
      LAPACKE_dgesdd(
        LAPACK_COL_MAJOR, CChar(UInt8(ascii: "N")), lapack_index(q), lapack_index(p), &m, lapack_index(q), &values, nil, 1, nil, 1)
        == 0
    else { return nil }
    return values
  }
}
