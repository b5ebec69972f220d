import Tensors

extension CaseList {
  /// gemm: dense and frozen operands, each transposed or not, ranges of rows and columns of c.
  mutating func addProducts() {
    let factors: [(alpha: Double, beta: Double)] = [(1, 0), (1, 1), (-0.5, 2)]
    let sizes = [
      (0, 3, 5), (3, 0, 5), (3, 5, 0), (1, 1, 1), (1, 17, 9), (9, 17, 1), (7, 8, 9), (33, 65, 17), (8, 9, 65), (65, 3, 33), (66, 129, 130),
    ]
    for (index, (m, k, n)) in sizes.enumerated() {
      for (transposition, (ta, tb)) in [(false, false), (true, false), (false, true), (true, true)].enumerated() {
        let (alpha, beta) = factors[(index + transposition) % factors.count]
        let form = "(\(m),\(k))\(ta ? "ᵀ" : "") (\(k),\(n))\(tb ? "ᵀ" : "") α \(alpha) β \(beta)"
        add("gemm", form, isEmpty: m * n == 0) { trial in
          let (a, b, c0) = (trial.source.matrix(m, k), trial.source.matrix(k, n), trial.source.matrix(m, n))
          var c = trial.writable(c0)
          trial.backend.gemm(
            alpha, trial.operand(a, transposed: ta), trial.operand(b, transposed: tb), beta, into: &c.tensor, rows: nil)
          let magnitude = Naive.gemm(abs(alpha), a.magnitude, b.magnitude, abs(beta), c0.magnitude)
          try trial.expect("c", c, Naive.gemm(alpha, a, b, beta, c0), k + Roundings.factor, of: magnitude)
        }
      }
    }
    add("gemm", "β = 0 does not read NaN in c") { trial in
      let (a, b) = (trial.source.matrix(5, 7), trial.source.matrix(7, 9))
      for rows in [nil, 1..<6] as [Range<Int>?] {
        var c = trial.writable(Matrix(rows == nil ? 5 : 6, 9, repeating: rows == nil ? .nan : 3))
        trial.backend.gemm(2, trial.operand(a, transposed: false), trial.operand(b, transposed: false), 0, into: &c.tensor, rows: rows)
        let product = Naive.gemm(2, a, b, 0, Matrix(5, 9))
        let magnitude = Naive.gemm(2, a.magnitude, b.magnitude, 0, Matrix(5, 9))
        let above = rows == nil ? [] : [Double](repeating: 3, count: 9)
        let expected = Matrix(rows == nil ? 5 : 6, 9, above + product.values)
        try trial.expect("c", c, expected, 7 + Roundings.factor, of: Matrix(expected.rows, 9, above.map { _ in 0 } + magnitude.values))
      }
    }
    add("gemm", "k = 0 and β = 0 makes zeros of NaN") { trial in
      var c = trial.writable(Matrix(3, 4, repeating: .nan))
      trial.backend.gemm(
        1, trial.operand(Matrix(3, 0), transposed: false), trial.operand(Matrix(0, 4), transposed: false), 0, into: &c.tensor, rows: nil)
      try trial.expect("c", c, Matrix(3, 4), 0, of: Matrix(3, 4))
    }
    for (rows, beta) in [(0..<3, 1.0), (2..<9, 0.0), (4..<4, 1.0), (9..<11, -1.0), (0..<11, 0.0)] {
      add("gemm", "into rows \(rows) of (11,9) β \(beta)") { trial in
        let (a, b) = (trial.source.matrix(rows.count, 8), trial.source.matrix(8, 9))
        let c0 = trial.source.matrix(11, 9)
        var c = trial.writable(c0)
        trial.backend.gemm(1, trial.operand(a, transposed: true), trial.operand(b, transposed: false), beta, into: &c.tensor, rows: rows)
        var (expected, magnitude) = (c0, Matrix(11, 9))
        let part = Naive.gemm(1, a, b, beta, c0.rows(rows))
        let sizes = Naive.gemm(1, a.magnitude, b.magnitude, abs(beta), c0.rows(rows).magnitude)
        for i in 0..<rows.count {
          for j in 0..<9 {
            expected[rows.lowerBound + i, j] = part[i, j]
            magnitude[rows.lowerBound + i, j] = sizes[i, j]
          }
        }
        try trial.expect("c", c, expected, 8 + Roundings.factor, of: magnitude)  // magnitude 0: the other rows are exact
      }
    }
    for beta in [0.0, 1.0] {
      add("gemm", "into columns 3..<8 of (6,13) in place, β \(beta)", [.contiguous]) { trial in
        let (a, b) = (trial.source.matrix(6, 9), trial.source.matrix(9, 5))
        let whole0 = trial.source.matrix(6, 13)
        var c = trial.backend.upload(whole0.values.map { B.Scalar($0) }, Shape(6, 13)).columns(3..<8)
        let storage = ObjectIdentifier(c.storage)
        trial.backend.gemm(1, trial.operand(a, transposed: false), trial.operand(b, transposed: false), beta, into: &c, rows: nil)
        let expected = Naive.gemm(1, a, b, beta, whole0.columns(3..<8))
        let magnitude = Naive.gemm(1, a.magnitude, b.magnitude, beta, whole0.columns(3..<8).magnitude)
        try trial.expect("c", c, expected, 9 + Roundings.factor, of: magnitude)
        guard ObjectIdentifier(c.storage) == storage else {
          return trial.expect(false, "c was copied although nobody else held it")
        }
        let whole = Tensor<B>(storage: c.storage, offset: c.offset - 3, shape: Shape(6, 13))
        try trial.expectExactly("the columns before c", whole.columns(0..<3), whole0.columns(0..<3))
        try trial.expectExactly("the columns behind c", whole.columns(8..<13), whole0.columns(8..<13))
      }
    }
    add("gemm", "of a matrix with itself") { trial in
      let a = trial.source.matrix(9, 9)
      let tensor = trial.device(a)
      var c = trial.writable(Matrix(9, 9))
      trial.backend.gemm(1, tensor.operand, tensor.T, 0, into: &c.tensor, rows: nil)
      try trial.expect(
        "c", c, Naive.product(a, a.transposed), 9 + Roundings.factor, of: Naive.product(a.magnitude, a.magnitude.transposed))
    }
    for frozenTransposed in [false, true] {
      for rows in [1, 7, 17] {
        add("gemm", "frozen b\(frozenTransposed ? "ᵀ" : ""), \(rows) rows") { trial in
          let (a, b) = (trial.source.matrix(rows, 9), trial.source.matrix(9, 17))
          let frozen = trial.backend.freeze(trial.device(frozenTransposed ? b.transposed : b))
          var c = trial.writable(Matrix(rows, 17))
          trial.backend.gemm(
            1, trial.operand(a, transposed: false), .frozen(frozen, transposed: frozenTransposed), 0, into: &c.tensor, rows: nil)
          try trial.expect("c", c, Naive.product(a, b), 9 + Roundings.factor, of: Naive.product(a.magnitude, b.magnitude))
        }
      }
    }
    add("gemm", "frozen a, transposed") { trial in
      let (a, b) = (trial.source.matrix(5, 9), trial.source.matrix(9, 3))
      let frozen = trial.backend.freeze(trial.device(a.transposed))
      var c = trial.writable(Matrix(5, 3))
      trial.backend.gemm(1, .frozen(frozen, transposed: true), trial.operand(b, transposed: false), 0, into: &c.tensor, rows: nil)
      try trial.expect("c", c, Naive.product(a, b), 9 + Roundings.factor, of: Naive.product(a.magnitude, b.magnitude))
    }
  }
}
