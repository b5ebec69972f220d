import Tensors

extension CaseList {
  /// random and both forms of dropout.
  mutating func addRandomness() {
    let key = RandomKey(seed: 42).derived("model.layers.3.mlp.input", "dropout")
    for (n, c) in [(0, 3), (1, 1), (3, 5), (2, 65), (5, 701)] {
      add("random", "uniform (\(n),\(c))", [.contiguous], isEmpty: n == 0) { trial in
        let found = trial.backend.random(Shape(n, c), .uniform(bound: 0.5), key)
        let expected = Matrix(n, c, Naive.uniform(n * c, bound: 0.5, key))
        // a backend may use the upper 24 bits alone or the middle of an interval: 2 · 2⁻²⁴ of the bound, twice
        try trial.expect("x", found, expected, within: expected.map { _ in 0.5 * 0x1p-22 })
        let values = try trial.backend.download(found)
        trial.expect(values.allSatisfy { $0 >= -0.5 && $0 < 0.5 }, "a number lies outside [−0.5, 0.5)")
      }
    }
    for (n, c) in [(0, 3), (1, 1), (3, 5), (2, 65), (5, 701)] {
      add("random", "normal (\(n),\(c))", [.contiguous], isEmpty: n == 0) { trial in
        let found = trial.backend.random(Shape(n, c), .normal(deviation: 0.5), key)
        let expected = Matrix(n, c, Naive.normal(n * c, deviation: 0.5, key))
        // √(−2 ln 2⁻³²) = 6.7; the logarithm, the root and an angle of up to 2π, each relative to that
        let bound = 0.5 * 6.7 * trial.tolerance.gamma(Roundings.logarithm + 2 * Roundings.exponential + 8)
        try trial.expect("x", found, expected, within: expected.map { _ in bound })
      }
    }
    add("random", "normal: moments within 5 standard errors", [.contiguous]) { trial in
      let n = 4096
      let x = try trial.backend.download(trial.backend.random(Shape(n), .normal(deviation: 2), key)).map { Double($0) / 2 }
      var (mean, square, within, products) = (0.0, 0.0, 0.0, 0.0)
      for i in 0..<n {
        mean += x[i] / Double(n)
        square += x[i] * x[i] / Double(n)
        within += (abs(x[i]) < 1 ? 1 : 0) / Double(n)
        if i > 0 { products += x[i] * x[i - 1] / Double(n - 1) }
      }
      let standardError = 1 / Double(n).squareRoot()
      trial.expect("mean", error: abs(mean), within: 5 * standardError)
      trial.expect("variance", error: abs(square - 1), within: 5 * standardError * 2.0.squareRoot())
      trial.expect("share within one deviation", error: abs(within - 0.682689), within: 5 * standardError * 0.4655)
      trial.expect("product of neighbours", error: abs(products), within: 5 * standardError)
    }
    for distribution in [Distribution.normal(deviation: 1), .uniform(bound: 1)] {
      add("random", "\(distribution) depends on element and key alone", [.contiguous]) { trial in
        let long = try trial.backend.download(trial.backend.random(Shape(9, 7), distribution, key)).map { Double($0) }
        try trial.expectExactly("again", trial.backend.random(Shape(9, 7), distribution, key), Matrix(9, 7, long))
        try trial.expectExactly("the first 17", trial.backend.random(Shape(17), distribution, key), Array(long[..<17]))
        let other = trial.backend.random(Shape(9, 7), distribution, key.derived("", "other"))
        let values = try trial.backend.download(other)
        trial.expect((0..<63).filter { Double(values[$0]) == long[$0] }.count < 3, "another key gives the same numbers")
      }
    }
    for (n, width) in [(0, 5), (1, 1), (3, 4), (5, 7), (9, 33), (2, 65), (17, 1037)] {
      for probability in [0, 0.05, 0.5] {
        add("dropout", "(\(n),\(width)) p \(probability)", isEmpty: n == 0) { trial in
          let x = trial.source.matrix(n, width)
          let samples = (0..<n).map { _ in trial.source.integer(below: 70_000) }
          let positions = (0..<n).map { _ in trial.source.integer(below: 70_000) }
          let rows = RowIdentity(samples: trial.device(samples), positions: trial.device(positions), step: 3)
          let mask = Naive.dropoutMask(width, probability, key, samples: samples, positions: positions, step: 3)
          let expected = Naive.dropout(x, mask: mask)
          let roundings = probability == 0 ? 0 : Roundings.factor
          try trial.expect("y", trial.backend.dropout(trial.device(x), probability, key, rows), expected, roundings, of: expected.magnitude)
        }
      }
    }
    add("dropout", "keeps numbers ≥ round(p·2¹⁶) to the last bit, lower halves first") { trial in
      let rows = RowIdentity(samples: trial.device([2]), positions: trial.device([5]), step: 7)
      let words = Philox.numbers(counter: SIMD4<UInt32>(7, 2, 5, 0), key: key)
      for (column, number) in [(2, words[1] & 0xffff), (3, words[1] >> 16)].map({ ($0.0, Double($0.1)) }) {
        for (q, isKept) in [(number - 0.75, true), (number + 0.25, true), (number + 0.75, false), (number + 1, false)] {
          let y = trial.backend.dropout(trial.device(Matrix(1, 5, repeating: 1)), q * 0x1p-16, key, rows)
          let found = try trial.backend.download(y)
          trial.expect(found.count == 5 && (found[column] != 0) == isKept, "number \(number) at p·2¹⁶ = \(q) gives \(found)")
        }
      }
    }
    add("dropout", "p below 2⁻¹⁷ keeps everything as it is") { trial in
      let (x, rows) = (trial.source.matrix(2, 9), RowIdentity(samples: trial.device([2, 3]), positions: trial.device([5, 6]), step: 7))
      try trial.expectExactly("y", trial.backend.dropout(trial.device(x), 0x1p-18, key, rows), x)
    }
    add("dropout", "(64,64) p 0.25: share of zeros within 5 standard errors", [.contiguous]) { trial in
      let x = Matrix(64, 64, repeating: 1)
      let rows = RowIdentity(samples: trial.device([Int](repeating: 1, count: 64)), positions: trial.device(Array(0..<64)), step: 1)
      let y = try trial.backend.download(trial.backend.dropout(trial.device(x), 0.25, key, rows))
      let share = Double(y.filter { $0 == 0 }.count) / 4096
      trial.expect("share", error: abs(share - 0.25), within: 5 * (0.25 * 0.75 / 4096).squareRoot())
    }
    for sizes in PlanSizes.all {
      add("dropoutRouted", "\(sizes)", isEmpty: sizes.tokens == 0) { trial in
        let plan = sizes.plan(&trial.source)
        let x = trial.source.matrix(plan.pairs, 9)
        let samples = (0..<plan.tokens).map { _ in trial.source.integer(below: 70_000) }
        let positions = (0..<plan.tokens).map { _ in trial.source.integer(below: 70_000) }
        let rows = RowIdentity(samples: trial.device(samples), positions: trial.device(positions), step: 70_001)
        let mask = Naive.dropoutMask(9, 0.25, key, samples: samples, positions: positions, step: 70_001, plan).rows(0..<plan.pairs)
        let expected = Naive.dropout(x, mask: mask)
        let found = trial.backend.dropout(trial.device(trial.inRows(x, plan)), 0.25, key, rows, trial.routing(plan))
        try trial.expect("y", firstRowsOf: found, expected, Roundings.factor, of: expected.magnitude)
      }
    }
  }
}
