import COpenBLAS
import Tensors

extension CPUFloat: MatrixFactorizing {
  /// By LAPACK, in double precision on the calling thread; see ``MatrixFactorizing``.
  public func factors(_ kind: Factorization, of w: [Double], rows: Int, columns: Int, rank: Int) -> (l: [Double], r: [Double])? {
    matrixFactors(kind, of: w, rows, columns, rank)
  }
}

extension CPUDouble: MatrixFactorizing {
  /// By LAPACK, in double precision on the calling thread; see ``MatrixFactorizing``.
  public func factors(_ kind: Factorization, of w: [Double], rows: Int, columns: Int, rank: Int) -> (l: [Double], r: [Double])? {
    matrixFactors(kind, of: w, rows, columns, rank)
  }
}

private func matrixFactors(_ kind: Factorization, of w: [Double], _ rows: Int, _ columns: Int, _ rank: Int) -> (l: [Double], r: [Double])? {
  let k = min(rows, columns)
  guard w.count == rows * columns, (1...max(1, k)).contains(rank), k >= 1 else {
    trap("factors: \(w.count) elements of \(rows) rows and \(columns) columns, rank \(rank)")
  }
  guard w.allSatisfy(\.isFinite) else { return nil }
  let (m, n) = (lapack_index(rows), lapack_index(columns))
  var a = w
  switch kind {
  case .singular:
    var (u, s, vt) = ([Double](repeating: 0, count: rows * k), [Double](repeating: 0, count: k), [Double](repeating: 0, count: k * columns))
    guard
      LAPACKE_dgesdd(LAPACK_ROW_MAJOR, CChar(UInt8(ascii: "S")), m, n, &a, n, &s, &u, lapack_index(k), &vt, n) == 0
    else { return nil }
    let roots = s.map { $0.squareRoot() }
    return (
      (0..<rows * rank).map { u[$0 / rank * k + $0 % rank] * roots[$0 % rank] },
      (0..<rank * columns).map { roots[$0 / columns] * vt[$0] }
    )
  case .orthogonal:
    var tau = [Double](repeating: 0, count: k)
    guard LAPACKE_dgeqrf(LAPACK_ROW_MAJOR, m, n, &a, n, &tau) == 0 else { return nil }
    let r = (0..<rank * columns).map { $0 % columns < $0 / columns ? 0 : a[$0] }  // the upper triangle
    guard LAPACKE_dorgqr(LAPACK_ROW_MAJOR, m, lapack_index(k), lapack_index(k), &a, n, &tau) == 0 else { return nil }
    return ((0..<rows * rank).map { a[$0 / rank * columns + $0 % rank] }, r)
  }
}
