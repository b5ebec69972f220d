import Tensors

extension CaseList {
  /// embedding and its gradient, gather, addScattered.
  mutating func addRows() {
    for (n, vocabulary, c) in [(0, 5, 8), (1, 1, 1), (3, 5, 7), (9, 4, 8), (17, 33, 9), (5, 2, 65), (300, 50, 65)] {
      add("embedding", "N \(n) table (\(vocabulary),\(c))", isEmpty: n == 0) { trial in
        let table = trial.source.matrix(vocabulary, c)
        let ids = (0..<n).map { _ in trial.source.integer(below: vocabulary) }
        let expected = Naive.embedding(ids, table)
        try trial.expectExactly("y", trial.backend.embedding(trial.device(ids), trial.device(table).operand), expected)
        let frozen = trial.backend.freeze(trial.device(table))
        let found = trial.backend.embedding(trial.device(ids), .frozen(frozen, transposed: false))
        try trial.expectExactly("y of a frozen table", found, expected)
      }
      add("addEmbeddingGradient", "N \(n) table (\(vocabulary),\(c))") { trial in
        let (dy, table0) = (trial.source.matrix(n, c), trial.source.matrix(vocabulary, c))
        let ids = (0..<n).map { _ in trial.source.integer(below: vocabulary) }  // ids come several times
        var table = trial.writable(table0)
        trial.backend.addEmbeddingGradient(trial.device(dy), trial.device(ids), into: &table.tensor)
        var magnitude = Naive.addEmbeddingGradient(dy.magnitude, ids, to: table0.magnitude)
        for id in 0..<vocabulary where !ids.contains(id) {
          for j in 0..<c { magnitude[id, j] = 0 }  // a row that no id names is exact
        }
        try trial.expect("dtable", table, Naive.addEmbeddingGradient(dy, ids, to: table0), n, of: magnitude)
      }
      add("gather", "\(n) rows of (\(vocabulary),\(c))", isEmpty: n == 0) { trial in
        let x = trial.source.matrix(vocabulary, c)
        let rows = (0..<n).map { _ in trial.source.integer(below: vocabulary) }
        try trial.expectExactly("y", trial.backend.gather(trial.device(x), rows: trial.device(rows)), Naive.gather(x, rows: rows))
      }
      let count = min(n, vocabulary)
      add("addScattered", "\(count) rows of (\(vocabulary),\(c))") { trial in
        let (x, y0) = (trial.source.matrix(count, c), trial.source.matrix(vocabulary, c))
        let rows = trial.source.distinct(count, below: vocabulary)
        var y = trial.writable(y0)
        trial.backend.addScattered(trial.device(x), rows: trial.device(rows), into: &y.tensor)
        let magnitude = Naive.addScattered(x.magnitude, rows: rows, to: Matrix(vocabulary, c))
        let sizes = Matrix(vocabulary, c) { i, j in rows.contains(i) ? magnitude[i, j] + abs(y0[i, j]) : 0 }
        try trial.expect("y", y, Naive.addScattered(x, rows: rows, to: y0), 1, of: sizes)
      }
    }
  }

  /// softmax and crossEntropy.
  mutating func addLosses() {
    for (n, e) in [(0, 4), (1, 1), (3, 7), (5, 8), (17, 9), (2, 65), (9, 1031)] {
      for size in [1.0, 30, 1e4] {
        add("softmax", "(\(n),\(e)) logits up to \(size)", isEmpty: n == 0) { trial in
          let logits = trial.source.matrix(n, e, size)
          let expected = Naive.softmax(logits)
          let roundings = Double(e + Roundings.softmax) + 4 * size  // a difference rounds by u · 2 size
          let bound = expected.map { trial.tolerance.bound(roundings, of: $0) }
          try trial.expect("p", trial.backend.softmax(trial.device(logits)), expected, within: bound)
        }
        add("crossEntropy", "(\(n),\(e)) logits up to \(size)", isEmpty: n == 0) { trial in
          let logits0 = trial.source.matrix(n, e, size)
          let labels = (0..<n).map { _ in trial.source.integer(below: e) }
          let scale = 0.125 * 3
          var logits = trial.writable(logits0)
          let loss = trial.backend.crossEntropy(&logits.tensor, labels: trial.device(labels), scale: scale)
          let expected = Naive.crossEntropy(logits0, labels: labels, scale: scale)
          let roundings = Double(e + Roundings.softmax + Roundings.logarithm) + 4 * size
          try trial.expect("loss", loss, expected.loss, within: expected.loss.map { _ in trial.tolerance.bound(roundings, of: 1) })
          let p = Naive.softmax(logits0)
          let magnitude = Matrix(n, e) { i, j in scale * (p[i, j] + (j == labels[i] ? 4 / roundings : 0)) }  // 1 is exact: p − 1 and scale
          try trial.expect("gradient", logits, expected.gradient, Int(roundings) + Roundings.factor, of: magnitude)
        }
      }
    }
  }

  /// adamW over one and several steps.
  mutating func addOptimiser() {
    let sizes = [(0, 3, 1, 0.01), (1, 1, 1, 0), (3, 7, 2, 0.1), (5, 9, 100, 0.01), (2, 65, 1000, 0), (65, 257, 3, 0.1)]
    for (rows, columns, step, lambda) in sizes {
      add("adamW", "(\(rows),\(columns)) step \(step) λ \(lambda)", isEmpty: rows == 0) { trial in
        let (x0, g) = (trial.source.matrix(rows, columns), trial.source.matrix(rows, columns))
        let m0 = trial.source.matrix(rows, columns, 0.1)
        let v0 = trial.source.matrix(rows, columns, 0.01).magnitude
        try checkAdamW(&trial, x0, g, m0, v0, AdamWSettings(learningRate: 0.01, weightDecay: lambda, step: step))
      }
    }
    add("adamW", "no gradient ever: decay alone") { trial in  // an expert without a token
      let x0 = trial.source.matrix(3, 9)
      try checkAdamW(&trial, x0, Matrix(3, 9), Matrix(3, 9), Matrix(3, 9), AdamWSettings(learningRate: 0.01, weightDecay: 0.1, step: 7))
    }
    add("adamW", "first step moves by the learning rate") { trial in
      let (x0, g) = (trial.source.matrix(3, 9), trial.source.matrix(3, 9))
      try checkAdamW(&trial, x0, g, Matrix(3, 9), Matrix(3, 9), AdamWSettings(learningRate: 0.5, weightDecay: 0, step: 1))
    }
    add("adamW", "a factor of 1/4 on the gradient") { trial in
      let (x0, g, m0) = (trial.source.matrix(3, 9), trial.source.matrix(3, 9), trial.source.matrix(3, 9))
      let settings = AdamWSettings(learningRate: 0.02, weightDecay: 0.1, step: 2)
      try checkAdamW(&trial, x0, g, m0, trial.source.matrix(3, 9).magnitude, settings, factor: 0.25)
    }
    for factor in [Double.nan, .infinity] {
      add("adamW", "a factor \(factor) changes nothing") { trial in
        let (x0, g) = (trial.source.matrix(3, 9), trial.source.matrix(3, 9))
        let (x, m, v) = (trial.writable(x0), trial.writable(g), trial.writable(g.magnitude))
        var (tensorX, tensorM, tensorV) = (x.tensor, m.tensor, v.tensor)
        trial.backend.adamW(
          &tensorX, gradient: trial.device(g), factor: trial.device([factor]), &tensorM, &tensorV,
          AdamWSettings(learningRate: 0.1, weightDecay: 0.1, step: 1))
        try trial.expectExactly("x", tensorX, x0)
        try trial.expectExactly("m", tensorM, g)
        try trial.expectExactly("v", tensorV, g.magnitude)
      }
      add("sgd", "a factor \(factor) changes nothing") { trial in
        let (x0, g) = (trial.source.matrix(3, 9), trial.source.matrix(3, 9))
        var (x, b) = (trial.device(x0), trial.device(g))
        let settings = SGDSettings(learningRate: 0.1, weightDecay: 0.1, momentum: 0.5)
        trial.backend.sgd(&x, gradient: trial.device(g), factor: trial.device([factor]), momentum: &b, settings)
        try trial.expectExactly("x", x, x0)
        try trial.expectExactly("b", b, g)
      }
    }
    for (rows, columns, decay, momentum, factor) in [
      (0, 3, 0.0, 0.0, nil), (1, 1, 0, 0, nil), (3, 7, 0.1, 0.9, 0.5), (65, 257, 0.1, 0.9, nil),
    ] as [(Int, Int, Double, Double, Double?)] {
      add("sgd", "(\(rows),\(columns)) λ \(decay) μ \(momentum)", isEmpty: rows == 0) { trial in
        let (x0, g, b0) = (trial.source.matrix(rows, columns), trial.source.matrix(rows, columns), trial.source.matrix(rows, columns))
        var (x, b) = (trial.writable(x0), trial.writable(b0))
        let settings = SGDSettings(learningRate: 0.01, weightDecay: decay, momentum: momentum)
        trial.backend.sgd(
          &x.tensor, gradient: trial.device(g), factor: factor.map { trial.device([$0]) }, momentum: &b.tensor, settings)
        let expectedB = Matrix(rows, columns) { i, j in momentum * b0[i, j] + (factor ?? 1) * g[i, j] + decay * x0[i, j] }
        let sizeB = Matrix(rows, columns) { i, j in abs(momentum * b0[i, j]) + abs(g[i, j]) + abs(decay * x0[i, j]) }
        try trial.expect("b", b, expectedB, 6, of: sizeB)
        try trial.expect(
          "x", x, Matrix(rows, columns) { i, j in x0[i, j] - 0.01 * expectedB[i, j] }, 9,
          of: Matrix(rows, columns) { i, j in abs(x0[i, j]) + 0.01 * sizeB[i, j] })
      }
    }
    for (squared, loss, maximum, expected) in [
      (4.0, 1.0, 1.0, 1 / (2 + 1e-6)), (4, 1, 0, 1), (0.25, 1, 1, 1), (0, 0, 1, 1), (.infinity, 1, 1, .nan), (.nan, 1, 0, .nan),
      (4, .nan, 1, .nan),
      (4, .infinity, 0, .nan),
    ] {
      add("clipFactor", "of squared norm \(squared), loss \(loss), maximum \(maximum)", expectsNaN: expected.isNaN) { trial in
        let found = trial.backend.clipFactor(trial.device([squared]), loss: trial.device([loss]), maximum: maximum)
        try trial.expect("factor", found.factor, [expected], within: [trial.tolerance.bound(6, of: 1)])
        if squared.isFinite { try trial.expect("norm", found.norm, [squared.squareRoot()], within: [trial.tolerance.bound(2, of: 2)]) }
      }
    }
    add("adamW", "other settings than torch's defaults") { trial in
      var settings = AdamWSettings(learningRate: 0.02, weightDecay: 0.3, step: 3)
      (settings.beta1, settings.beta2, settings.epsilon) = (0.5, 0.75, 0.125)
      let (x0, g, m0) = (trial.source.matrix(3, 9), trial.source.matrix(3, 9), trial.source.matrix(3, 9))
      try checkAdamW(&trial, x0, g, m0, trial.source.matrix(3, 9).magnitude, settings)
    }
  }
}

/// The moments' errors are relative to their terms; the first one's enters the update through the quotient.
private func checkAdamW<B: Backend>(
  _ trial: inout Trial<B>, _ x0: Matrix, _ g: Matrix, _ m0: Matrix, _ v0: Matrix, _ settings: AdamWSettings,
  factor: Double? = nil
) throws {
  var (x, m, v) = (trial.writable(x0), trial.writable(m0), trial.writable(v0))
  trial.backend.adamW(
    &x.tensor, gradient: trial.device(g), factor: factor.map { trial.device([$0]) }, &m.tensor, &v.tensor, settings)
  let g = g.map { (factor ?? 1) * $0 }
  var (ex, em, ev) = (x0, m0, v0)
  var (sizeM, sizeX) = (m0, x0)
  let (correction1, correction2) = (1 - Naive.power(settings.beta1, settings.step), 1 - Naive.power(settings.beta2, settings.step))
  for i in 0..<x0.rows {
    for j in 0..<x0.columns {
      (ex[i, j], em[i, j], ev[i, j]) = Naive.adamW(x0[i, j], gradient: g[i, j], m0[i, j], v0[i, j], settings)
      sizeM[i, j] = abs(m0[i, j]) + (abs(m0[i, j]) + abs(g[i, j])) * (1 - settings.beta1)
      let denominator = (ev[i, j] / correction2).squareRoot() + settings.epsilon
      sizeX[i, j] = abs(x0[i, j]) + settings.learningRate / correction1 * sizeM[i, j] / denominator
    }
  }
  try trial.expect("x", x, ex, Roundings.moment + Roundings.update, of: sizeX)
  try trial.expect("m", m, em, Roundings.moment, of: sizeM)
  try trial.expect("v", v, ev, Roundings.moment, of: ev)
}
