import Platform
import Tensors

@testable import Conformance

extension FaultyBackend {
  // MARK: Norms and positions

  func rmsNorm(_ x: T, _ weight: T, offset: Double, epsilon: Double) -> (y: T, rho: T) {
    let found = base.rmsNorm(
      to(x), to(weight), offset: fault == .offsetForgotten ? 0 : offset, epsilon: fault == .rmsNormWithoutEpsilon ? 0 : epsilon)
    normsComputed += 1
    var y = base.matrix(found.y)
    if fault == .otherBitsEachTime { y = y.map { $0 * (1 + Double(normsComputed) * 0x1p-50) } }
    if fault == .rmsNormHidesNaN { y = y.map { $0.isNaN ? 0 : $0 } }
    let rho = base.list(found.rho)
    let column = fault == .rhoIsAColumn ? base.tensor(Matrix(rho.count, 1, rho)) : found.rho
    return (from(base.tensor(y), "rmsNorm"), from(column, "rmsNorm"))
  }

  func rmsNormBackward(_ dy: T, _ x: T, _ weight: T, offset: Double, rho: T, into dx: inout T) {
    let (dy, x, w, rho, offset) = (to(dy), to(x), to(weight), to(rho), fault == .offsetForgotten ? 0 : offset)
    if fault == .rmsNormBackwardWithoutMean {
      let (dy, w, rho) = (base.matrix(dy), base.list(w), base.list(rho))
      return replacing(&dx, "rmsNormBackward") { old in
        Matrix(old.rows, old.columns) { n, c in old[n, c] + rho[n] * dy[n, c] * (offset + w[c]) }
      }
    }
    writing(&dx, "rmsNormBackward") { dx in
      if fault == .rmsNormBackwardOverwrites { base.fill(0, &dx) }
      base.rmsNormBackward(dy, x, w, offset: offset, rho: rho, into: &dx)
    }
  }

  func rmsNormWeightGradient(_ dy: T, _ x: T, rho: T, into dweight: inout T) {
    let (dy, x, rho) = (to(dy), to(x), to(rho))
    writing(&dweight, "rmsNormWeightGradient") { base.rmsNormWeightGradient(dy, x, rho: rho, into: &$0) }
  }

  func rope(_ x: inout T, positions: I, table: T, inverse: Bool) {
    let (table, positions) = (base.matrix(to(table)), base.list(to(positions)))
    let inverse = fault == .ropeIgnoresInverse ? false : inverse
    replacing(&x, "rope") { m in
      if fault != .ropePairsNeighbours { return Naive.rope(m, positions: positions, table: table, inverse: inverse) }
      let half = table.columns / 2
      // the same turn with neighbours paired: sort them into halves, turn, sort back
      func source(_ j: Int) -> Int {
        let (head, d) = (j / table.columns * table.columns, j % table.columns)
        return head + (d < half ? 2 * d : 2 * (d - half) + 1)
      }
      let halves = Matrix(m.rows, m.columns) { n, j in m[n, source(j)] }
      let turned = Naive.rope(halves, positions: positions, table: table, inverse: inverse)
      var result = m
      for n in 0..<m.rows {
        for j in 0..<m.columns { result[n, source(j)] = turned[n, j] }
      }
      return result
    }
  }

  // MARK: Attention

  /// The form and sequences with the fault that was asked for.
  private func faulty(_ plan: SequencePlan<FaultyBackend>, _ form: AttentionForm) -> (Naive.Sequences, AttentionForm) {
    var (offsets, keyRows) = (plan.offsets, plan.keyRows)
    if fault == .attentionAcrossSequences {
      offsets = [0, plan.rows]
      keyRows = keyRows.map { [($0.first?.lowerBound ?? 0)..<($0.last?.upperBound ?? 0)] }
    }
    if fault == .earlierRowsComeLast {  // the mask in the upper left corner of queries and keys instead of the lower right
      keyRows = keyRows.map { rows in rows.indices.map { rows[$0].prefix(plan.queries($0).count) } }
    }
    let form = AttentionForm(
      heads: form.heads, keyValueHeads: fault == .headsInterleaved ? form.heads : form.keyValueHeads, headWidth: form.headWidth,
      scale: fault == .attentionWithoutScale ? 1 : form.scale, window: fault == .windowTooWide ? form.window.map { $0 + 1 } : form.window,
      softcap: fault == .attentionWithoutCap ? nil : form.softcap)
    return (Naive.Sequences(offsets, keyRows: keyRows), form)
  }

  /// k or v with groups in the order that head % G would read, as one group per head.
  private func interleaved(_ x: Matrix, _ form: AttentionForm) -> Matrix {
    Matrix(x.rows, form.heads * form.headWidth) { n, j in
      x[n, (j / form.headWidth) % form.keyValueHeads * form.headWidth + j % form.headWidth]
    }
  }

  func attention(_ q: T, _ k: T, _ v: T, _ plan: SequencePlan<FaultyBackend>, _ form: AttentionForm) -> (output: T, logSumExp: T) {
    var (q, k, v) = (base.matrix(to(q)), base.matrix(to(k)), base.matrix(to(v)))
    if fault == .headsInterleaved { (k, v) = (interleaved(k, form), interleaved(v, form)) }
    let (sequences, form) = faulty(plan, form)
    if fault == .attentionHidesNaN { q = q.map { $0.isNaN ? 0 : $0 } }
    func reversed(_ m: Matrix) -> Matrix {  // sees what comes behind instead of what came before, within one sequence
      fault == .attentionReversesRows ? Matrix(m.rows, m.columns) { i, j in m[m.rows - 1 - i, j] } : m
    }
    let found = Naive.attention(reversed(q), reversed(k), reversed(v), sequences, form)
    return (
      from(base.tensor(reversed(found.output)), "attention"), from(base.tensor(reversed(found.logSumExp)), "attention")
    )
  }

  func attentionBackward(
    _ dy: T, _ q: T, _ k: T, _ v: T, output: T, logSumExp: T, _ plan: SequencePlan<FaultyBackend>, _ form: AttentionForm
  ) -> (dq: T, dk: T, dv: T) {
    let (dy, q, k, v) = (base.matrix(to(dy)), base.matrix(to(q)), base.matrix(to(k)), base.matrix(to(v)))
    let sequences = Naive.Sequences(plan.offsets)
    var found = Naive.attentionBackward(dy, q, k, v, sequences, form)
    if fault == .attentionBackwardWithoutScale { found.dk = Naive.scale(1 / form.scale, found.dk) }
    if fault == .capWithoutSlope, let cap = form.softcap {  // the gradient with respect to the capped score, as if it were the score's
      found.dq = Matrix(q.rows, q.columns)
      found.dk = Matrix(k.rows, k.columns)
      let d = form.headWidth
      Naive.forEachQuery(sequences, form) { i, h, g, seen in
        let p = Naive.softmax(Naive.scores(q, k, form, i, h, g, seen).map { Naive.softcap(cap, $0) })
        let dp = seen.map { j in (0..<d).reduce(0) { $0 + dy[i, h * d + $1] * v[j, g * d + $1] } }
        let delta = dp.indices.reduce(0) { $0 + p[$1] * dp[$1] }
        for j in seen {
          let ds = form.scale * p[j - seen.lowerBound] * (dp[j - seen.lowerBound] - delta)
          for l in 0..<d {
            found.dq[i, h * d + l] += ds * k[j, g * d + l]
            found.dk[j, g * d + l] += ds * q[i, h * d + l]
          }
        }
      }
    }
    let name = "attentionBackward"
    return (from(base.tensor(found.dq), name), from(base.tensor(found.dk), name), from(base.tensor(found.dv), name))
  }

  // MARK: Gated units

  func gated(_ activation: Activation, _ a: T, _ c: T) -> T {
    let (a, c) = fault == .gatedSwapped ? (c, a) : (a, c)
    return from(base.gated(fault == .everyUnitIsSilu ? .silu : activation, to(a), to(c)), "gated")
  }

  func gatedBackward(_ activation: Activation, _ dh: T, _ a: T, _ c: T) -> (da: T, dc: T) {
    var (da, dc) = base.gatedBackward(activation, to(dh), to(a), to(c))
    if fault == .slopeIsSigmoid {
      let (dh, a, c) = (base.matrix(to(dh)), base.matrix(to(a)), base.matrix(to(c)))
      da = base.tensor(Matrix(a.rows, a.columns) { i, j in dh[i, j] * c[i, j] / (1 + Double.exp(-a[i, j])) })
    }
    if fault == .everyUnitIsSilu { (da, dc) = base.gatedBackward(.silu, to(dh), to(a), to(c)) }
    return (from(da, "gatedBackward"), from(dc, "gatedBackward"))
  }

  // MARK: Tokens and losses

  func embedding(_ ids: I, _ table: Operand<FaultyBackend>) -> T { from(base.embedding(to(ids), to(table)), "embedding") }

  func addEmbeddingGradient(_ alpha: Double, _ dy: T, _ ids: I, into dtable: inout T) {
    let (dy, ids) = (base.matrix(to(dy)), base.list(to(ids)))
    replacing(&dtable, "addEmbeddingGradient") { old in
      if fault == .embeddingGradientIgnoresAlpha { return Naive.addEmbeddingGradient(1, dy, ids, to: old) }
      var result = Naive.addEmbeddingGradient(alpha, dy, ids, to: old)
      if fault == .embeddingGradientKeepsLast {
        for (n, id) in ids.enumerated() {
          for c in 0..<dy.columns { result[id, c] = old[id, c] + alpha * dy[n, c] }
        }
      }
      return result
    }
  }

  func softcap(_ cap: Double, _ z: inout T) {
    if fault == .capIsACut { return replacing(&z, "softcap") { $0.map { max(-cap, min(cap, $0)) } } }
    writing(&z, "softcap") { base.softcap(cap, &$0) }
  }

  func crossEntropy(_ z: inout T, labels: I, scale: Double, softcap: Double?) -> T {
    let labels = base.list(to(labels))
    let scale = fault == .crossEntropyIgnoresScale ? 1 : scale
    let logits = base.matrix(to(z))
    var found = Naive.crossEntropy(logits, labels: labels, scale: scale, softcap: softcap)
    if fault == .capWithoutSlope, let softcap {
      found.gradient = Naive.crossEntropy(Naive.softcap(softcap, logits), labels: labels, scale: scale).gradient
    }
    let gradient = found.gradient
    replacing(&z, "crossEntropy") { _ in gradient }
    return from(base.tensor(found.loss), "crossEntropy")
  }

  func gather(_ x: T, rows: I) -> T { from(base.gather(to(x), rows: to(rows)), "gather") }

  func addScattered(_ x: T, rows: I, into y: inout T) {
    let (x, rows) = (to(x), to(rows))
    writing(&y, "addScattered") { base.addScattered(x, rows: rows, into: &$0) }
  }

  // MARK: Dropout

  func dropout(_ x: T, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<FaultyBackend>) -> T {
    let m = base.matrix(to(x))
    let samples = fault == .dropoutByRowNumber ? Array(0..<m.rows) : base.list(to(rows.samples))
    // rounded down, the threshold keeps a number too many
    let p = fault == .dropoutThresholdCutOff ? (probability * 0x1p16).rounded(.down) * 0x1p-16 : probability
    var mask = Naive.dropoutMask(m.columns, p, key, samples: samples, positions: base.list(to(rows.positions)), step: rows.step)
    if fault == .dropoutUnscaled { mask = mask.map { $0 == 0 ? 0 : 1 } }
    if fault == .dropoutUpperHalfFirst {
      mask = Matrix(mask.rows, mask.columns) { i, j in mask[i, min(j ^ 1, mask.columns - 1)] }
    }
    return from(base.tensor(Naive.dropout(m, mask: mask)), "dropout")
  }

  func dropout(_ x: T, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<FaultyBackend>, _ routing: R) -> T {
    if fault == .oneKeyForAllExperts {
      let plan = base.plan(to(routing))
      let (samples, positions) = (base.list(to(rows.samples)), base.list(to(rows.positions)))
      let mask = Naive.dropoutMask(x.columnCount, probability, key, samples: samples, positions: positions, step: rows.step)
      let ofRows = Matrix(plan.rows, x.columnCount) { m, j in m < plan.pairs ? mask[plan.tokenOfRow[m], j] : 0 }
      return from(base.tensor(Naive.dropout(base.matrix(to(x)), mask: ofRows)), "dropout")
    }
    return from(base.dropout(to(x), probability, key, to(rows), to(routing)), "dropout")
  }
}
