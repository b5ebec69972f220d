import Tensors

extension CaseList {
  /// Products with frozen matrices of every format.
  mutating func addFrozenProducts() {
    for format in WeightFormat.allCases { addFrozenProducts(format) }
  }

  /// Products with a frozen matrix of each format on the right, transposed or not: one row and few (which may read the
  /// encoding directly), one more than few and many, and once on the left.
  private mutating func addFrozenProducts(_ format: WeightFormat) {
    let widths = format.blockCount == 1 ? [9, 32, 75] : [format.blockCount, (format.blockCount == 32 ? 5 : 2) * format.blockCount]
    for (index, (m, rows)) in [(0, 5), (1, 1), (1, 37), (3, 17), (8, 9), (8, 131), (9, 8), (33, 35)].enumerated() {
      for width in widths {
        for transposed in [true, false] {
          let (alpha, beta) = [(1.0, 0.0), (1, 1), (-0.5, 2)][(index + width / 8) % 3]
          let form = "m \(m), frozen \(format.rawValue) (\(rows),\(width))\(transposed ? "ᵀ" : "") α \(alpha) β \(beta)"
          add("gemm", form, isEmpty: m == 0) { trial in
            let bytes = encoded(rows * width, format, &trial.source)
            let w = Matrix(rows, width, Naive.decode(bytes, format))
            let b = transposed ? w.transposed : w
            let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(rows, width)) }
            let (a, c0) = (trial.source.matrix(m, b.rows), trial.source.matrix(m, b.columns))
            var c = trial.writable(c0)
            trial.backend.gemm(
              alpha, trial.operand(a, transposed: m == 3), .frozen(frozen, transposed: transposed), beta, into: &c.tensor, rows: nil)
            let magnitude = Naive.gemm(abs(alpha), a.magnitude, b.magnitude, abs(beta), c0.magnitude)
            try trial.expect("c", c, Naive.gemm(alpha, a, b, beta, c0), b.rows + Roundings.factor, of: magnitude)
          }
        }
      }
    }
    let width = widths[1]
    add("gemm", "frozen \(format.rawValue) on the left, into rows 1..<6 of 9") { trial in
      let bytes = encoded(5 * width, format, &trial.source)
      let w = Matrix(5, width, Naive.decode(bytes, format))
      let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(5, width)) }
      let b = trial.source.matrix(width, 7)
      var c = trial.writable(Matrix(9, 7))
      trial.backend.gemm(1, .frozen(frozen, transposed: false), trial.operand(b, transposed: false), 0, into: &c.tensor, rows: 1..<6)
      let (product, magnitude) = (Naive.product(w, b), Naive.product(w.magnitude, b.magnitude))
      let inside = { (i: Int) in (1..<6).contains(i) }
      try trial.expect(
        "c", c, Matrix(9, 7) { i, j in inside(i) ? product[i - 1, j] : 0 }, width + Roundings.factor,
        of: Matrix(9, 7) { i, j in inside(i) ? magnitude[i - 1, j] : 0 })
    }
    add("gemm", "frozen \(format.rawValue), β = 0 does not read NaN in c") { trial in
      let bytes = encoded(5 * width, format, &trial.source)
      let w = Matrix(5, width, Naive.decode(bytes, format))
      let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(5, width)) }
      for (m, transposed) in [(2, true), (2, false), (11, true), (11, false)] {
        let b = transposed ? w.transposed : w
        let a = trial.source.matrix(m, b.rows)
        var c = trial.writable(Matrix(m, b.columns, repeating: .nan))
        trial.backend.gemm(1, trial.operand(a, transposed: false), .frozen(frozen, transposed: transposed), 0, into: &c.tensor, rows: nil)
        try trial.expect("c", c, Naive.product(a, b), b.rows + Roundings.factor, of: Naive.product(a.magnitude, b.magnitude))
      }
    }
  }
}
