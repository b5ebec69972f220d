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
        let alpha = n % 2 == 0 ? 1 : -0.75
        trial.backend.addEmbeddingGradient(alpha, trial.device(dy), trial.device(ids), into: &table.tensor)
        var magnitude = Naive.addEmbeddingGradient(1, dy.magnitude, ids, to: table0.magnitude)
        for id in 0..<vocabulary where !ids.contains(id) {
          for j in 0..<c { magnitude[id, j] = 0 }  // a row that no id names is exact
        }
        try trial.expect("dtable", table, Naive.addEmbeddingGradient(alpha, dy, ids, to: table0), n + 1, of: magnitude)
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
        for cap in [nil, 15.0] where cap == nil || size > 1 {
          add("crossEntropy", "(\(n),\(e)) logits up to \(size)\(cap.map { " cap \($0)" } ?? "")", isEmpty: n == 0) { trial in
            try checkCrossEntropy(&trial, trial.source.matrix(n, e, size), size, cap)
          }
        }
      }
    }
  }
}

/// With a soft cap, the logits are no larger than it and each has an error of some roundings of the cap.
private func checkCrossEntropy<B: Backend>(_ trial: inout Trial<B>, _ z0: Matrix, _ size: Double, _ cap: Double?) throws {
  let (n, e) = (z0.rows, z0.columns)
  let labels = (0..<n).map { _ in trial.source.integer(below: e) }
  let scale = 0.125 * 3
  var z = trial.writable(z0)
  let loss = trial.backend.crossEntropy(&z.tensor, labels: trial.device(labels), scale: scale, softcap: cap)
  let expected = Naive.crossEntropy(z0, labels: labels, scale: scale, softcap: cap)
  let roundings =
    Double(e + Roundings.softmax + Roundings.logarithm) + 4 * min(size, cap ?? size) + 2 * Double(Roundings.softcap) * (cap ?? 0)
  try trial.expect("loss", loss, expected.loss, within: expected.loss.map { _ in trial.tolerance.bound(roundings, of: 1) })
  let p = Naive.softmax(cap.map { Naive.softcap($0, z0) } ?? z0)
  // 1 is exact: p − 1 and scale; with a soft cap the slope 1 − t² is off by some roundings
  let ofOne = (cap == nil ? 4 : 4 + Double(2 * Roundings.softcap)) / roundings
  let magnitude = Matrix(n, e) { i, j in scale * (p[i, j] + (j == labels[i] ? ofOne : 0)) }
  try trial.expect("gradient", z, expected.gradient, Int(roundings) + Roundings.factor, of: magnitude)
}
