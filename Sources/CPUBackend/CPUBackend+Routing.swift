import Tensors

extension CPUBackend {
  /// softmax of each row: (N,E) → (N,E).
  public func softmax(_ logits: Tensor<Self>) -> Tensor<Self> {
    let watch = core.watch("softmax")
    defer { watch.stop() }
    let (p, ps) = fresh(logits.shape)
    let xs = rows(logits)
    forRanges(xs.count, cost: 10 * xs.width) { rows in
      for n in rows {
        let p = ps[n]
        p.update(from: xs[n], count: xs.width)
        let sum = Scalar.exponentials(p, xs.width, minus: Scalar.maximum(p, xs.width))
        Scalar.scale(p, 0..<xs.width, by: Scalar(1 / sum))
      }
    }
    return p
  }

  /// The K largest of each row, largest first, ties to the lower index: p (N,E) → choice (N·K).
  ///
  /// NaN counts as −∞, so a row of NaN chooses 0, 1, …, K − 1.
  /// - Complexity: N·K·E comparisons.
  public func topK(_ p: Tensor<Self>, _ k: Int) -> Indices<Self> {
    let watch = core.watch("topK")
    defer { watch.stop() }
    let e = p.columnCount
    guard k >= 0, k <= e else { trap("topK: the \(k) largest of p \(p.shape)") }
    let choice = freshIndices(p.rowCount * k)
    let (ps, to) = (rows(p), choice.storage.pointer)
    forRanges(ps.count, cost: 2 * k * e) { rows in
      for n in rows {
        let p = ps[n]
        var (last, lastValue) = (-1, Scalar.infinity)
        for slot in 0..<k {
          // The best of those that come after the last choice in the order (value falling, index rising).
          var (best, bestValue) = (-1, -Scalar.infinity)
          for j in 0..<e {
            let value = p[j].isNaN ? -Scalar.infinity : p[j]
            guard value < lastValue || (value == lastValue && j > last) else { continue }
            if best < 0 || value > bestValue { (best, bestValue) = (j, value) }
          }
          to[n * k + slot] = Int32(best)
          (last, lastValue) = (best, bestValue)
        }
      }
    }
    return choice
  }

  /// Orders the N·K choices by expert, then token, with weight p_j / Σ_chosen p. A choice names an expert at most once per token.
  ///
  /// A stable counting sort on the calling thread.
  public func route(_ p: Tensor<Self>, choice: Indices<Self>, _ k: Int) -> Routing<Self> {
    let watch = core.watch("route")
    defer { watch.stop() }
    let (n, e) = (p.rowCount, p.columnCount)
    let m = n * k
    guard choice.count == m else { trap("route: \(choice.count) choices, expected \(n)·\(k) for p \(p.shape)") }
    let (rowOfChoice, tokenOfRow, choiceOfRow) = (freshIndices(m), freshIndices(m), freshIndices(m))
    let offsets = freshIndices(e + 1)
    let (weights, ws) = fresh(Shape(m))
    let (counts, cs) = fresh(Shape(e))
    let (firstCounts, firsts) = fresh(Shape(e))
    let (ps, chosen, offset) = (rows(p), choice.storage.pointer, offsets.storage.pointer)

    offset.update(repeating: 0, count: e + 1)
    firsts.base.update(repeating: 0, count: e)
    for token in 0..<n {
      for slot in 0..<k {
        let expert = Int(chosen[token * k + slot])
        guard expert >= 0, expert < e else { trap("route: choice \(slot) of token \(token) is expert \(expert), there are \(e)") }
        for other in 0..<slot where chosen[token * k + other] == chosen[token * k + slot] {
          trap("route: token \(token) chooses expert \(expert) twice")
        }
        offset[expert + 1] += 1
        if slot == 0 { firsts.base[expert] += 1 }
      }
    }
    let next = core.pool.buffer(e, of: Int32.self)
    for j in 0..<e {
      cs.base[j] = Scalar(offset[j + 1])
      offset[j + 1] += offset[j]
      next.pointer[j] = offset[j]
    }
    for token in 0..<n {
      var sum: Scalar = 0
      for slot in 0..<k { sum += ps[token][Int(chosen[token * k + slot])] }
      for slot in 0..<k {
        let expert = Int(chosen[token * k + slot])
        let row = Int(next.pointer[expert])
        next.pointer[expert] += 1
        rowOfChoice.storage.pointer[token * k + slot] = Int32(row)
        tokenOfRow.storage.pointer[row] = Int32(token)
        choiceOfRow.storage.pointer[row] = Int32(token * k + slot)
        ws.base[row] = ps[token][expert] / sum
      }
    }
    withExtendedLifetime(next) {}
    return Routing(
      tokens: n, experts: e, expertsPerToken: k, choice: choice, rowOfChoice: rowOfChoice, tokenOfRow: tokenOfRow,
      choiceOfRow: choiceOfRow, offsets: offsets, weights: weights, counts: counts,
      firstCounts: firstCounts)
  }

  /// dlogits = w_j (dw_j − Σ_i w_i dw_i) on the chosen, plus p ⊙ (balance − ⟨balance, p⟩) on all.
  ///
  /// dw (M) in expert order, p (N,E), balance (E): the gradient of the balance loss with respect to each row of p.
  public func routerBackward(_ dw: Tensor<Self>, _ p: Tensor<Self>, _ routing: Routing<Self>, balance: Tensor<Self>) -> Tensor<Self> {
    let watch = core.watch("routerBackward")
    defer { watch.stop() }
    let (n, e, k) = (routing.tokens, routing.experts, routing.expertsPerToken)
    requireShapes(
      "routerBackward", ("dw", dw.shape, Shape(routing.rows)), ("p", p.shape, Shape(n, e)), ("balance", balance.shape, Shape(e)))
    let (dlogits, to) = fresh(Shape(n, e))
    let (dws, ps, b, w) = (rows(dw).base, rows(p), rows(balance).base, rows(routing.weights).base)
    let (row, expert) = (routing.rowOfChoice.storage.pointer, routing.choice.storage.pointer)
    forRanges(n, cost: 4 * e) { rows in
      for n in rows {
        let (p, d) = (ps[n], to[n])
        let mean = Scalar(Scalar.dot(b, p, 0..<e))
        for i in Scalar.lanes(0..<e) { d[i] = p[i] * (b[i] - mean) }
        var sum: Scalar = 0
        for slot in n * k..<(n + 1) * k { sum += w[Int(row[slot])] * dws[Int(row[slot])] }
        for slot in n * k..<(n + 1) * k {
          let m = Int(row[slot])
          d[Int(expert[slot])] += w[m] * (dws[m] - sum)
        }
      }
    }
    return dlogits
  }

  /// The row of each token once for every expert that it chose: x (N,W) → (M,W), ordered by expert.
  public func dispatch(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    let watch = core.watch("dispatch")
    defer { watch.stop() }
    requireShapes("dispatch", ("x", x.shape, Shape(routing.tokens, x.columnCount)))
    return gather(x, rows: routing.tokenOfRow)
  }

  /// Σ_k of a token's rows, times their weights when given: x (M,W), weights (M) → (N,W).
  public func combine(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> {
    let watch = core.watch("combine")
    defer { watch.stop() }
    let (n, k, width) = (routing.tokens, routing.expertsPerToken, x.columnCount)
    requireRows("combine", x, weights, routing)
    let (y, ys) = fresh(Shape(n, width))
    let (xs, w, row) = (rows(x), weights.map { rows($0).base }, routing.rowOfChoice.storage.pointer)
    forRanges(n, cost: k * width) { rows in
      for n in rows {
        let y = ys[n]
        if k == 0 { y.update(repeating: 0, count: width) }
        for slot in 0..<k {
          let m = Int(row[n * k + slot])
          let (x, weight) = (xs[m], w.map { $0[m] } ?? 1)
          if slot == 0 {
            for i in Scalar.lanes(0..<width) { y[i] = weight * x[i] }
          } else {
            for i in Scalar.lanes(0..<width) { y[i] = y[i] + weight * x[i] }
          }
        }
      }
    }
    return y
  }

  /// For each row its own expert's block of columns: x (N,E·r) → (M,r).
  public func dispatchBlocks(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    let watch = core.watch("dispatchBlocks")
    defer { watch.stop() }
    let r = blockWidth("dispatchBlocks", x.columnCount, routing)
    requireShapes("dispatchBlocks", ("x", x.shape, Shape(routing.tokens, r * routing.experts)))
    let (y, ys) = fresh(Shape(routing.rows, r))
    let (xs, k) = (rows(x), routing.expertsPerToken)
    let (choiceOfRow, expert) = (routing.choiceOfRow.storage.pointer, routing.choice.storage.pointer)
    forRanges(ys.count, cost: r + 8) { rows in
      for m in rows {
        let choice = Int(choiceOfRow[m])
        ys[m].update(from: xs[choice / k] + Int(expert[choice]) * r, count: r)
      }
    }
    return y
  }

  /// The inverse: x (M,r) into its expert's block of columns, zero elsewhere, times the weights when given → (N,E·r).
  public func combineBlocks(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> {
    let watch = core.watch("combineBlocks")
    defer { watch.stop() }
    let (n, k, r) = (routing.tokens, routing.expertsPerToken, x.columnCount)
    requireRows("combineBlocks", x, weights, routing)
    let (y, ys) = fresh(Shape(n, r * routing.experts))
    let (xs, w) = (rows(x), weights.map { rows($0).base })
    let (row, expert) = (routing.rowOfChoice.storage.pointer, routing.choice.storage.pointer)
    forRanges(n, cost: ys.width) { rows in
      for n in rows {
        ys[n].update(repeating: 0, count: ys.width)
        for choice in n * k..<(n + 1) * k {
          let m = Int(row[choice])
          let (x, y, weight) = (xs[m], ys[n] + Int(expert[choice]) * r, w.map { $0[m] } ?? 1)
          for i in Scalar.lanes(0..<r) { y[i] = weight * x[i] }
        }
      }
    }
    return y
  }

  private func requireRows(_ operation: StaticString, _ x: Tensor<Self>, _ weights: Tensor<Self>?, _ routing: Routing<Self>) {
    requireShapes(operation, ("x", x.shape, Shape(routing.rows, x.columnCount)))
    if let weights { requireShapes(operation, ("weights", weights.shape, Shape(routing.rows))) }
  }

  /// Columns of one expert's block.
  func blockWidth(_ operation: StaticString, _ columns: Int, _ routing: Routing<Self>) -> Int {
    guard routing.experts > 0, columns % routing.experts == 0 else {
      trap("\(operation): \(columns) are no blocks of \(routing.experts) experts")
    }
    return columns / routing.experts
  }
}
