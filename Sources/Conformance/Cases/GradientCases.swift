import Tensors

extension CaseList {
  /// Every operation with a derivative, that of linear ones being their transpose.
  mutating func addGradients() {
    addLayerGradients()
    addLinearGradients()
    addExpertGradients()
  }

  private mutating func addLayerGradients() {
    for offset in [0, 1.0] {
      addGradient("rmsNorm", "(5,9) offset \(offset)") { trial in
        let (x, w, dy) = (trial.source.matrix(5, 9), trial.source.vector(9), trial.source.matrix(5, 9))
        let (b, dyOnDevice) = (trial.backend, trial.device(dy))
        let rho = b.rmsNorm(trial.device(x), trial.device(w), offset: offset, epsilon: 1e-5).rho
        var dx = b.zeros(Shape(5, 9))
        b.rmsNormBackward(dyOnDevice, trial.device(x), trial.device(w), offset: offset, rho: rho, into: &dx)
        try trial.expectGradient("dx", dx, at: x) { Naive.dot(dy, Naive.rmsNorm($0, w, offset: offset, epsilon: 1e-5).y) }
        var dw = b.zeros(Shape(9))
        b.rmsNormWeightGradient(dyOnDevice, trial.device(x), rho: rho, into: &dw)
        try trial.expectGradient("dweight", dw, at: w) { Naive.dot(dy, Naive.rmsNorm(x, $0, offset: offset, epsilon: 1e-5).y) }
      }
    }
    addGradient("rope", "N 5 H 2 D 6") { trial in
      let (x, dy, positions) = (trial.source.matrix(5, 12), trial.source.matrix(5, 12), [3, 0, 1, 7, 2])
      let table = Naive.ropeTable(positions: 8, headWidth: 6)
      var dx = trial.device(dy)
      trial.backend.rope(&dx, positions: trial.device(positions), table: trial.device(table), inverse: true)
      try trial.expectGradient("dx", dx, at: x) { Naive.dot(dy, Naive.rope($0, positions: positions, table: table)) }
    }
    let forms: [(heads: Int, groups: Int, offsets: [Int], window: Int?, cap: Double?)] = [
      (4, 2, [0, 3, 3, 4, 9], nil, nil), (1, 1, [0, 5], nil, nil), (3, 1, [0, 6], 2, nil), (2, 1, [0, 4, 9], nil, 1.5),
      (3, 1, [0, 6], 3, 0.75),
    ]
    for (heads, groups, offsets, window, cap) in forms {
      let rules = "\(window.map { " window \($0)" } ?? "")\(cap.map { " cap \($0)" } ?? "")"
      addGradient("attention", "H \(heads) G \(groups) D 5 offsets \(offsets)\(rules)") { trial in
        let (n, sequences) = (offsets[offsets.count - 1], Naive.Sequences(offsets))
        let form = AttentionForm(heads: heads, keyValueHeads: groups, headWidth: 5, scale: 0.4375, window: window, softcap: cap)
        let plan = trial.device(sequences)
        let (q, dy) = (trial.source.matrix(n, heads * 5, 1.5), trial.source.matrix(n, heads * 5))
        let (k, v) = (trial.source.matrix(n, groups * 5, 1.5), trial.source.matrix(n, groups * 5))
        let (dq, dk, dv) = (trial.device(q), trial.device(k), trial.device(v))
        let (output, logSumExp) = trial.backend.attention(dq, dk, dv, plan, form)
        let found = trial.backend.attentionBackward(trial.device(dy), dq, dk, dv, output: output, logSumExp: logSumExp, plan, form)
        try trial.expectGradient("dq", found.dq, at: q) { Naive.dot(dy, Naive.attention($0, k, v, sequences, form).output) }
        try trial.expectGradient("dk", found.dk, at: k) { Naive.dot(dy, Naive.attention(q, $0, v, sequences, form).output) }
        try trial.expectGradient("dv", found.dv, at: v) { Naive.dot(dy, Naive.attention(q, k, $0, sequences, form).output) }
      }
    }
    for activation in Activation.allCases {
      addGradient("gated", "\(activation.rawValue) (5,9)") { trial in
        let (a, c, dh) = (trial.source.matrix(5, 9, 4), trial.source.matrix(5, 9), trial.source.matrix(5, 9))
        let (da, dc) = trial.backend.gatedBackward(activation, trial.device(dh), trial.device(a), trial.device(c))
        try trial.expectGradient("da", da, at: a) { Naive.dot(dh, Naive.gated(activation, $0, c)) }
        try trial.expectGradient("dc", dc, at: c) { Naive.dot(dh, Naive.gated(activation, a, $0)) }
      }
    }
    for cap in [nil, 1.5] {
      addGradient("crossEntropy", "(5,9)\(cap.map { " cap \($0)" } ?? "")") { trial in
        let (z, labels) = (trial.source.matrix(5, 9, 2), [0, 8, 3, 3, 5])
        var gradient = trial.device(z)
        _ = trial.backend.crossEntropy(&gradient, labels: trial.device(labels), scale: 0.375, softcap: cap)
        try trial.expectGradient("dz", gradient, at: z) {
          0.375 * Naive.crossEntropy($0, labels: labels, scale: 1, softcap: cap).loss.reduce(0, +)
        }
      }
    }
    let policies: [(experts: Int, policy: RoutingPolicy)] = [
      (5, .topK(2)), (4, .topK(1)), (3, .topK(3)), (1, .topK(1)), (5, .topP(threshold: 0.6, temperature: 0)),
      (4, .topP(threshold: 0.9, temperature: 0.5)),
    ]
    for (experts, policy) in policies {
      addGradient("router", "(7,\(experts)) \(policy), choice held") { trial in
        let (logits, balance) = (trial.source.matrix(7, experts, 2), trial.source.vector(experts))
        let choice = Naive.choose(Naive.softmax(logits), policy)
        let dw = trial.source.vector(choice.filter { $0 >= 0 }.count)
        let p = trial.backend.softmax(trial.device(logits))
        let routing = trial.backend.route(p, choice: trial.device(choice), policy)
        let spare = [Double](repeating: .nan, count: routing.rows - dw.count)
        let found = trial.backend.routerBackward(trial.device(dw + spare), p, routing, balance: trial.device(balance))
        try trial.expectGradient("dlogits", found, at: logits) { logits in
          let p = Naive.softmax(logits)
          let w = Naive.route(p, choice: choice, policy).weights
          let ofWeights = Naive.dot(Matrix(1, w.count, dw), Matrix(1, w.count, w))
          return ofWeights + Naive.dot(p, Matrix(7, experts) { _, e in balance[e] })
        }
      }
    }
  }

  private mutating func addLinearGradients() {
    addGradient("gemm", "(5,7)(7,9)") { trial in
      let (a, b, dy) = (trial.source.matrix(5, 7), trial.source.matrix(7, 9), trial.source.matrix(5, 9))
      var (da, db) = (trial.backend.zeros(Shape(5, 7)), trial.backend.zeros(Shape(7, 9)))
      trial.backend.gemm(0.5, trial.device(dy).operand, trial.device(b).T, 1, into: &da, rows: nil)
      trial.backend.gemm(0.5, trial.device(a).T, trial.device(dy).operand, 1, into: &db, rows: nil)
      try trial.expectGradient("da", da, at: a) { Naive.dot(dy, Naive.gemm(0.5, $0, b, 0, dy)) }
      try trial.expectGradient("db", db, at: b) { Naive.dot(dy, Naive.gemm(0.5, a, $0, 0, dy)) }
    }
    addGradient("addBias", "(5,9)") { trial in
      let (y, bias, dy) = (trial.source.matrix(5, 9), trial.source.vector(9), trial.source.matrix(5, 9))
      var dbias = trial.backend.zeros(Shape(9))
      trial.backend.addColumnSums(trial.device(dy), weights: nil, into: &dbias)
      try trial.expectGradient("dbias", dbias, at: bias) { Naive.dot(dy, Naive.addBias($0, to: y)) }
    }
    addGradient("embedding", "N 7 table (5,9)") { trial in
      let (table, dy, ids) = (trial.source.matrix(5, 9), trial.source.matrix(7, 9), [4, 0, 4, 1, 3, 4, 0])
      var dtable = trial.backend.zeros(Shape(5, 9))
      trial.backend.addEmbeddingGradient(1, trial.device(dy), trial.device(ids), into: &dtable)
      try trial.expectGradient("dtable", dtable, at: table) { Naive.dot(dy, Naive.embedding(ids, $0)) }
    }
    addGradient("gather", "3 rows of (5,9)") { trial in
      let (x, dy, rows) = (trial.source.matrix(5, 9), trial.source.matrix(3, 9), [4, 0, 2])
      var dx = trial.backend.zeros(Shape(5, 9))
      trial.backend.addScattered(trial.device(dy), rows: trial.device(rows), into: &dx)
      try trial.expectGradient("dx", dx, at: x) { Naive.dot(dy, Naive.gather($0, rows: rows)) }
    }
    addGradient("dropout", "(5,9) p 0.25") { trial in
      let (x, dy, key) = (trial.source.matrix(5, 9), trial.source.matrix(5, 9), RandomKey(seed: 3))
      let (samples, positions) = ([0, 0, 1, 1, 2], [0, 1, 0, 1, 0])
      let rows = RowIdentity(samples: trial.device(samples), positions: trial.device(positions), step: 2)
      let mask = Naive.dropoutMask(9, 0.25, key, samples: samples, positions: positions, step: 2)
      try trial.expectGradient("dx", trial.backend.dropout(trial.device(dy), 0.25, key, rows), at: x) {
        Naive.dot(dy, Naive.dropout($0, mask: mask))
      }
    }
  }

  private mutating func addExpertGradients() {
    addGradient("dispatch and combine", "N 7 E 5 K 2 W 9") { trial in
      let plan = PlanSizes(tokens: 7, experts: 5, k: 2, choices: .random).plan(&trial.source)
      let (routing, b) = (trial.routing(plan), trial.backend)
      let (x, dRows) = (trial.source.matrix(7, 9), trial.source.matrix(14, 9))
      try trial.expectGradient("dx of dispatch", b.combine(trial.device(dRows), weights: nil, routing), at: x) {
        Naive.dot(dRows, Naive.dispatch($0, plan))
      }
      let (rows, w, dy) = (trial.source.matrix(14, 9), trial.source.vector(14), trial.source.matrix(7, 9))
      let dispatched = b.dispatch(trial.device(dy), routing)
      let dw = b.rowDots(dispatched, trial.device(rows))
      var drows = dispatched
      b.scaleRows(trial.device(w), &drows)
      try trial.expectGradient("dx of combine", drows, at: rows) { Naive.dot(dy, Naive.combine($0, weights: w, plan)) }
      try trial.expectGradient("dw of combine", dw, at: w) { Naive.dot(dy, Naive.combine(rows, weights: $0, plan)) }
    }
    addGradient("dispatchBlocks and combineBlocks", "N 7 E 5 K 2 r 3") { trial in
      let plan = PlanSizes(tokens: 7, experts: 5, k: 2, choices: .random).plan(&trial.source)
      let (routing, b) = (trial.routing(plan), trial.backend)
      let (x, dRows) = (trial.source.matrix(7, 15), trial.source.matrix(14, 3))
      try trial.expectGradient("dx of dispatchBlocks", b.combineBlocks(trial.device(dRows), weights: nil, routing), at: x) {
        Naive.dot(dRows, Naive.dispatchBlocks($0, plan))
      }
      let (rows, dy) = (trial.source.matrix(14, 3), trial.source.matrix(7, 15))
      try trial.expectGradient("dx of combineBlocks", b.dispatchBlocks(trial.device(dy), routing), at: rows) {
        Naive.dot(dy, Naive.combineBlocks($0, weights: nil, plan))
      }
    }
    for sideBySide in [false, true] {
      addGradient("groupedGemm", "(14,3) 5 × (3,7) \(sideBySide ? "columns" : "rows")") { trial in
        let plan = PlanSizes(tokens: 7, experts: 5, k: 2, choices: .random).plan(&trial.source)
        let (routing, b) = (trial.routing(plan), trial.backend)
        let (a, dy) = (trial.source.matrix(14, 3), trial.source.matrix(14, 7))
        let stack = sideBySide ? trial.source.matrix(3, 35) : trial.source.matrix(15, 7)
        func loss(_ a: Matrix, _ stack: Matrix) -> Double {
          Naive.dot(dy, Naive.groupedGemm(0.5, a, { Naive.block($0, of: 5, in: stack, sideBySide: sideBySide) }, 0, dy, plan))
        }
        var (da, dstack) = (b.zeros(Shape(14, 3)), b.zeros(Shape(stack.rows, stack.columns)))
        let axis: StackAxis = sideBySide ? .columns : .rows
        b.groupedGemm(0.5, trial.device(dy), ExpertStack(trial.device(stack), experts: 5, along: axis).T, 1, into: &da, routing)
        b.groupedOuter(0.5, trial.device(a), trial.device(dy), into: &dstack, stackedAlong: axis, routing)
        try trial.expectGradient("da", da, at: a) { loss($0, stack) }
        try trial.expectGradient("db", dstack, at: stack) { loss(a, $0) }
      }
    }
  }
}
