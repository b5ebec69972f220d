import Tensors

extension CaseList {
  /// attention and its backward: grouped heads, packed sequences of any length, large scores, causality.
  mutating func addAttention() {
    let forms: [(heads: Int, groups: Int, width: Int, offsets: [Int])] = [
      (2, 1, 4, [0]), (2, 1, 4, [0, 0]), (1, 1, 1, [0, 1]), (2, 2, 8, [0, 1]), (1, 1, 7, [0, 9]), (4, 2, 6, [0, 5, 5, 6, 13]),
      (4, 1, 8, [0, 3, 17]), (3, 3, 9, [0, 0, 8, 16]), (6, 2, 5, [0, 1, 2, 3]), (2, 2, 16, [0, 33]), (9, 3, 64, [0, 7, 7]),
      (1, 1, 17, [0, 65]), (2, 1, 8, [0, 1, 131]), (2, 1, 100, [0, 3, 70]), (1, 1, 200, [0, 2, 37]),
    ]
    // A soft cap at which the scores of up to some ±4 bend, alone and with a window.
    let rules: [(window: Int?, cap: Double?)] = [(nil, nil), (1, nil), (2, nil), (5, nil), (64, nil), (70, nil), (nil, 1.5), (5, 1.5)]
    for ((heads, groups, width, offsets), (window, cap)) in forms.flatMap({ form in rules.map { (form, $0) } }) {
      if let window, window > offsets.last ?? 0 { continue }
      let n = offsets.last ?? 0
      let scale = Double(Float(1 / Double(width).squareRoot()))
      let form = AttentionForm(heads: heads, keyValueHeads: groups, headWidth: width, scale: scale, window: window, softcap: cap)
      let sequences = Naive.Sequences(offsets)
      let sizes = "H \(heads) G \(groups) D \(width) offsets \(offsets)\(suffix(form))"
      add("attention", sizes, isEmpty: n == 0) { trial in
        let q = trial.source.matrix(n, heads * width, 2)
        let (k, v) = (trial.source.matrix(n, groups * width, 2), trial.source.matrix(n, groups * width))
        try checkAttention(&trial, q, k, v, sequences, form)
      }
      add("attentionBackward", sizes, isEmpty: n == 0) { trial in
        let q = trial.source.matrix(n, heads * width, 2)
        let (k, v) = (trial.source.matrix(n, groups * width, 2), trial.source.matrix(n, groups * width))
        try checkAttentionBackward(&trial, trial.source.matrix(n, heads * width), q, k, v, sequences, form)
      }
    }
    for cap in [nil, 50.0] {
      let form = AttentionForm(heads: 2, keyValueHeads: 1, headWidth: 4, scale: 0.5, softcap: cap)
      let sequences = Naive.Sequences([0, 4, 9])
      add("attention", "scores up to ±400 stay finite\(suffix(form))") { trial in
        let (q, k, v) = (trial.source.matrix(9, 8, 20), trial.source.matrix(9, 4, 20), trial.source.matrix(9, 4))
        try checkAttention(&trial, q, k, v, sequences, form)
      }
    }
    addEarlierRows()
    let form = AttentionForm(heads: 2, keyValueHeads: 1, headWidth: 4, scale: 0.5)
    addBlindness(Naive.Sequences([0, 4, 9]), form)
    addBlindnessBackward(Naive.Sequences([0, 4, 9]), form)
  }

  /// Queries that are the last rows of their sequences, whose earlier keys and values lie in a cache: rows that are nobody's are NaN.
  private mutating func addEarlierRows() {
    let forms: [(heads: Int, groups: Int, width: Int, offsets: [Int], keys: [Range<Int>])] = [
      (1, 1, 1, [0, 1], [0..<1]), (2, 1, 4, [0, 1], [3..<9]), (4, 2, 6, [0, 1, 2, 2, 3], [1..<8, 8..<9, 20..<30, 32..<65]),
      (3, 1, 5, [0, 5, 8, 8], [2..<14, 20..<23, 24..<24]), (2, 2, 8, [0, 70], [0..<140]), (9, 3, 64, [0, 2, 3], [70..<140, 0..<65]),
      (2, 1, 40, [0, 1, 2], [60..<131, 1..<40]), (1, 1, 200, [0, 1], [2..<71]),
      (6, 2, 64, [0, 1, 2], [5..<300, 301..<365]),
    ]
    let rules: [(window: Int?, cap: Double?)] = [(nil, nil), (1, nil), (5, nil), (64, nil), (5, 1.5)]
    for ((heads, groups, width, offsets, keys), (window, cap)) in forms.flatMap({ form in rules.map { (form, $0) } }) {
      let n = offsets.last ?? 0
      let p = (keys.map(\.upperBound).max() ?? 0) + 2
      let form = AttentionForm(heads: heads, keyValueHeads: groups, headWidth: width, scale: 0.375, window: window, softcap: cap)
      let sequences = Naive.Sequences(offsets, keyRows: keys)
      let sizes = "H \(heads) G \(groups) D \(width) offsets \(offsets) over rows \(keys)\(suffix(form))"
      add("attention", sizes) { trial in
        let q = trial.source.matrix(n, heads * width, 2)
        func cache(_ rows: Matrix) -> Matrix {
          Matrix(p, groups * width) { i, j in keys.contains { $0.contains(i) } ? rows[i, j] : .nan }
        }
        let (k, v) = (cache(trial.source.matrix(p, groups * width, 2)), cache(trial.source.matrix(p, groups * width)))
        try checkAttention(&trial, q, k, v, sequences, form)
      }
    }
  }

  /// What a row must not see: later rows of its sequence, and other sequences.
  ///
  /// NaN stays within its sequence. Within it, a kernel may multiply what it masks by 0, and 0 · NaN is NaN.
  private mutating func addBlindness(_ sequences: Naive.Sequences, _ form: AttentionForm) {
    // rows of both sequences [0,4) and [4,9) that are changed, and those that must come out as before
    let changes: [(name: String, changed: [Int], blind: [Range<Int>])] = [
      ("later rows", [3, 8], [0..<3, 4..<8]), ("another sequence", [0, 1, 2, 3], [4..<9]), ("a later sequence", [4, 8], [0..<4]),
    ]
    for (name, changed, blind) in changes {
      for (operand, spoiled) in [("k", (true, false)), ("v", (false, true))] {
        for value in name == "later rows" ? [-1e4] : [-1e4, .nan] {
          add("attention", "does not see \(operand) = \(value) in \(name)") { trial in
            let (q, k, v) = (trial.source.matrix(9, 8), trial.source.matrix(9, 4), trial.source.matrix(9, 4))
            let expected = Naive.attention(q, k, v, sequences, form)
            let spoil = { (m: Matrix, now: Bool) in Matrix(9, 4) { i, j in now && changed.contains(i) ? value : m[i, j] } }
            let (spoiledK, spoiledV) = (spoil(k, spoiled.0), spoil(v, spoiled.1))
            let found = trial.backend.attention(
              trial.device(q), trial.device(spoiledK), trial.device(spoiledV), trial.device(sequences), form)
            for rows in blind {
              let magnitude = Matrix(rows.count, 8, repeating: 1)  // of v; scores of up to 2 round by 20 · 2 u
              try trial.expect("output", found.output.rows(rows), expected.output.rows(rows), 128, of: magnitude)
            }
          }
        }
      }
    }
  }

  /// The gradients of what a row does not see: dy of earlier rows must not reach dk and dv, v of later rows must not reach dq.
  private mutating func addBlindnessBackward(_ sequences: Naive.Sequences, _ form: AttentionForm) {
    for value in [-1e4] {
      add("attentionBackward", "does not see dy = \(value) in earlier rows") { trial in
        let (q, k, v) = (trial.source.matrix(9, 8), trial.source.matrix(9, 4), trial.source.matrix(9, 4))
        let dy = trial.source.matrix(9, 8)
        try checkBlindGradients(&trial, (dy, q, k, v), (Matrix(9, 8) { i, j in i == 0 || i == 4 ? value : dy[i, j] }, v), sequences, form)
      }
      add("attentionBackward", "does not see v = \(value) in later rows") { trial in
        let (q, k, v) = (trial.source.matrix(9, 8), trial.source.matrix(9, 4), trial.source.matrix(9, 4))
        let dy = trial.source.matrix(9, 8)
        try checkBlindGradients(&trial, (dy, q, k, v), (dy, Matrix(9, 4) { i, j in i == 3 || i == 8 ? value : v[i, j] }), sequences, form)
      }
    }
  }
}

/// With another dy in the first rows or another v in the last rows of [0,4) and [4,9), the other rows' gradients stay the same.
private func checkBlindGradients<B: Backend>(
  _ trial: inout Trial<B>, _ clean: (dy: Matrix, q: Matrix, k: Matrix, v: Matrix), _ changed: (dy: Matrix, v: Matrix),
  _ sequences: Naive.Sequences, _ form: AttentionForm
) throws {
  let expected = Naive.attentionBackward(clean.dy, clean.q, clean.k, clean.v, sequences, form)
  let forward = Naive.attention(clean.q, clean.k, changed.v, sequences, form)
  let found = trial.backend.attentionBackward(
    trial.device(changed.dy), trial.device(clean.q), trial.device(clean.k), trial.device(changed.v),
    output: trial.device(forward.output), logSumExp: trial.device(forward.logSumExp), trial.device(sequences), form)
  let isOfV = changed.v != clean.v
  for rows in isOfV ? [0..<3, 4..<8] : [1..<4, 5..<9] {
    let magnitude = Matrix(rows.count, 8, repeating: 4 * 8)  // 4 elements of a head in 8 rows and heads, each at most 1
    try trial.expect("dq", found.dq.rows(rows), expected.dq.rows(rows), 256, of: magnitude)
    if !isOfV {
      try trial.expect("dk", found.dk.rows(rows), expected.dk.rows(rows), 256, of: magnitude.columns(0..<4))
      try trial.expect("dv", found.dv.rows(rows), expected.dv.rows(rows), 256, of: magnitude.columns(0..<4))
    }
  }
}

/// What a form adds to a case's name.
private func suffix(_ form: AttentionForm) -> String {
  (form.window.map { " window \($0)" } ?? "") + (form.softcap.map { " cap \($0)" } ?? "")
}

/// δ_ih ≥ error of any score of query i, head h, divided by u: (D + 6) · scale · max_j Σ|q||k|, and with a soft cap its own error.
///
/// D products and sums, the scale, the difference from the largest score and the rounding of what e^x reads. A soft cap passes an error
/// on at most undiminished.
private func scoreRoundings(_ q: Matrix, _ k: Matrix, _ sequences: Naive.Sequences, _ form: AttentionForm) -> Matrix {
  let (q, k) = (q.magnitude, k.magnitude)
  var largest = Matrix(q.rows, form.heads)
  Naive.forEachQuery(sequences, form) { i, h, g, seen in
    for score in Naive.scores(q, k, form, i, h, g, seen) { largest[i, h] = max(largest[i, h], abs(score)) }
  }
  return largest.map { Double(form.headWidth + 6) * $0 + Double(Roundings.softcap) * (form.softcap ?? 0) }
}

/// output: a probability has relative error 2δ + (softmax and its sum); then the sum over values.
/// log Σ exp: absolute error δ + (sum, logarithm), and the rounding of its own size.
private func checkAttention<B: Backend>(
  _ trial: inout Trial<B>, _ q: Matrix, _ k: Matrix, _ v: Matrix, _ sequences: Naive.Sequences, _ form: AttentionForm
) throws {
  let found = trial.backend.attention(trial.device(q), trial.device(k), trial.device(v), trial.device(sequences), form)
  let expected = Naive.attention(q, k, v, sequences, form)
  let sizes = Naive.attention(q, k, v.magnitude, sequences, form).output  // Σ p |v|
  let roundings = scoreRoundings(q, k, sequences, form)
  var outputBound = Matrix(q.rows, q.columns)
  var sumBound = Matrix(q.rows, form.heads)
  Naive.forEachQuery(sequences, form) { i, h, g, seen in
    let length = Double(seen.count)
    for d in h * form.headWidth..<(h + 1) * form.headWidth {
      let count = 2 * roundings[i, h] + 4 * length + Double(Roundings.softmax)  // 4: online softmax rescales sum and output
      outputBound[i, d] = trial.tolerance.bound(count, of: sizes[i, d])
    }
    let count = roundings[i, h] + 2 * length + Double(Roundings.softmax + Roundings.logarithm)
    sumBound[i, h] = trial.tolerance.bound(count, of: max(1, abs(expected.logSumExp[i, h])))
  }
  try trial.expect("output", found.output, expected.output, within: outputBound)
  try trial.expect("logSumExp", found.logSumExp, expected.logSumExp, within: sumBound)
}

/// With A_ij = Σ|dy_i||v_j| and B_i = Σ_j p_ij A_ij, a ds_ij is off by at most scale p_ij (A_ij + B_i) times its roundings, wherever
/// δ_i comes from: Σ|dy_i||o_i| ≤ B_i. A soft cap's slope 1 − t² is off by 2δ/cap and some roundings.
private func checkAttentionBackward<B: Backend>(
  _ trial: inout Trial<B>, _ dy: Matrix, _ q: Matrix, _ k: Matrix, _ v: Matrix, _ sequences: Naive.Sequences, _ form: AttentionForm
) throws {
  let forward = Naive.attention(q, k, v, sequences, form)
  let found = trial.backend.attentionBackward(
    trial.device(dy), trial.device(q), trial.device(k), trial.device(v), output: trial.device(forward.output),
    logSumExp: trial.device(forward.logSumExp), trial.device(sequences), form)
  let expected = Naive.attentionBackward(dy, q, k, v, sequences, form)
  let width = form.headWidth
  let roundings = scoreRoundings(q, k, sequences, form)
  let longest = Double(q.rows * form.heads / form.keyValueHeads)  // terms of the longest sum
  var (dq, dk, dv) = (Matrix(q.rows, q.columns), Matrix(k.rows, k.columns), Matrix(v.rows, v.columns))
  Naive.forEachQuery(sequences, form) { i, h, g, seen in
    let first = seen.lowerBound
    let p = Naive.softmax(Naive.capped(Naive.scores(q, k, form, i, h, g, seen), form))
    var products = [Double](repeating: 0, count: p.count)
    var total = 0.0
    for j in seen {
      for d in 0..<width { products[j - first] += abs(dy[i, h * width + d] * v[j, g * width + d]) }
      total += p[j - first] * products[j - first]
    }
    let probability = roundings[i, h] + 3 * abs(forward.logSumExp[i, h]) + Double(Roundings.softmax)
    let slope = form.softcap.map { 2 * roundings[i, h] / $0 + Double(Roundings.softcap) } ?? 0
    let count = probability + slope + Double(2 * width) + 2 * longest + 12
    for j in seen {
      let size = form.scale * p[j - first] * (products[j - first] + total)
      for d in 0..<width {
        dq[i, h * width + d] += trial.tolerance.bound(count, of: size * abs(k[j, g * width + d]))
        dk[j, g * width + d] += trial.tolerance.bound(count, of: size * abs(q[i, h * width + d]))
        dv[j, g * width + d] += trial.tolerance.bound(count, of: p[j - first] * abs(dy[i, h * width + d]))
      }
    }
  }
  try trial.expect("dq", found.dq, expected.dq, within: dq)
  try trial.expect("dk", found.dk, expected.dk, within: dk)
  try trial.expect("dv", found.dv, expected.dv, within: dv)
}
