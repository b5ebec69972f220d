import Tensors

extension CaseList {
  /// rmsNorm, its backward and its weight's gradient.
  mutating func addNorms() {
    let epsilon = 1e-5
    for (n, c) in [(0, 8), (1, 1), (1, 7), (3, 8), (7, 9), (17, 33), (2, 65), (130, 65)] {
      add("rmsNorm", "(\(n),\(c))", isEmpty: n == 0) { trial in
        let (x, w) = (trial.source.matrix(n, c), trial.source.vector(c))
        let found = trial.backend.rmsNorm(trial.device(x), trial.device(w), epsilon: epsilon)
        let expected = Naive.rmsNorm(x, w, epsilon: epsilon)
        let roundings = c + Roundings.inverseRoot
        try trial.expect("y", found.y, expected.y, roundings + 2, of: expected.y.magnitude)
        try trial.expect("inverseRMS", found.inverseRMS, expected.inverseRMS, roundings, of: expected.inverseRMS)
      }
      add("rmsNormBackward", "(\(n),\(c))", isEmpty: n == 0) { trial in
        let (x, w, dy, dx0) = (trial.source.matrix(n, c), trial.source.vector(c), trial.source.matrix(n, c), trial.source.matrix(n, c))
        let s = Naive.rmsNorm(x, w, epsilon: epsilon).inverseRMS
        var dx = trial.writable(dx0)
        trial.backend.rmsNormBackward(trial.device(dy), trial.device(x), trial.device(w), trial.device(s), into: &dx.tensor)
        let expected = Naive.add(1, Naive.rmsNormBackward(dy, x, w, epsilon: epsilon), to: dx0)
        let magnitude = Matrix(n, c) { i, j in
          var inner = 0.0
          for l in 0..<c { inner += abs(dy[i, l] * w[l] * x[i, l]) }
          return abs(dx0[i, j]) + s[i] * abs(dy[i, j] * w[j]) + abs(x[i, j]) * s[i] * s[i] * s[i] * inner / Double(c)
        }
        try trial.expect("dx", dx, expected, c + 12, of: magnitude)  // s is rounded once and enters to the third power
      }
      add("rmsNormWeightGradient", "(\(n),\(c))") { trial in
        let (x, dy, dw0) = (trial.source.matrix(n, c), trial.source.matrix(n, c), trial.source.vector(c))
        let s = Naive.rmsNorm(x, dw0, epsilon: epsilon).inverseRMS
        var dw = trial.writable(dw0)
        trial.backend.rmsNormWeightGradient(trial.device(dy), trial.device(x), trial.device(s), into: &dw.tensor)
        let gradient = Naive.rmsNormWeightGradient(dy, x, epsilon: epsilon)
        let sizes = Naive.rmsNormWeightGradient(dy.magnitude, x.magnitude, epsilon: epsilon)
        let expected = (0..<c).map { dw0[$0] + gradient[$0] }
        try trial.expect("dweight", dw, expected, n + 4, of: (0..<c).map { abs(dw0[$0]) + sizes[$0] })
      }
    }
    for size in [1e-4, 1e4] {
      add("rmsNorm", "(3,9) of size \(size)") { trial in  // ε outweighs the small one
        let (x, w) = (trial.source.matrix(3, 9, size), trial.source.vector(9))
        let found = trial.backend.rmsNorm(trial.device(x), trial.device(w), epsilon: epsilon)
        let expected = Naive.rmsNorm(x, w, epsilon: epsilon)
        try trial.expect("y", found.y, expected.y, 9 + Roundings.inverseRoot + 2, of: expected.y.magnitude)
      }
    }
  }

  /// rope, forward and inverse.
  mutating func addRotaryEmbedding() {
    for (n, heads, width) in [(0, 2, 4), (1, 1, 2), (3, 1, 6), (5, 3, 8), (7, 2, 18), (2, 1, 66), (65, 5, 34)] {
      for inverse in [false, true] {
        add("rope", "N \(n) H \(heads) D \(width)\(inverse ? " inverse" : "")", isEmpty: n == 0) { trial in
          let x0 = trial.source.matrix(n, heads * width)
          let table = Naive.ropeTable(positions: 11, headWidth: width).map { Double(Float($0)) }
          let positions = (0..<n).map { _ in trial.source.integer(below: 11) }
          var x = trial.writable(x0)
          trial.backend.rope(&x.tensor, positions: trial.device(positions), table: trial.device(table), inverse: inverse)
          // |x_j cos| + |x_{j+D/2} sin|: the same turn with every sign positive, whose first half subtracts
          let sizes = Naive.rope(x0.magnitude, positions: positions, table: table.magnitude)
          let other = Naive.rope(x0.magnitude, positions: positions, table: table.magnitude, inverse: true)
          let magnitude = Matrix(n, heads * width) { i, j in max(abs(sizes[i, j]), abs(other[i, j])) }
          let expected = Naive.rope(x0, positions: positions, table: table, inverse: inverse)
          try trial.expect("x", x, expected, 3, of: magnitude)
        }
      }
    }
    add("rope", "turned and turned back") { trial in
      let x0 = trial.source.matrix(9, 24)
      let table = Naive.ropeTable(positions: 9, headWidth: 12).map { Double(Float($0)) }
      var x = trial.writable(x0)
      for inverse in [false, true] {
        trial.backend.rope(&x.tensor, positions: trial.device(Array(0..<9)), table: trial.device(table), inverse: inverse)
      }
      // cos² + sin² = 1 within the table's own rounding of 2 · 2⁻²⁴, whatever the backend's precision
      let bound = Matrix(9, 24) { n, j in
        let pair = j % 12 < 6 ? j + 6 : j - 6
        return (abs(x0[n, j]) + abs(x0[n, pair])) * (2 * trial.tolerance.gamma(3) + 4 * 0x1p-24)
      }
      try trial.expect("x", x.tensor, x0, within: bound)
    }
  }

  /// swiGLU and its backward.
  mutating func addActivations() {
    for (m, f) in [(0, 5), (5, 0), (1, 1), (1, 7), (3, 8), (5, 9), (7, 33), (2, 65), (130, 129)] {
      add("swiGLU", "(\(m),\(f))", isEmpty: m * f == 0) { trial in
        let (a, c) = (trial.source.matrix(m, f, 6), trial.source.matrix(m, f))
        let expected = Naive.swiGLU(a, c)
        try trial.expect(
          "h", trial.backend.swiGLU(trial.device(a), trial.device(c)), expected, Roundings.swiGLU, of: expected.magnitude)
      }
      add("swiGLUBackward", "(\(m),\(f))", isEmpty: m * f == 0) { trial in
        let (a0, c0, dh) = (trial.source.matrix(m, f, 6), trial.source.matrix(m, f), trial.source.matrix(m, f))
        try checkSwiGLUBackward(&trial, dh, a0, c0)
      }
    }
    add("swiGLU", "at 0, ±20 … ±100") { trial in
      let a = Matrix(1, 11, [0, -0.0, 20, -20, 40, -40, 80, -80, -87, 100, -100])
      let c = Matrix(1, 11, repeating: 1.5)
      let expected = Naive.swiGLU(a, c)
      try trial.expect("h", trial.backend.swiGLU(trial.device(a), trial.device(c)), expected, Roundings.swiGLU, of: expected.magnitude)
    }
    add("swiGLUBackward", "at 0, ±20 … ±100") { trial in
      let a = Matrix(1, 11, [0, -0.0, 20, -20, 40, -40, 80, -80, -87, 100, -100])
      try checkSwiGLUBackward(&trial, Matrix(1, 11, repeating: 0.5), a, Matrix(1, 11, repeating: 1.5))
    }
  }
}

/// Both gradients; silu′'s terms σ and a σ (1 − σ) cancel for negative a, so that their magnitudes bound its error.
private func checkSwiGLUBackward<B: Backend>(_ trial: inout Trial<B>, _ dh: Matrix, _ a0: Matrix, _ c0: Matrix) throws {
  let found = trial.backend.swiGLUBackward(trial.device(dh), trial.device(a0), trial.device(c0))
  let (da, dc) = Naive.swiGLUBackward(dh, a0, c0)
  let magnitude = Matrix(a0.rows, a0.columns) { i, j in
    let sigmoid = 1 / (1 + naturalExponential(-a0[i, j]))
    return abs(dh[i, j] * c0[i, j]) * sigmoid * (1 + abs(a0[i, j]) / (1 + naturalExponential(a0[i, j])))
  }
  try trial.expect("da", found.da, da, Roundings.swiGLUSlope, of: magnitude)
  try trial.expect("dc", found.dc, dc, Roundings.swiGLU, of: dc.magnitude)
}
