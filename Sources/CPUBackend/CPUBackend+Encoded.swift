import Tensors

/// Products with a matrix that is kept as its file encodes it.
///
/// With more than `fewRows` rows on the other side the matrix is expanded into the backend's one scratch buffer, by blocks of rows
/// if it is larger than that may be, and multiplied by OpenBLAS: expanding k·n numbers costs little beside 2·m·k·n flops. With few
/// rows (generation) it is memory that counts: in a bᵀ the blocks are read once, and decoded in cache or in registers.
/// In a b every row of b adds to every sum; there OpenBLAS sums in blocks, which keeps 49 152 terms (a head's gradient) exact enough.
extension CPUBackend {
  /// Rows up to which a product reads the blocks directly.
  static var fewRows: Int { 8 }

  /// c ← α a b + β c for a dense and b encoded, of which `isTransposed` means bᵀ = W: a (m,k), c (m,n).
  func multiply(
    _ alpha: Scalar, _ a: Matrix<Scalar>, _ b: EncodedMatrix, isTransposed: Bool, _ beta: Scalar, _ c: Matrix<Scalar>, _ m: Int, _ n: Int,
    _ k: Int
  ) {
    if m == 0 || n == 0 { return }
    if m <= Self.fewRows, isTransposed, !a.isTransposed, k > 0 { return multiplyFew(alpha, a, b, beta, c, m) }
    if k == 0 { return multiply(alpha, a, Matrix(base: a.base, stride: 1), beta, c, m, n, 0) }
    let blockRows = max(1, min(b.rows, core.scratchCount / max(1, b.columns)))
    var beta = beta
    for start in stride(from: 0, to: b.rows, by: blockRows) {
      let rows = start..<min(start + blockRows, b.rows)
      var block = expanded(b, rows)
      block.isTransposed = isTransposed
      if isTransposed {
        multiply(alpha, a, block, beta, c.from(column: start), m, rows.count, k)  // some columns of c
      } else {
        multiply(alpha, a.from(column: start), block, beta, c, m, n, rows.count)  // a part of every sum
        beta = 1
      }
    }
  }

  /// Rows of an encoded matrix in the scratch buffer, until it is used again.
  func expanded(_ matrix: EncodedMatrix, _ rows: Range<Int>) -> Matrix<Scalar> {
    let y = scratch(rows.count * matrix.columns).pointer
    forRanges(rows.count, cost: matrix.columns) { range in
      for n in range { matrix.decode(row: rows.lowerBound + n, to: y + n * matrix.columns) }
    }
    return Matrix(base: y, stride: matrix.columns)
  }

  /// The backend's scratch buffer, grown if it is too small.
  private func scratch(_ count: Int) -> Buffer<Scalar> {
    if let buffer = core.scratch as? Buffer<Scalar>, buffer.count >= count { return buffer }
    core.scratch = nil  // back to the pool before another is taken
    let buffer: Buffer<Scalar> = core.pool.buffer(count)
    core.scratch = buffer
    return buffer
  }

  /// c ← α a bᵀ + β c for few rows of a; b is read once. Of one row the numbers of b go from their blocks into the sums; for several a row
  /// of b is decoded in cache, and used for all of them.
  private func multiplyFew(
    _ alpha: Scalar, _ a: Matrix<Scalar>, _ b: EncodedMatrix, _ beta: Scalar, _ c: Matrix<Scalar>, _ m: Int
  ) {
    forRanges(b.rows, cost: (m + 2) * b.columns / 8) { rows in
      if m == 1, Scalar.multiply(alpha, a.base, b, rows, beta, c.base) { return }
      withUnsafeTemporaryAllocation(of: Scalar.self, capacity: b.columns) { memory in
        guard let w = memory.baseAddress else { return }
        for o in rows {
          b.decode(row: o, to: w)
          for i in 0..<m {
            let (dot, y) = (Scalar.product(w, a.base + i * a.stride, b.columns), c.base + i * c.stride + o)
            y.pointee = beta == 0 ? alpha * dot : alpha * dot + beta * y.pointee
          }
        }
      }
    }
  }
}
