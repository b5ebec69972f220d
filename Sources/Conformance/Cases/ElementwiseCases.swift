import Tensors

extension CaseList {
  /// add, scale, addBias, addColumnSums, sum, dot, rowDots, scaleRows.
  mutating func addElementwise() {
    let sizes = [(0, 3), (3, 0), (1, 1), (1, 7), (3, 8), (5, 9), (17, 33), (2, 65), (130, 129)]  // the last for several threads
    for (n, c) in sizes {
      let isEmpty = n * c == 0
      add("add", "(\(n),\(c))", isEmpty: isEmpty) { trial in
        let (x, y0) = (trial.source.matrix(n, c), trial.source.matrix(n, c))
        for alpha in [1, -0.75] {
          var y = trial.writable(y0)
          trial.backend.add(alpha, trial.device(x), into: &y.tensor)
          let magnitude = Naive.add(abs(alpha), x.magnitude, to: y0.magnitude)
          try trial.expect("y", y, Naive.add(alpha, x, to: y0), Roundings.factor, of: magnitude)
        }
      }
      add("scale", "(\(n),\(c))", isEmpty: isEmpty) { trial in
        let x0 = trial.source.matrix(n, c)
        var x = trial.writable(x0)
        trial.backend.scale(0.3, &x.tensor)
        let expected = Naive.scale(0.3, x0)
        try trial.expect("x", x, expected, Roundings.factor, of: expected.magnitude)
      }
      add("addBias", "(\(n),\(c))", isEmpty: isEmpty) { trial in
        let (bias, y0) = (trial.source.vector(c), trial.source.matrix(n, c))
        var y = trial.writable(y0)
        trial.backend.addBias(trial.device(bias), into: &y.tensor)
        try trial.expect("y", y, Naive.addBias(bias, to: y0), 1, of: Naive.addBias(bias.map(abs), to: y0.magnitude))
      }
      for weighted in [false, true] {
        add("addColumnSums", "(\(n),\(c))\(weighted ? " weighted" : "")", isEmpty: c == 0) { trial in
          let (x, sums0, w) = (trial.source.matrix(n, c), trial.source.vector(c), trial.source.vector(n))
          var sums = trial.writable(sums0)
          trial.backend.addColumnSums(trial.device(x), weights: weighted ? trial.device(w) : nil, into: &sums.tensor)
          let expected = Naive.addColumnSums(x, weights: weighted ? w : nil, to: sums0)
          let magnitude = Naive.addColumnSums(x.magnitude, weights: weighted ? w.map(abs) : nil, to: sums0.map(abs))
          try trial.expect("sums", sums, expected, n + 1, of: magnitude)
        }
      }
      add("sum", "(\(n),\(c))") { trial in
        let x = trial.source.matrix(n, c)
        try trial.expect("Σ", trial.backend.sum(trial.device(x)), [Naive.sum(x)], n * c, of: [Naive.sum(x.magnitude)])
      }
      add("dot", "(\(n),\(c))") { trial in
        let (x, y) = (trial.source.matrix(n, c), trial.source.matrix(n, c))
        let found = trial.backend.dot(trial.device(x), trial.device(y))
        try trial.expect("Σ", found, [Naive.dot(x, y)], n * c + 1, of: [Naive.dot(x.magnitude, y.magnitude)])
      }
      add("rowDots", "(\(n),\(c))", isEmpty: n == 0) { trial in
        let (x, y) = (trial.source.matrix(n, c), trial.source.matrix(n, c))
        let found = trial.backend.rowDots(trial.device(x), trial.device(y))
        try trial.expect("w", found, Naive.rowDots(x, y), c + 1, of: Naive.rowDots(x.magnitude, y.magnitude))
      }
      add("scaleRows", "(\(n),\(c))", isEmpty: isEmpty) { trial in
        let (x0, w) = (trial.source.matrix(n, c), trial.source.vector(n))
        var x = trial.writable(x0)
        trial.backend.scaleRows(trial.device(w), &x.tensor)
        let expected = Naive.scaleRows(w, x0)
        try trial.expect("x", x, expected, 1, of: expected.magnitude)
      }
    }
    add("sum", "vector of 37") { trial in
      let x = trial.source.vector(37)
      let magnitude = Naive.sum(Matrix(1, 37, x).magnitude)
      try trial.expect("Σ", trial.backend.sum(trial.device(x)), [Naive.sum(Matrix(1, 37, x))], 37, of: [magnitude])
    }
    add("dot", "of a vector of 37 with itself") { trial in
      let x = trial.source.vector(37)
      let tensor = trial.device(x)
      let square = Naive.dot(Matrix(1, 37, x), Matrix(1, 37, x))
      try trial.expect("Σ", trial.backend.dot(tensor, tensor), [square], 38, of: [square])
    }
    add("add", "vector of 9") { trial in
      let (x, y0) = (trial.source.vector(9), trial.source.vector(9))
      var y = trial.writable(y0)
      trial.backend.add(2, trial.device(x), into: &y.tensor)
      let expected = Naive.add(2, Matrix(1, 9, x), to: Matrix(1, 9, y0)).values
      let magnitude = Naive.add(2, Matrix(1, 9, x).magnitude, to: Matrix(1, 9, y0).magnitude).values
      try trial.expect("y", y, expected, Roundings.factor, of: magnitude)
    }
    for rows in [0..<11, 0..<3, 2..<9, 4..<4, 10..<11] {
      add("add", "into rows \(rows) of (11,9)") { trial in
        let (x, y0) = (trial.source.matrix(rows.count, 9), trial.source.matrix(11, 9))
        var y = trial.writable(y0)
        trial.backend.add(-0.75, trial.device(x), into: &y.tensor, rows: rows)
        var (expected, magnitude) = (y0, Matrix(11, 9))  // magnitude 0: the other rows are exact
        for i in 0..<rows.count {
          for j in 0..<9 {
            expected[rows.lowerBound + i, j] += -0.75 * x[i, j]
            magnitude[rows.lowerBound + i, j] = abs(y0[rows.lowerBound + i, j]) + abs(x[i, j])
          }
        }
        try trial.expect("y", y, expected, Roundings.factor, of: magnitude)
      }
    }
  }
}
