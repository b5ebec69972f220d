import Tensors

extension CPUBackend {
  /// Rows that belong to somebody: those before the last offset.
  func pairs(_ routing: Routing<Self>) -> Int { Int(integers(routing.offsets)[routing.experts]) }

  public func dispatch(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    core.timed("dispatch") {
      requireShapes("dispatch", ("x", x.shape, Shape(routing.tokens, x.columnCount)))
      let (y, ys) = fresh(Shape(routing.rows, x.columnCount))
      let (xs, token, pairs) = (rows(x), integers(routing.tokenOfRow), pairs(routing))
      forRanges(ys.count, cost: ys.width) { rows in
        for m in rows {
          if m < pairs {
            ys[m].update(from: xs[Int(token[m])], count: xs.width)
          } else {
            ys[m].update(repeating: 0, count: xs.width)
          }
        }
      }
      return y
    }
  }

  public func combine(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> {
    core.timed("combine") {
      let (n, s, width) = (routing.tokens, routing.slots, x.columnCount)
      requireRows("combine", x, weights, routing)
      let (y, ys) = fresh(Shape(n, width))
      let (xs, w, row) = (rows(x), weights.map { rows($0).base }, integers(routing.rowOfSlot))
      forRanges(n, cost: s * width) { rows in
        for n in rows {
          let y = ys[n]
          var isFirst = true
          for slot in n * s..<(n + 1) * s where row[slot] >= 0 {
            let m = Int(row[slot])
            let (x, weight) = (xs[m], w.map { $0[m] } ?? 1)
            if isFirst {
              for i in Scalar.lanes(0..<width) { y[i] = weight * x[i] }
            } else {
              for i in Scalar.lanes(0..<width) { y[i] = y[i] + weight * x[i] }
            }
            isFirst = false
          }
          if isFirst { y.update(repeating: 0, count: width) }
        }
      }
      return y
    }
  }

  public func dispatchBlocks(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    core.timed("dispatchBlocks") {
      guard routing.experts > 0, x.columnCount % routing.experts == 0 else {
        trap("dispatchBlocks: \(x.columnCount) columns are no blocks of \(routing.experts) experts")
      }
      let r = x.columnCount / routing.experts
      requireShapes("dispatchBlocks", ("x", x.shape, Shape(routing.tokens, r * routing.experts)))
      let (y, ys) = fresh(Shape(routing.rows, r))
      let (xs, s, pairs) = (rows(x), routing.slots, pairs(routing))
      let (slotOfRow, expert) = (integers(routing.slotOfRow), integers(routing.choice))
      forRanges(ys.count, cost: r + 8) { rows in
        for m in rows {
          if m < pairs {
            let slot = Int(slotOfRow[m])
            ys[m].update(from: xs[slot / s] + Int(expert[slot]) * r, count: r)
          } else {
            ys[m].update(repeating: 0, count: r)
          }
        }
      }
      return y
    }
  }

  public func combineBlocks(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> {
    core.timed("combineBlocks") {
      let (n, s, r) = (routing.tokens, routing.slots, x.columnCount)
      requireRows("combineBlocks", x, weights, routing)
      let (y, ys) = fresh(Shape(n, r * routing.experts))
      let (xs, w) = (rows(x), weights.map { rows($0).base })
      let (row, expert) = (integers(routing.rowOfSlot), integers(routing.choice))
      forRanges(n, cost: ys.width) { rows in
        for n in rows {
          ys[n].update(repeating: 0, count: ys.width)
          for slot in n * s..<(n + 1) * s where row[slot] >= 0 {
            let m = Int(row[slot])
            let (x, y, weight) = (xs[m], ys[n] + Int(expert[slot]) * r, w.map { $0[m] } ?? 1)
            for i in Scalar.lanes(0..<r) { y[i] = weight * x[i] }
          }
        }
      }
      return y
    }
  }

  /// Parts are 128 rows of one expert.
  public func groupedGemm(
    _ alpha: Double, _ a: Tensor<Self>, _ b: ExpertStack<Self>, _ beta: Double, into c: inout Tensor<Self>, _ routing: Routing<Self>
  ) {
    core.timed("groupedGemm") {
      let (m, e) = (routing.rows, routing.experts)
      guard b.experts == e else { trap("groupedGemm: a stack of \(b.experts) matrices for \(e) experts") }
      let (k, n) = (b.matrixShape.rows, b.matrixShape.columns)
      requireShapes("groupedGemm", ("a", a.shape, Shape(m, k)), ("c", c.shape, Shape(m, n)))
      let (alpha, beta) = (Scalar(alpha), Scalar(beta))
      let (a, stack, c) = (rows(a).matrix, rows(b.matrices).matrix, writable(&c).matrix)
      let offsets = integers(routing.offsets)
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
  }

  /// Parts are an expert's matrix, cut along its longer side into one piece per thread.
  public func groupedOuter(
    _ alpha: Double, _ a: Tensor<Self>, _ b: Tensor<Self>, into g: inout Tensor<Self>, stackedAlong axis: StackAxis,
    _ routing: Routing<Self>
  ) {
    core.timed("groupedOuter") {
      let (m, e, p, q) = (routing.rows, routing.experts, a.columnCount, b.columnCount)
      requireShapes(
        "groupedOuter", ("a", a.shape, Shape(m, p)), ("b", b.shape, Shape(m, q)),
        ("g", g.shape, axis == .rows ? Shape(e * p, q) : Shape(p, e * q)))
      let alpha = Scalar(alpha)
      let shape = g.shape
      let (a, b, stack) = (rows(a).matrix.transposed, rows(b).matrix, writable(&g).matrix)
      let offsets = integers(routing.offsets)
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
            alpha, a.from(row: range.lowerBound, column: first), b.from(row: first), 1, c.from(row: range.lowerBound), range.count, q, count
          )
        } else {
          multiplyHere(
            alpha, a.from(column: first), b.from(row: first, column: range.lowerBound), 1, c.from(column: range.lowerBound), p,
            range.count, count)
        }
      }
    }
  }

  /// Matrix e of a stack, as it is stored.
  @inline(__always)
  private func block(_ e: Int, of experts: Int, _ stack: Matrix<Scalar>, _ axis: StackAxis, _ shape: Shape) -> Matrix<Scalar> {
    axis == .rows ? stack.from(row: e * (shape.rows / experts)) : stack.from(column: e * (shape.columns / experts))
  }
}
