import Tensors

extension CaseList {
  /// topK, route, routerBackward.
  mutating func addRouting() {
    for (n, e, k) in [(0, 4, 2), (1, 1, 1), (3, 7, 1), (5, 8, 2), (9, 4, 4), (17, 9, 3), (2, 65, 8)] {
      add("topK", "(\(n),\(e)) K \(k)", isEmpty: n == 0) { trial in
        let p = trial.source.matrix(n, e)
        try trial.expect("choice", trial.backend.topK(trial.device(p), k), Naive.topK(p, k))
      }
      add("topK", "(\(n),\(e)) K \(k) with many ties", isEmpty: n == 0) { trial in
        let p = Matrix(n, e, (0..<n * e).map { _ in Double(trial.source.integer(below: 3)) / 4 })
        try trial.expect("choice", trial.backend.topK(trial.device(p), k), Naive.topK(p, k))
      }
    }
    add("topK", "a row of NaN gives experts that exist, each once", [.contiguous]) { trial in
      let choice = try trial.backend.download(trial.backend.topK(trial.device(Matrix(2, 5, repeating: .nan)), 3)).map { Int($0) }
      trial.expect(choice.count == 6 && choice.allSatisfy { $0 >= 0 && $0 < 5 }, "the choice is \(choice)")
      trial.expect(choice.count == 6 && Set(choice[..<3]).count == 3, "an expert is chosen twice: \(choice)")
    }
    for sizes in PlanSizes.all {
      add("route", "\(sizes)") { trial in
        let p = Naive.softmax(trial.source.matrix(sizes.tokens, sizes.experts, 2)).map { Double(Float($0)) }
        let plan = Naive.route(p, choice: sizes.choice(&trial.source), sizes.k)
        let found = trial.backend.route(trial.device(p), choice: trial.device(plan.choice), sizes.k)
        let shape = (found.tokens, found.experts, found.expertsPerToken)
        trial.expect(shape == (sizes.tokens, sizes.experts, sizes.k), "N, E, K are \(shape), expected \(sizes)")
        try trial.expect("choice", found.choice, plan.choice)
        try trial.expect("rowOfChoice", found.rowOfChoice, plan.rowOfChoice)
        try trial.expect("tokenOfRow", found.tokenOfRow, plan.tokenOfRow)
        try trial.expect("choiceOfRow", found.choiceOfRow, plan.choiceOfRow)
        try trial.expect("offsets", found.offsets, plan.offsets)
        try trial.expect("weights", found.weights, plan.weights, sizes.k + 2, of: plan.weights)
        try trial.expectExactly("counts", found.counts, (0..<sizes.experts).map { Double(plan.rows(of: $0).count) })
        try trial.expectExactly("firstCounts", found.firstCounts, plan.firstCounts)
      }
      add("routerBackward", "\(sizes)", isEmpty: sizes.tokens == 0) { trial in
        let p = Naive.softmax(trial.source.matrix(sizes.tokens, sizes.experts, 2)).map { Double(Float($0)) }
        var plan = Naive.route(p, choice: sizes.choice(&trial.source), sizes.k)
        plan.weights = plan.weights.map { Double(Float($0)) }
        let (dw, balance) = (trial.source.vector(plan.rows), trial.source.vector(sizes.experts, 0.1))
        let found = trial.backend.routerBackward(
          trial.device(dw), trial.device(p), trial.routing(plan), balance: trial.device(balance))
        let magnitude = routerMagnitude(dw, p, plan, balance)
        // p is rounded to float32 on its way in, so that Σp = 1 + E·2⁻²⁴ and the full softmax cancels to that much only
        let bound = magnitude.map {
          trial.tolerance.bound(Double(sizes.experts + 2 * sizes.k + 8), of: $0) + $0 * Double(sizes.experts + sizes.k + 2) * 0x1p-24
        }
        try trial.expect("dlogits", found, Naive.routerBackward(dw, p, plan, balance: balance), within: bound)
      }
    }
    add("routerBackward", "K = 1 without balance is exactly zero") { trial in
      let p = Naive.softmax(trial.source.matrix(9, 5, 2))
      var plan = Naive.route(p, choice: Naive.topK(p, 1), 1)
      plan.weights = plan.weights.map { _ in 1 }
      let found = trial.backend.routerBackward(
        trial.device(trial.source.vector(9)), trial.device(p), trial.routing(plan), balance: trial.device([Double](repeating: 0, count: 5)))
      try trial.expectExactly("dlogits", found, Matrix(9, 5))
    }
  }
}

/// w_j (|dw_j| + Σ w|dw|) on the chosen, plus p (|balance| + Σ p|balance|).
private func routerMagnitude(_ dw: [Double], _ p: Matrix, _ plan: Naive.Plan, _ balance: [Double]) -> Matrix {
  var magnitude = Matrix(p.rows, p.columns)
  for n in 0..<p.rows {
    var meanBalance = 0.0
    for e in 0..<p.columns { meanBalance += p[n, e] * abs(balance[e]) }
    for e in 0..<p.columns { magnitude[n, e] = p[n, e] * (abs(balance[e]) + meanBalance) }
    let rows = (0..<plan.expertsPerToken).map { plan.rowOfChoice[n * plan.expertsPerToken + $0] }
    var meanSlope = 0.0
    for m in rows { meanSlope += plan.weights[m] * abs(dw[m]) }
    for m in rows { magnitude[n, plan.expert(ofRow: m)] += plan.weights[m] * (abs(dw[m]) + meanSlope) }
  }
  return magnitude
}
