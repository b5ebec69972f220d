import Tensors

extension CaseList {
  /// dispatch, combine, their forms with blocks, and the grouped products.
  mutating func addExperts() {
    for (index, sizes) in PlanSizes.all.enumerated() {
      let isEmpty = sizes.tokens == 0
      let width = [1, 3, 8, 9, 17, 33, 7, 5, 65, 9, 6, 11][index]
      add("dispatch", "\(sizes) W \(width)", isEmpty: isEmpty) { trial in
        let plan = sizes.plan(&trial.source)
        let x = trial.source.matrix(plan.tokens, width)
        try trial.expectExactly("y", trial.backend.dispatch(trial.device(x), trial.routing(plan)), Naive.dispatch(x, plan))
      }
      add("dispatchBlocks", "\(sizes) r \(width)", isEmpty: isEmpty) { trial in
        let plan = sizes.plan(&trial.source)
        let x = trial.source.matrix(plan.tokens, plan.experts * width)
        let expected = Naive.dispatchBlocks(x, plan).rows(0..<plan.pairs)
        let found = trial.backend.dispatchBlocks(trial.device(x), trial.routing(plan))
        try trial.expect("y", firstRowsOf: found, expected, 0, of: expected.magnitude)
      }
      for weighted in [false, true] {
        let suffix = weighted ? " weighted" : ""
        add("combine", "\(sizes) W \(width)\(suffix)", isEmpty: isEmpty) { trial in
          let plan = sizes.plan(&trial.source)
          let (x, w) = (trial.source.matrix(plan.pairs, width), trial.source.vector(plan.pairs))
          let found = trial.backend.combine(
            trial.device(trial.inRows(x, plan)), weights: weighted ? trial.device(trial.inRows(w, plan)) : nil, trial.routing(plan))
          let magnitude = Naive.combine(x.magnitude, weights: weighted ? w.map(abs) : nil, plan)
          try trial.expect("y", found, Naive.combine(x, weights: weighted ? w : nil, plan), sizes.k + 1, of: magnitude)
        }
        add("combineBlocks", "\(sizes) r \(width)\(suffix)", isEmpty: isEmpty) { trial in
          let plan = sizes.plan(&trial.source)
          let (x, w) = (trial.source.matrix(plan.pairs, width), trial.source.vector(plan.pairs))
          let found = trial.backend.combineBlocks(
            trial.device(trial.inRows(x, plan)), weights: weighted ? trial.device(trial.inRows(w, plan)) : nil, trial.routing(plan))
          let expected = Naive.combineBlocks(x, weights: weighted ? w : nil, plan)
          try trial.expect("y", found, expected, weighted ? 1 : 0, of: expected.magnitude)
        }
      }
      let (k, n) = [
        (1, 1), (3, 7), (8, 9), (9, 1), (17, 8), (5, 33), (7, 4), (4, 17), (17, 33), (5, 9), (9, 5), (3, 8),
      ][index]
      let factors = [(1.0, 0.0), (0.5, 1.0), (2.0, -1.0)]
      for (variant, (sideBySide, transposed)) in [(false, false), (false, true), (true, false), (true, true)].enumerated() {
        let (alpha, beta) = factors[(index + variant) % 3]
        let form = "\(sizes) (\(k),\(n)) \(sideBySide ? "columns" : "rows")\(transposed ? "ᵀ" : "") α \(alpha) β \(beta)"
        add("groupedGemm", form, isEmpty: isEmpty) { trial in
          let plan = sizes.plan(&trial.source)
          let stored = transposed ? (n, k) : (k, n)
          let stack =
            sideBySide
            ? trial.source.matrix(stored.0, plan.experts * stored.1) : trial.source.matrix(plan.experts * stored.0, stored.1)
          let a = trial.source.matrix(plan.pairs, k)
          let c0 = beta == 0 ? Matrix(plan.pairs, n, repeating: .nan) : trial.source.matrix(plan.pairs, n)
          func expert(_ e: Int) -> Matrix {
            let block = Naive.block(e, of: plan.experts, in: stack, sideBySide: sideBySide)
            return transposed ? block.transposed : block
          }
          var c = trial.writable(trial.inRows(c0, plan))
          let experts = ExpertStack(
            trial.device(stack), experts: plan.experts, along: sideBySide ? .columns : .rows, isTransposed: transposed)
          trial.backend.groupedGemm(alpha, trial.device(trial.inRows(a, plan)), experts, beta, into: &c.tensor, trial.routing(plan))
          let magnitude = Naive.groupedGemm(abs(alpha), a.magnitude, { expert($0).magnitude }, abs(beta), c0.magnitude, plan)
          let expected = Naive.groupedGemm(alpha, a, expert, beta, c0, plan)
          try trial.expect("c", firstRowsOf: c.tensor, expected, k + Roundings.factor, of: magnitude)
          try trial.expectIntact("c", c)
        }
      }
      for sideBySide in [false, true] {
        add("groupedOuter", "\(sizes) (\(k),\(n)) \(sideBySide ? "columns" : "rows")") { trial in
          let plan = sizes.plan(&trial.source)
          let (a, b) = (trial.source.matrix(plan.pairs, k), trial.source.matrix(plan.pairs, n))
          let shape = sideBySide ? (k, plan.experts * n) : (plan.experts * k, n)
          let g0 = trial.source.matrix(shape.0, shape.1)
          var g = trial.writable(g0)
          trial.backend.groupedOuter(
            0.5, trial.device(trial.inRows(a, plan)), trial.device(trial.inRows(b, plan)), into: &g.tensor,
            stackedAlong: sideBySide ? .columns : .rows, trial.routing(plan))
          let sums = Naive.groupedOuter(0.5, a.magnitude, b.magnitude, to: Matrix(shape.0, shape.1), sideBySide: sideBySide, plan)
          let magnitude = Matrix(shape.0, shape.1) { i, j in  // an expert without rows is exact
            plan.rows(of: sideBySide ? j / n : i / k).isEmpty ? 0 : sums[i, j] + abs(g0[i, j])
          }
          let expected = Naive.groupedOuter(0.5, a, b, to: g0, sideBySide: sideBySide, plan)
          try trial.expect("g", g, expected, plan.pairs + Roundings.factor, of: magnitude)
        }
      }
    }
  }
}
