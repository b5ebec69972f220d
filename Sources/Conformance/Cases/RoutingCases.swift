import Tensors

extension CaseList {
  /// choose, route, routerBackward.
  mutating func addRouting() {
    addChoices()
    for sizes in PlanSizes.all where sizes.spareRows == 0 {
      add("route", "\(sizes)") { trial in try checkRoute(&trial, sizes, sizes.choice(&trial.source)) }
    }
    for temperature in [0, 0.5, 2] {
      add("route", "N 17 E 5 top-P at temperature \(temperature)") { trial in
        let p = Naive.softmax(trial.source.matrix(17, 5, 2)).map { Double(Float($0)) }
        let policy = RoutingPolicy.topP(threshold: 0.7, temperature: temperature)
        try checkRoute(&trial, p, Naive.choose(p, policy), policy)
      }
    }
    for sizes in PlanSizes.all {
      add("routerBackward", "\(sizes)", isEmpty: sizes.tokens == 0) { trial in
        let p = Naive.softmax(trial.source.matrix(sizes.tokens, sizes.experts, 2)).map { Double(Float($0)) }
        var plan = Naive.route(p, choice: sizes.choice(&trial.source), sizes.policy)
        plan.weights = plan.weights.map { Double(Float($0)) }
        plan.spareRows = sizes.spareRows
        let (dw, balance) = (trial.source.vector(plan.pairs), trial.source.vector(sizes.experts, 0.1))
        let found = trial.backend.routerBackward(
          trial.device(trial.inRows(dw, plan)), trial.device(p), trial.routing(plan), balance: trial.device(balance))
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
      var plan = Naive.route(p, choice: Naive.choose(p, .topK(1)), .topK(1))
      plan.weights = plan.weights.map { _ in 1 }
      let found = trial.backend.routerBackward(
        trial.device(trial.source.vector(9)), trial.device(p), trial.routing(plan), balance: trial.device([Double](repeating: 0, count: 5)))
      try trial.expectExactly("dlogits", found, Matrix(9, 5))
    }
  }

  private mutating func addChoices() {
    for (n, e, k) in [(0, 4, 2), (1, 1, 1), (3, 7, 1), (5, 8, 2), (9, 4, 4), (17, 9, 3), (2, 65, 8)] {
      add("choose", "(\(n),\(e)) K \(k)", isEmpty: n == 0) { trial in
        let p = trial.source.matrix(n, e)
        try trial.expect("choice", trial.backend.choose(trial.device(p), .topK(k)), Naive.choose(p, .topK(k)))
      }
      add("choose", "(\(n),\(e)) K \(k) with many ties", isEmpty: n == 0) { trial in
        let p = Matrix(n, e, (0..<n * e).map { _ in Double(trial.source.integer(below: 3)) / 4 })
        try trial.expect("choice", trial.backend.choose(trial.device(p), .topK(k)), Naive.choose(p, .topK(k)))
      }
    }
    add("choose", "the largest, ties to the lower index, NaN last") { trial in
      let p = Matrix(3, 4, [1, 3, 3, .nan, .nan, .nan, -.infinity, .nan, 0, -.infinity, 7, .nan])
      try trial.expect("choice", trial.backend.choose(trial.device(p), .topK(3)), [1, 2, 0, 0, 1, 2, 2, 0, 1])
    }
    // Sixteenths, so that every sum is exact and thresholds can be met to the last bit.
    let p = Matrix(4, 4, [8, 4, 3, 1, 4, 4, 4, 4, 16, 0, 0, 0, 1, 3, 4, 8].map { $0 / 16 })
    let expected: [(threshold: Double, temperature: Double, choice: [Int])] = [
      (0.5, 0, [0, 1, -1, -1, 0, 1, 2, -1, 0, -1, -1, -1, 3, 2, -1, -1]),  // a sum of 0.5 does not exceed 0.5
      (0.4999, 0, [0, -1, -1, -1, 0, 1, -1, -1, 0, -1, -1, -1, 3, -1, -1, -1]),
      (0.8, 0, [0, 1, 2, -1, 0, 1, 2, 3, 0, -1, -1, -1, 3, 2, 1, -1]),
      (0, 0, [0, -1, -1, -1, 0, -1, -1, -1, 0, -1, -1, -1, 3, -1, -1, -1]),
      (1, 0, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0]),  // never exceeded: all
      (0.5, 0.5, [0, -1, -1, -1, 0, 1, -1, -1, 0, -1, -1, -1, 3, -1, -1, -1]),  // of p / 0.5
      (0.5, 4, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0]),
    ]
    for (threshold, temperature, choice) in expected {
      add("choose", "(4,4) P \(threshold) at temperature \(temperature)") { trial in
        let policy = RoutingPolicy.topP(threshold: threshold, temperature: temperature)
        trial.expect(Naive.choose(p, policy) == choice, "the definition chooses \(Naive.choose(p, policy)), expected \(choice)")
        try trial.expect("choice", trial.backend.choose(trial.device(p), policy), choice)
      }
    }
    for (n, e) in [(0, 4), (1, 1), (5, 8), (17, 9), (2, 65)] {
      add("choose", "(\(n),\(e)) P 0.8", isEmpty: n == 0) { trial in
        let policy = RoutingPolicy.topP(threshold: 0.8, temperature: 0)
        // Multiples of 1/1024 that are never 0.8 in sum: no backend's rounding decides.
        let p = Matrix(n, e) { _, _ in Double(trial.source.integer(below: 2048 / e)) / 1024 }
        try trial.expect("choice", trial.backend.choose(trial.device(p), policy), Naive.choose(p, policy))
      }
    }
    for policy in [RoutingPolicy.topK(3), .topP(threshold: 0.5, temperature: 0)] {
      add("choose", "\(policy) of a row of NaN gives experts that exist, each once", [.contiguous]) { trial in
        let found = trial.backend.choose(trial.device(Matrix(2, 5, repeating: .nan)), policy)
        let choice = try trial.backend.download(found).map { Int($0) }
        let s = policy.slots(of: 5)
        trial.expect(choice.count == 2 * s && choice.allSatisfy { $0 >= 0 && $0 < 5 }, "the choice is \(choice)")
        trial.expect(choice.count == 2 * s && Set(choice[..<s]).count == s, "an expert is chosen twice: \(choice)")
      }
    }
  }
}

private func checkRoute<B: Backend>(_ trial: inout Trial<B>, _ sizes: PlanSizes, _ choice: [Int]) throws {
  let p = Naive.softmax(trial.source.matrix(sizes.tokens, sizes.experts, 2)).map { Double(Float($0)) }
  try checkRoute(&trial, p, choice, sizes.policy)
}

/// Every list of the plan. A backend that does not know the number of pairs has spare rows behind them.
private func checkRoute<B: Backend>(_ trial: inout Trial<B>, _ p: Matrix, _ choice: [Int], _ policy: RoutingPolicy) throws {
  let plan = Naive.route(p, choice: choice, policy)
  let found = trial.backend.route(trial.device(p), choice: trial.device(choice), policy)
  let shape = (found.tokens, found.experts, found.slots)
  trial.expect(shape == (p.rows, p.columns, plan.slots), "N, E, S are \(shape), expected (\(p.rows), \(p.columns), \(plan.slots))")
  trial.expect(found.policy == policy, "the plan's policy is \(found.policy)")
  guard found.rows >= plan.pairs, found.rows <= max(plan.pairs, p.rows * plan.slots), found.tokenOfRow.count == found.rows,
    found.slotOfRow.count == found.rows, found.weights.shape == Shape(found.rows)
  else {
    return trial.expect(false, "\(found.rows) rows for \(plan.pairs) pairs, lists of \(found.tokenOfRow.count), \(found.weights.shape)")
  }
  try trial.expect("choice", found.choice, plan.choice)
  try trial.expect("rowOfSlot", found.rowOfSlot, plan.rowOfSlot)
  try trial.expect("tokenOfRow", found.tokenOfRow[0..<plan.pairs], plan.tokenOfRow)
  try trial.expect("slotOfRow", found.slotOfRow[0..<plan.pairs], plan.slotOfRow)
  try trial.expect("offsets", found.offsets, plan.offsets)
  try trial.expect("weights", found.weights.columns(0..<plan.pairs), plan.weights, plan.slots + 2, of: plan.weights)
  try trial.expectExactly("counts", found.counts, (0..<p.columns).map { Double(plan.rows(of: $0).count) })
  try trial.expectExactly("firstCounts", found.firstCounts, plan.firstCounts)
}

/// Of top-K w_j (|dw_j| + Σ w|dw|) on the chosen, of top-P w_j |dw_j| on the chosen and p Σ w|dw| on all; p (|balance| + Σ p|balance|).
private func routerMagnitude(_ dw: [Double], _ p: Matrix, _ plan: Naive.Plan, _ balance: [Double]) -> Matrix {
  var magnitude = Matrix(p.rows, p.columns)
  for n in 0..<p.rows {
    let rows = plan.rows(ofToken: n)
    var (meanBalance, meanSlope) = (0.0, 0.0)
    for e in 0..<p.columns { meanBalance += p[n, e] * abs(balance[e]) }
    for m in rows { meanSlope += plan.weights[m] * abs(dw[m]) }
    for e in 0..<p.columns {
      magnitude[n, e] = p[n, e] * (abs(balance[e]) + meanBalance)
      if case .topP = plan.policy { magnitude[n, e] += p[n, e] * meanSlope }
    }
    for m in rows { magnitude[n, plan.expert(ofRow: m)] += plan.weights[m] * (abs(dw[m]) + meanSlope) }
  }
  return magnitude
}
