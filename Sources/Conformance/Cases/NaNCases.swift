import Tensors

extension CaseList {
  /// No operation hides a NaN, and none spreads it further than its definition does.
  mutating func addNaN() {
    addNaN("add, scale, addBias, scaleRows") { trial in
      let (x, y, bias) = (trial.spoiled(3, 9), trial.source.matrix(3, 9), trial.source.vector(9))
      var result = trial.writable(y)
      trial.backend.add(2, trial.device(x), into: &result.tensor)
      try trial.expectNaN("y", result.tensor, where: Naive.add(2, x, to: y))
      for alpha in [2, 0.0] {  // 0 · NaN is NaN: zeros come from `fill`
        result = trial.writable(x)
        trial.backend.scale(alpha, &result.tensor)
        try trial.expectNaN("\(alpha) x", result.tensor, where: Naive.scale(alpha, x))
      }
      result = trial.writable(x)
      trial.backend.addBias(trial.device(bias), into: &result.tensor)
      try trial.expectNaN("x + bias", result.tensor, where: Naive.addBias(bias, to: x))
      result = trial.writable(y)
      trial.backend.scaleRows(trial.device([1, .nan, 2]), &result.tensor)
      try trial.expectNaN("w y", result.tensor, where: Naive.scaleRows([1, .nan, 2], y))
    }
    addNaN("addColumnSums, sum, dot, rowDots") { trial in
      let (x, y, sums) = (trial.spoiled(3, 9), trial.source.matrix(3, 9), trial.source.vector(9))
      var result = trial.writable(sums)
      trial.backend.addColumnSums(trial.device(x), weights: nil, into: &result.tensor)
      try trial.expectNaN("sums", result.tensor, where: Naive.addColumnSums(x, weights: nil, to: sums))
      try trial.expectNaN("Σ", trial.backend.sum(trial.device(x)), where: [.nan])
      try trial.expectNaN("Σ x y", trial.backend.dot(trial.device(y), trial.device(x)), where: [.nan])
      try trial.expectNaN("⟨x, y⟩", trial.backend.rowDots(trial.device(x), trial.device(y)), where: Naive.rowDots(x, y))
    }
    addNaN("gemm") { trial in
      let (a, b, c) = (trial.source.matrix(5, 9), trial.source.matrix(9, 7), trial.source.matrix(5, 7))
      let (badA, badB, badC) = (trial.spoiled(5, 9), trial.spoiled(9, 7), trial.spoiled(5, 7))
      for (a, b, c) in [(badA, b, c), (a, badB, c), (a, b, badC), (Matrix(5, 9), badB, c)] {  // 0 · NaN is NaN
        var result = trial.writable(c)
        trial.backend.gemm(1, trial.operand(a, transposed: false), trial.operand(b, transposed: true), 1, into: &result.tensor, rows: nil)
        try trial.expectNaN("c", result.tensor, where: Naive.gemm(1, a, b, 1, c))
      }
    }
    addNaN("rmsNorm and its gradients") { trial in
      let (x, w, dy) = (trial.spoiled(3, 9), trial.source.vector(9), trial.source.matrix(3, 9))
      let expected = Naive.rmsNorm(x, w, offset: 1, epsilon: 1e-5)
      let found = trial.backend.rmsNorm(trial.device(x), trial.device(w), offset: 1, epsilon: 1e-5)
      try trial.expectNaN("y", found.y, where: expected.y)
      try trial.expectNaN("rho", found.rho, where: expected.rho)
      var dx = trial.writable(Matrix(3, 9))
      let rho = trial.device(expected.rho)
      trial.backend.rmsNormBackward(trial.device(dy), trial.device(x), trial.device(w), offset: 1, rho: rho, into: &dx.tensor)
      try trial.expectNaN("dx", dx.tensor, where: Naive.rmsNormBackward(dy, x, w, offset: 1, rho: expected.rho))
      var dw = trial.writable(w)
      trial.backend.rmsNormWeightGradient(trial.device(dy), trial.device(x), rho: rho, into: &dw.tensor)
      try trial.expectNaN("dweight", dw.tensor, where: Naive.rmsNormWeightGradient(dy, x, rho: expected.rho))
    }
    addNaN("rope") { trial in
      let (x, table) = (trial.spoiled(3, 8), Naive.ropeTable(positions: 3, headWidth: 4))
      var result = trial.writable(x)
      trial.backend.rope(&result.tensor, positions: trial.device([0, 1, 2]), table: trial.device(table), inverse: false)
      try trial.expectNaN("x", result.tensor, where: Naive.rope(x, positions: [0, 1, 2], table: table))
    }
    for cap in [nil, 1.5] {
      addNaN("attention and its backward\(cap.map { ", cap \($0)" } ?? "")") { trial in
        let form = AttentionForm(heads: 2, keyValueHeads: 1, headWidth: 4, scale: 0.5, softcap: cap)
        let sequences = Naive.Sequences([0, 3, 7])
        let plan = trial.device(sequences)
        let (q, k, v) = (trial.source.matrix(7, 8), trial.source.matrix(7, 4), trial.source.matrix(7, 4))
        let clean = Naive.attention(q, k, v, sequences, form)
        var (badK, badV) = (k, v)
        (badK[3, 1], badV[3, 1]) = (.nan, .nan)  // the first row of a sequence, which all of it sees
        for (q, k, v) in [(trial.spoiled(7, 8), k, v), (q, badK, v), (q, k, badV)] {
          let found = trial.backend.attention(trial.device(q), trial.device(k), trial.device(v), plan, form)
          let expected = Naive.attention(q, k, v, sequences, form)
          try trial.expectNaN("output", found.output, where: expected.output)
          try trial.expectNaN("logSumExp", found.logSumExp, where: expected.logSumExp)
        }
        var bad = trial.source.matrix(7, 8)
        bad[6, 5] = .nan  // the last row of a sequence, which sees all of it
        let found = trial.backend.attentionBackward(
          trial.device(bad), trial.device(q), trial.device(k), trial.device(v), output: trial.device(clean.output),
          logSumExp: trial.device(clean.logSumExp), plan, form)
        let expected = Naive.attentionBackward(bad, q, k, v, sequences, form)
        try trial.expectNaN("dq", found.dq, where: expected.dq)
        try trial.expectNaN("dk", found.dk, where: expected.dk)
        try trial.expectNaN("dv", found.dv, where: expected.dv)
      }
    }
    for activation in Activation.allCases {
      addNaN("gated and its backward, \(activation.rawValue)") { trial in
        for (a, c, dh) in [
          (trial.spoiled(3, 9), trial.source.matrix(3, 9), trial.source.matrix(3, 9)),
          (trial.source.matrix(3, 9), trial.spoiled(3, 9), trial.source.matrix(3, 9)),
          (trial.source.matrix(3, 9), trial.source.matrix(3, 9), trial.spoiled(3, 9)),
        ] {
          try trial.expectNaN("h", trial.backend.gated(activation, trial.device(a), trial.device(c)), where: Naive.gated(activation, a, c))
          let found = trial.backend.gatedBackward(activation, trial.device(dh), trial.device(a), trial.device(c))
          let expected = Naive.gatedBackward(activation, dh, a, c)
          try trial.expectNaN("da", found.da, where: expected.da)
          try trial.expectNaN("dc", found.dc, where: expected.dc)
        }
      }
    }
    addNaN("embedding, its gradient, gather, addScattered, copy by rows") { trial in
      let (x, y, rows) = (trial.spoiled(5, 9), trial.source.matrix(5, 9), [3, 2, 0])
      try trial.expectNaN("rows", trial.backend.embedding(trial.device(rows), trial.device(x).operand), where: Naive.embedding(rows, x))
      try trial.expectNaN("gathered", trial.backend.gather(trial.device(x), rows: trial.device(rows)), where: Naive.gather(x, rows: rows))
      let dy = trial.spoiled(3, 9)
      var result = trial.writable(y)
      trial.backend.addEmbeddingGradient(2, trial.device(dy), trial.device([1, 4, 1]), into: &result.tensor)
      try trial.expectNaN("dtable", result.tensor, where: Naive.addEmbeddingGradient(2, dy, [1, 4, 1], to: y))
      result = trial.writable(y)
      trial.backend.addScattered(trial.device(dy), rows: trial.device(rows), into: &result.tensor)
      try trial.expectNaN("scattered", result.tensor, where: Naive.addScattered(dy, rows: rows, to: y))
      result = trial.writable(y)
      trial.backend.copy(trial.device(dy), into: &result.tensor, rows: trial.device(rows))
      try trial.expectNaN("copied", result.tensor, where: Naive.copy(dy, rows: rows, to: y))
    }
    addNaN("softmax, softcap, crossEntropy") { trial in
      for bad in [0, 1, 8] {  // the first element is where a search for the largest begins
        var x = trial.source.matrix(3, 9)
        x[1, bad] = .nan
        try trial.expectNaN("p", trial.backend.softmax(trial.device(x)), where: Naive.softmax(x))
        for cap in [nil, 1.5] {
          var logits = trial.writable(x)
          let loss = trial.backend.crossEntropy(&logits.tensor, labels: trial.device([0, 3, 8]), scale: 0.5, softcap: cap)
          let expected = Naive.crossEntropy(x, labels: [0, 3, 8], scale: 0.5, softcap: cap)
          try trial.expectNaN("loss", loss, where: expected.loss)
          try trial.expectNaN("gradient", logits.tensor, where: expected.gradient)
        }
        var z = trial.writable(x)
        trial.backend.softcap(1.5, &z.tensor)
        try trial.expectNaN("z", z.tensor, where: Naive.softcap(1.5, x))
      }
    }
    addNaN("dropout where it keeps") { trial in
      let x = trial.spoiled(3, 9)
      let rows = RowIdentity(samples: trial.device([0, 1, 2]), positions: trial.device([5, 6, 7]), step: 1)
      let key = RandomKey(seed: 2)
      try trial.expectNaN("y", trial.backend.dropout(trial.device(x), 0, key, rows), where: x)
      let all = Matrix(3, 9, repeating: .nan)
      let mask = Naive.dropoutMask(9, 0.5, key, samples: [0, 1, 2], positions: [5, 6, 7], step: 1)
      try trial.expectNaN("y", trial.backend.dropout(trial.device(all), 0.5, key, rows), where: Naive.dropout(all, mask: mask))
    }
    for policy in [RoutingPolicy.topK(2), .topP(threshold: 0.5, temperature: 0)] {
      addNaN("route, routerBackward, \(policy)") { trial in
        let e = 5
        var p = Naive.softmax(trial.source.matrix(3, e))
        let choice = policy.slots(of: e) == 2 ? [0, 2, 4, 1, 3, 0] : [0, 2, -1, -1, -1, 4, 1, 3, -1, -1, 3, -1, -1, -1, -1]
        for j in 0..<e { p[1, j] = .nan }
        let plan = Naive.route(p, choice: choice, policy)
        let (dw, balance) = (trial.source.vector(plan.pairs), trial.source.vector(e))
        let found = trial.backend.route(trial.device(p), choice: trial.device(choice), policy)
        try trial.expectNaN("weights", found.weights.columns(0..<plan.pairs), where: plan.weights)
        let dlogits = trial.backend.routerBackward(trial.device(dw), trial.device(p), trial.routing(plan), balance: trial.device(balance))
        try trial.expectNaN("dlogits", dlogits, where: Naive.routerBackward(dw, p, plan, balance: balance))
      }
    }
    addNaN("dispatch, combine and their blocks") { trial in
      let plan = PlanSizes(tokens: 5, experts: 4, k: 2, choices: .random).plan(&trial.source)
      let routing = trial.routing(plan)
      let (x, blocks, w) = (trial.spoiled(5, 9), trial.spoiled(5, 12), trial.source.vector(10))
      try trial.expectNaN("dispatched", trial.backend.dispatch(trial.device(x), routing), where: Naive.dispatch(x, plan))
      try trial.expectNaN("blocks", trial.backend.dispatchBlocks(trial.device(blocks), routing), where: Naive.dispatchBlocks(blocks, plan))
      let rows = trial.spoiled(10, 9)
      let combined = trial.backend.combine(trial.device(rows), weights: nil, routing)
      try trial.expectNaN("combined", combined, where: Naive.combine(rows, weights: nil, plan))
      try trial.expectNaN(
        "combined blocks", trial.backend.combineBlocks(trial.device(rows), weights: trial.device(w), routing),
        where: Naive.combineBlocks(rows, weights: w, plan))
    }
    addNaN("groupedGemm, groupedOuter") { trial in
      let plan = PlanSizes(tokens: 5, experts: 4, k: 2, choices: .random).plan(&trial.source)
      let (a, b, stack) = (trial.spoiled(10, 3), trial.source.matrix(10, 7), trial.source.matrix(12, 7))
      var c = trial.writable(Matrix(10, 7))
      trial.backend.groupedGemm(
        1, trial.device(a), ExpertStack(trial.device(stack), experts: 4, along: .rows), 0, into: &c.tensor, trial.routing(plan))
      let expert = { (e: Int) in Naive.block(e, of: 4, in: stack, sideBySide: false) }
      try trial.expectNaN("c", c.tensor, where: Naive.groupedGemm(1, a, expert, 0, Matrix(10, 7), plan))
      var g = trial.writable(stack)
      trial.backend.groupedOuter(1, trial.device(a), trial.device(b), into: &g.tensor, stackedAlong: .rows, trial.routing(plan))
      try trial.expectNaN("g", g.tensor, where: Naive.groupedOuter(1, a, b, to: stack, sideBySide: false, plan))
    }
    addNaN("adamW, sgd") { trial in
      let (x0, g) = (trial.source.vector(27), trial.spoiled(3, 9).values)
      let zeros = [Double](repeating: 0, count: 27)
      var (x, m, v) = (trial.writable(x0), trial.writable(zeros), trial.writable(zeros))
      let settings = AdamWSettings(learningRate: 0.1, weightDecay: 0, step: 1)
      trial.backend.adamW(&x.tensor, gradient: trial.device(g), factor: nil, &m.tensor, &v.tensor, settings, range: nil)
      for (name, tensor) in [("x", x.tensor), ("m", m.tensor), ("v", v.tensor)] { try trial.expectNaN(name, tensor, where: g) }
      var (y, b) = (trial.writable(x0), trial.writable(zeros))
      let descent = SGDSettings(learningRate: 0.1, weightDecay: 0.1, momentum: 0.5)
      trial.backend.sgd(&y.tensor, gradient: trial.device(g), factor: nil, momentum: &b.tensor, descent, range: nil)
      for (name, tensor) in [("x", y.tensor), ("b", b.tensor)] { try trial.expectNaN(name, tensor, where: g) }
    }
  }

  private mutating func addNaN(_ operations: String, _ body: @escaping (inout Trial<B>) throws -> Void) {
    add("NaN", "through \(operations)", expectsNaN: true, body)
  }
}

extension Trial {
  /// A random matrix with one NaN, in its second to last row.
  fileprivate mutating func spoiled(_ rows: Int, _ columns: Int) -> Matrix {
    var m = source.matrix(rows, columns)
    m[rows - 2, source.integer(below: columns)] = .nan
    return m
  }
}
