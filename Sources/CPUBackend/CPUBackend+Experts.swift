import Tensors

extension CPUBackend {
  /// c_e ← α a_e b_e + β c_e for every expert's rows: a (M,k), c (M,n), b a stack of E matrices (k,n).
  ///
  /// Parts are 128 rows of one expert.
  public func groupedGemm(
    _ alpha: Double, _ a: Tensor<Self>, _ b: ExpertStack<Self>, _ beta: Double, into c: inout Tensor<Self>, _ routing: Routing<Self>
  ) {
    let watch = core.watch("groupedGemm")
    defer { watch.stop() }
    let (m, e) = (routing.rows, routing.experts)
    _ = blockWidth("groupedGemm", b.axis == .rows ? b.matrices.rowCount : b.matrices.columnCount, routing)
    let (k, n) = (b.matrixShape(experts: e).rows, b.matrixShape(experts: e).columns)
    requireShapes("groupedGemm", ("a", a.shape, Shape(m, k)), ("c", c.shape, Shape(m, n)))
    let (alpha, beta) = (Scalar(alpha), Scalar(beta))
    let (a, stack, c) = (rows(a).matrix, rows(b.matrices).matrix, writable(&c).matrix)
    let offsets = routing.offsets.storage.pointer
    let chunk = 128
    var parts = 0
    for expert in 0..<e { parts += (Int(offsets[expert + 1] - offsets[expert]) + chunk - 1) / chunk }
    forParts(parts, work: m * n * max(k, 1) / 8) { part, _ in
      // The part-th chunk, counted over all experts.
      var (expert, rest) = (0, part)
      while true {
        let chunks = (Int(offsets[expert + 1] - offsets[expert]) + chunk - 1) / chunk
        if rest < chunks { break }
        rest -= chunks
        expert += 1
      }
      let first = Int(offsets[expert]) + rest * chunk
      var matrix = block(expert, of: e, stack, b.axis, b.matrices.shape)
      matrix.isTransposed = b.isTransposed
      let count = min(chunk, Int(offsets[expert + 1]) - first)
      multiplyHere(alpha, a.from(row: first), matrix, beta, c.from(row: first), count, n, k)
    }
  }

  /// g_e += α a_eᵀ b_e over every expert's rows: a (M,p), b (M,q), g a stack of E matrices (p,q) along `axis`.
  ///
  /// Parts are an expert's matrix, cut along its longer side into one piece per thread.
  public func groupedOuter(
    _ alpha: Double, _ a: Tensor<Self>, _ b: Tensor<Self>, into g: inout Tensor<Self>, stackedAlong axis: ExpertStack<Self>.Axis,
    _ routing: Routing<Self>
  ) {
    let watch = core.watch("groupedOuter")
    defer { watch.stop() }
    let (m, e, p, q) = (routing.rows, routing.experts, a.columnCount, b.columnCount)
    requireShapes(
      "groupedOuter", ("a", a.shape, Shape(m, p)), ("b", b.shape, Shape(m, q)),
      ("g", g.shape, axis == .rows ? Shape(e * p, q) : Shape(p, e * q)))
    let alpha = Scalar(alpha)
    let shape = g.shape
    let (a, b, stack) = (rows(a).matrix.transposed, rows(b).matrix, writable(&g).matrix)
    let offsets = routing.offsets.storage.pointer
    let unit = 16
    let units = (max(p, q) + unit - 1) / unit
    let pieces = max(1, min(core.threads.threads, units))
    forParts(e * pieces, work: m * p * q / 8) { part, _ in
      let (expert, piece) = part.quotientAndRemainder(dividingBy: pieces)
      let (first, count) = (Int(offsets[expert]), Int(offsets[expert + 1] - offsets[expert]))
      if count == 0 { return }
      let range = piece * units / pieces * unit..<min((piece + 1) * units / pieces * unit, max(p, q))
      let c = block(expert, of: e, stack, axis, shape)
      if p >= q {
        multiplyHere(
          alpha, a.from(row: range.lowerBound, column: first), b.from(row: first), 1, c.from(row: range.lowerBound), range.count, q, count)
      } else {
        multiplyHere(
          alpha, a.from(column: first), b.from(row: first, column: range.lowerBound), 1, c.from(column: range.lowerBound), p,
          range.count, count)
      }
    }
  }

  /// Matrix e of a stack, as it is stored.
  @inline(__always)
  private func block(
    _ e: Int, of experts: Int, _ stack: Matrix<Scalar>, _ axis: ExpertStack<Self>.Axis, _ shape: Shape
  ) -> Matrix<Scalar> {
    axis == .rows ? stack.from(row: e * (shape.rows / experts)) : stack.from(column: e * (shape.columns / experts))
  }
}
