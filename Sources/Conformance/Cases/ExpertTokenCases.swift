import Tensors

extension CaseList {
  /// What experts make of tokens, and their tokens of them: products by expert, and their gradients.
  mutating func addExpertTokens() {
    for (index, sizes) in PlanSizes.all.enumerated() {
      let isEmpty = sizes.tokens == 0
      let (k, n) = [
        (1, 1), (3, 7), (8, 9), (9, 1), (17, 8), (5, 33), (7, 4), (4, 17), (17, 70), (5, 9), (9, 5), (3, 8),
      ][index]
      for (isTransposed, isWeighted) in [(false, true), (true, false)] {
        let form = "\(sizes) (\(k),\(n))\(isTransposed ? "ᵀ" : "")"
        add("expertProduct", form, isEmpty: isEmpty) { trial in
          let plan = sizes.plan(&trial.source)
          let x = trial.source.matrix(plan.tokens, k)
          let (stack, expert) = trial.stack(plan, k, n, along: .columns, isTransposed: isTransposed)
          let found = trial.backend.expertProduct(0.5, trial.device(x), stack, trial.routing(plan))
          let magnitude = Naive.expertProduct(0.5, x.magnitude, { expert($0).magnitude }, plan).rows(0..<plan.pairs)
          let expected = Naive.expertProduct(0.5, x, expert, plan).rows(0..<plan.pairs)
          try trial.expect("y", firstRowsOf: found, expected, k + Roundings.factor, of: magnitude)
        }
        add("addExpertProducts", form + (isWeighted ? " weighted" : ""), isEmpty: isEmpty) { trial in
          let plan = sizes.plan(&trial.source)
          let (t, w) = (trial.source.matrix(plan.pairs, k), trial.source.vector(plan.pairs))
          let (stack, expert) = trial.stack(plan, k, n, along: .rows, isTransposed: isTransposed)
          let y0 = trial.source.matrix(plan.tokens + 3, n)  // a row before, two behind
          let rows = 1..<1 + plan.tokens
          var y = trial.writable(y0)
          trial.backend.addExpertProducts(
            0.5, trial.device(trial.inRows(t, plan)), weights: isWeighted ? trial.device(trial.inRows(w, plan)) : nil, stack,
            into: &y.tensor, rows: rows, trial.routing(plan))
          let weights = isWeighted ? w : nil
          let sums = Naive.expertProducts(0.5, t, weights: weights, expert, to: y0.rows(rows), plan)
          let sizes = Naive.expertProducts(
            0.5, t.magnitude, weights: weights?.map(abs), { expert($0).magnitude }, to: y0.rows(rows).magnitude, plan)
          let expected = Matrix(y0.rows, n) { i, j in rows.contains(i) ? sums[i - 1, j] : y0[i, j] }
          let magnitude = Matrix(y0.rows, n) { i, j in
            rows.contains(i) && !plan.rows(ofToken: i - 1).isEmpty ? sizes[i - 1, j] : 0  // a token without an expert is exact
          }
          try trial.expect("y", y, expected, k + plan.slots + 2 + Roundings.factor, of: magnitude)
        }
      }
      for isFirst in [true, false] {  // whether dx is nil so far
        add("addExpertGradients", "\(sizes) (\(k),\(n))\(isFirst ? "" : " added")") { trial in
          let plan = sizes.plan(&trial.source)
          let (dt, x) = (trial.source.matrix(plan.pairs, k), trial.source.matrix(plan.tokens, n))
          let (stack, expert) = trial.stack(plan, k, n, along: .rows, isTransposed: false)
          let (g0, dx0) = (trial.source.matrix(plan.experts * k, n), trial.source.matrix(plan.tokens, n))
          var (g, dx) = (trial.writable(g0), isFirst ? nil : trial.device(dx0))
          trial.backend.addExpertGradients(
            trial.device(trial.inRows(dt, plan)), trial.device(x), stack, into: &g.tensor, &dx, trial.routing(plan))
          let outer = Naive.expertOuter(
            1, dt.magnitude, weights: nil, x.magnitude, to: g0.magnitude, sideBySide: false, plan)
          let magnitude = Matrix(g0.rows, g0.columns) { i, j in plan.rows(of: i / k).isEmpty ? 0 : outer[i, j] }
          let expected = Naive.expertOuter(1, dt, weights: nil, x, to: g0, sideBySide: false, plan)
          try trial.expect("g", g, expected, plan.pairs + 1 + Roundings.factor, of: magnitude)
          let start = isFirst ? Matrix(plan.tokens, n) : dx0
          let sums = Naive.expertProducts(1, dt.magnitude, weights: nil, { expert($0).magnitude }, to: start.magnitude, plan)
          try trial.expect(
            "dx", dx ?? trial.device(Matrix(0, 0)), Naive.expertProducts(1, dt, weights: nil, expert, to: start, plan),
            k + plan.slots + 2 + Roundings.factor, of: sums)
        }
      }
      for (sideBySide, isWeighted) in [(false, false), (true, true)] {
        let form = "\(sizes) (\(k),\(n)) \(sideBySide ? "columns" : "rows")\(isWeighted ? " weighted" : "")"
        add("addExpertOuter", form) { trial in
          let plan = sizes.plan(&trial.source)
          let (t, x) = (trial.source.matrix(plan.pairs, k), trial.source.matrix(plan.tokens, n))
          let w = trial.source.vector(plan.pairs)
          let g0 = sideBySide ? trial.source.matrix(n, plan.experts * k) : trial.source.matrix(plan.experts * k, n)
          var g = trial.writable(g0)
          trial.backend.addExpertOuter(
            0.5, trial.device(trial.inRows(t, plan)), weights: isWeighted ? trial.device(trial.inRows(w, plan)) : nil, trial.device(x),
            into: &g.tensor, stackedAlong: sideBySide ? .columns : .rows, trial.routing(plan))
          let weights = isWeighted ? w : nil
          let sums = Naive.expertOuter(
            0.5, t.magnitude, weights: weights?.map(abs), x.magnitude, to: Matrix(g0.rows, g0.columns), sideBySide: sideBySide, plan)
          let magnitude = Matrix(g0.rows, g0.columns) { i, j in  // an expert without rows is exact
            plan.rows(of: (sideBySide ? j : i) / k).isEmpty ? 0 : sums[i, j] + abs(g0[i, j])
          }
          let expected = Naive.expertOuter(0.5, t, weights: weights, x, to: g0, sideBySide: sideBySide, plan)
          try trial.expect("g", g, expected, plan.pairs + 1 + Roundings.factor, of: magnitude)
        }
      }
    }
  }
}

extension Trial {
  /// E random matrices (k,n), joined along `direction`: stored so, or transposed along the other axis.
  fileprivate mutating func stack(_ plan: Naive.Plan, _ k: Int, _ n: Int, along direction: StackAxis, isTransposed: Bool) -> (
    onDevice: ExpertStack<B>, expert: (_ e: Int) -> Matrix
  ) {
    let (rows, columns) = isTransposed ? (n, k) : (k, n)
    let sideBySide = (direction == .columns) != isTransposed
    let e = plan.experts
    let stored = sideBySide ? source.matrix(rows, e * columns) : source.matrix(e * rows, columns)
    let stack = ExpertStack(device(stored), experts: e, along: sideBySide ? .columns : .rows, isTransposed: isTransposed)
    return (
      stack,
      { expert in
        let block = Naive.block(expert, of: e, in: stored, sideBySide: sideBySide)
        return isTransposed ? block.transposed : block
      }
    )
  }
}
