import Tensors

extension CPUBackend {
  public func gemm(
    _ alpha: Double, _ a: Operand<Self>, _ b: Operand<Self>, _ beta: Double, into c: inout Tensor<Self>, rows range: Range<Int>?
  ) {
    core.timed("gemm") {
      let (m, k, n) = (a.shape.rows, a.shape.columns, b.shape.columns)
      let range = range ?? 0..<c.rowCount
      guard range.lowerBound >= 0, range.upperBound <= c.rowCount else { trap("gemm: rows \(range) of c \(c.shape)") }
      requireShapes(
        "gemm", ("b", Shape(b.shape.rows, n), Shape(k, n)), ("the destination in c", Shape(range.count, c.columnCount), Shape(m, n)))
      let cs = writable(&c)
      let destination = cs.matrix.from(row: range.lowerBound)
      let a = dense(a)
      if case .frozen(let frozen, let transposed) = b, case .encoded(let encoded) = frozen.contents {
        return multiply(Scalar(alpha), matrix(a), encoded, isTransposed: transposed, Scalar(beta), destination, m, n, k)
      }
      multiply(Scalar(alpha), matrix(a), matrix(b), Scalar(beta), destination, m, n, k)
    }
  }

  /// An operand whose matrix is dense. (A frozen left factor occurs in no layer, so an encoded one may cost a tensor.)
  private func dense(_ operand: Operand<Self>) -> Operand<Self> {
    guard case .frozen(let frozen, let transposed) = operand, case .encoded(let encoded) = frozen.contents else { return operand }
    let (y, ys) = fresh(frozen.shape)
    forRanges(encoded.rows, cost: encoded.columns) { for n in $0 { encoded.decode(row: n, to: ys[n]) } }
    return .dense(y, transposed: transposed)
  }

  /// A dense operand as BLAS reads it.
  func matrix(_ operand: Operand<Self>) -> Matrix<Scalar> {
    let (tensor, transposed): (Tensor<Self>, Bool)
    switch operand {
    case .dense(let dense, let isTransposed): (tensor, transposed) = (dense, isTransposed)
    case .frozen(let frozen, let isTransposed):
      guard case .dense(let dense) = frozen.contents else { trap("gemm: the frozen matrix \(frozen.shape) is encoded") }
      (tensor, transposed) = (dense, isTransposed)
    }
    var matrix = rows(tensor).matrix
    matrix.isTransposed = transposed
    return matrix
  }

  /// c ← α a b + β c, cut along the longer side of c into two pieces per thread, so that a thread held up elsewhere delays less.
  ///
  /// Sizes may be 0. Small products stay on this thread. Few rows times a transposed matrix (generation) are dot products with its rows:
  /// BLAS would first copy the matrix into panels, and it is its one trip through memory that counts.
  func multiply(
    _ alpha: Scalar, _ a: Matrix<Scalar>, _ b: Matrix<Scalar>, _ beta: Scalar, _ c: Matrix<Scalar>, _ m: Int, _ n: Int, _ k: Int
  ) {
    if m <= Self.fewRows, n > m, b.isTransposed, !a.isTransposed, k > 0 {
      forRanges(n, cost: m * k / 4) { rows in
        for o in rows {
          let w = b.base + o * b.stride
          for i in 0..<m {
            let (dot, y) = (Scalar.product(w, a.base + i * a.stride, k), c.base + i * c.stride + o)
            y.pointee = beta == 0 ? alpha * dot : alpha * dot + beta * y.pointee
          }
        }
      }
      return
    }
    let cost = m * n * max(k, 1)
    let threads = cost < 64 * Self.worthAThread || core.productThreading == .library ? 1 : core.threads.threads
    let unit = 16
    let units = (max(m, n) + unit - 1) / unit
    let parts = min(threads == 1 ? 1 : 2 * threads, units)
    core.threads.parallel(parts) { part in
      let range = part * units / parts * unit..<min((part + 1) * units / parts * unit, max(m, n))
      if m >= n {
        multiplyHere(alpha, a.from(row: range.lowerBound), b, beta, c.from(row: range.lowerBound), range.count, n, k)
      } else {
        multiplyHere(alpha, a, b.from(column: range.lowerBound), beta, c.from(column: range.lowerBound), m, range.count, k)
      }
    }
  }

  /// c ← α a b + β c on this thread; sizes may be 0. With β = 0, c is not read.
  @inline(__always)
  func multiplyHere(
    _ alpha: Scalar, _ a: Matrix<Scalar>, _ b: Matrix<Scalar>, _ beta: Scalar, _ c: Matrix<Scalar>, _ m: Int, _ n: Int, _ k: Int
  ) {
    if m == 0 || n == 0 { return }
    if k > 0 { return Scalar.gemm(alpha, a, b, beta, c, m, n, k) }
    for i in 0..<m {
      let row = c.base + i * c.stride
      if beta == 0 { row.update(repeating: 0, count: n) } else { Scalar.scale(row, 0..<n, by: beta) }
    }
  }
}
