import Platform
import Tensors

extension CaseList {
  /// rmsNorm, its backward and its weight's gradient.
  mutating func addNorms() {
    let epsilon = 1e-5
    for (n, c) in [(0, 8), (1, 1), (1, 7), (3, 8), (7, 9), (17, 33), (2, 65), (130, 65)] {
      for offset in [0, 1.0] {
        add("rmsNorm", "(\(n),\(c)) offset \(offset)", isEmpty: n == 0) { trial in
          let (x, w) = (trial.source.matrix(n, c), trial.source.vector(c))
          let found = trial.backend.rmsNorm(trial.device(x), trial.device(w), offset: offset, epsilon: epsilon)
          let expected = Naive.rmsNorm(x, w, offset: offset, epsilon: epsilon)
          let roundings = c + Roundings.inverseRoot
          try trial.expect("y", found.y, expected.y, roundings + 3, of: expected.y.magnitude)
          try trial.expect("rho", found.rho, expected.rho, roundings, of: expected.rho)
        }
        add("rmsNormBackward", "(\(n),\(c)) offset \(offset)", isEmpty: n == 0) { trial in
          let (x, w, dy, dx0) = (trial.source.matrix(n, c), trial.source.vector(c), trial.source.matrix(n, c), trial.source.matrix(n, c))
          let rho = Naive.rmsNorm(x, w, epsilon: epsilon).rho
          var dx = trial.writable(dx0)
          trial.backend.rmsNormBackward(
            trial.device(dy), trial.device(x), trial.device(w), offset: offset, rho: trial.device(rho), into: &dx.tensor)
          let expected = Naive.add(1, Naive.rmsNormBackward(dy, x, w, offset: offset, rho: rho), to: dx0)
          let magnitude = Matrix(n, c) { i, j in
            var inner = 0.0
            for l in 0..<c { inner += abs(dy[i, l] * (offset + w[l]) * x[i, l]) }
            let size = rho[i] * abs(dy[i, j] * (offset + w[j])) + abs(x[i, j]) * rho[i] * rho[i] * rho[i] * inner / Double(c)
            return abs(dx0[i, j]) + size
          }
          try trial.expect("dx", dx, expected, c + 13, of: magnitude)  // ρ is rounded once and enters to the third power
        }
      }
      add("rmsNormWeightGradient", "(\(n),\(c))") { trial in
        let (x, dy, dw0) = (trial.source.matrix(n, c), trial.source.matrix(n, c), trial.source.vector(c))
        let rho = Naive.rmsNorm(x, dw0, epsilon: epsilon).rho
        var dw = trial.writable(dw0)
        trial.backend.rmsNormWeightGradient(trial.device(dy), trial.device(x), rho: trial.device(rho), into: &dw.tensor)
        let gradient = Naive.rmsNormWeightGradient(dy, x, rho: rho)
        let sizes = Naive.rmsNormWeightGradient(dy.magnitude, x.magnitude, rho: rho)
        let expected = (0..<c).map { dw0[$0] + gradient[$0] }
        try trial.expect("dweight", dw, expected, n + 4, of: (0..<c).map { abs(dw0[$0]) + sizes[$0] })
      }
    }
    for size in [1e-4, 1e4] {
      add("rmsNorm", "(3,9) of size \(size)") { trial in  // ε outweighs the small one
        let (x, w) = (trial.source.matrix(3, 9, size), trial.source.vector(9))
        let found = trial.backend.rmsNorm(trial.device(x), trial.device(w), offset: 0, epsilon: epsilon)
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

  /// gated and its backward, with each activation.
  mutating func addActivations() {
    for activation in Activation.allCases {
      let name = activation.rawValue
      for (m, f) in [(0, 5), (5, 0), (1, 1), (1, 7), (3, 8), (5, 9), (7, 33), (2, 65), (130, 129)] {
        add("gated", "\(name) (\(m),\(f))", isEmpty: m * f == 0) { trial in
          try checkGated(&trial, activation, trial.source.matrix(m, f, 6), trial.source.matrix(m, f))
        }
        add("gatedBackward", "\(name) (\(m),\(f))", isEmpty: m * f == 0) { trial in
          let (a0, c0, dh) = (trial.source.matrix(m, f, 6), trial.source.matrix(m, f), trial.source.matrix(m, f))
          try checkGatedBackward(&trial, activation, dh, a0, c0)
        }
      }
      let a = Matrix(1, 15, [0, -0.0, 0.125, -0.125, 3, -3, 20, -20, 40, -40, 80, -80, -87, 100, -100])
      add("gated", "\(name) at 0, ±1/8 … ±100") { trial in try checkGated(&trial, activation, a, Matrix(1, 15, repeating: 1.5)) }
      add("gatedBackward", "\(name) at 0, ±1/8 … ±100") { trial in
        try checkGatedBackward(&trial, activation, Matrix(1, 15, repeating: 0.5), a, Matrix(1, 15, repeating: 1.5))
      }
    }
  }

  /// softcap.
  mutating func addSoftcap() {
    for (n, c) in [(0, 3), (3, 0), (1, 1), (5, 9), (2, 65), (130, 129)] {
      for (cap, size) in [(0.5, 1.0), (30, 1), (30, 60), (50, 1e4)] {
        add("softcap", "(\(n),\(c)) cap \(cap) of numbers up to \(size)", isEmpty: n * c == 0) { trial in
          let z0 = trial.source.matrix(n, c, size)
          var z = trial.writable(z0)
          trial.backend.softcap(cap, &z.tensor)
          try trial.expect("z", z, Naive.softcap(cap, z0), Roundings.softcap, of: Matrix(n, c, repeating: cap))
        }
      }
    }
    add("softcap", "of a vector with ±∞ and 0") { trial in
      var z = trial.writable([.infinity, -.infinity, 0, -0.0, 3])
      trial.backend.softcap(2, &z.tensor)
      try trial.expect("z", z, [2, -2, 0, 0, Naive.softcap(2, 3)], Roundings.softcap, of: [0, 0, 0, 0, 2])
    }
  }
}

/// silu(a) c relative to itself; GELU's 1 + tanh u cancels for negative a, so that |a c| bounds its error.
private func checkGated<B: Backend>(_ trial: inout Trial<B>, _ activation: Activation, _ a: Matrix, _ c: Matrix) throws {
  let found = trial.backend.gated(activation, trial.device(a), trial.device(c))
  let expected = Naive.gated(activation, a, c)
  let magnitude = activation == .silu ? expected.magnitude : Matrix(a.rows, a.columns) { i, j in abs(a[i, j] * c[i, j]) }
  // u has the error of a few roundings of u, which the slope of tanh, at most 1/u² there, makes small again
  try trial.expect("h", found, expected, Roundings.gated, of: magnitude)
}

/// Both gradients; silu′'s terms σ and a σ (1 − σ) cancel for negative a, so that their magnitudes bound its error. GELU's bound is
/// absolute: 1 + tanh u and 1 − tanh² u cancel, the second times a u′.
private func checkGatedBackward<B: Backend>(
  _ trial: inout Trial<B>, _ activation: Activation, _ dh: Matrix, _ a0: Matrix, _ c0: Matrix
) throws {
  let found = trial.backend.gatedBackward(activation, trial.device(dh), trial.device(a0), trial.device(c0))
  let (da, dc) = Naive.gatedBackward(activation, dh, a0, c0)
  let magnitude = Matrix(a0.rows, a0.columns) { i, j in
    let a = a0[i, j]
    let size =
      switch activation {
      case .silu: 1 / (1 + Double.exp(-a)) * (1 + abs(a) / (1 + Double.exp(a)))
      case .geluTanh: 1 + abs(a) * (1 + 3 * 0.044715 * a * a)
      }
    return abs(dh[i, j] * c0[i, j]) * size
  }
  try trial.expect("da", found.da, da, Roundings.gatedSlope, of: magnitude)
  let sizes = activation == .silu ? dc.magnitude : Matrix(dh.rows, dh.columns) { i, j in abs(a0[i, j] * dh[i, j]) }
  try trial.expect("dc", found.dc, dc, Roundings.gated, of: sizes)
}
