import Tensors

// Causal attention in blocks of query rows. For a head of one sequence, with rows i of a block and keys j ≤ i:
//
//     S = scale Q Kᵀ      S′ = c tanh(S/c), or S      P = exp(S′ − lse)      lse_i = log Σ_j exp(S′_ij)      O = P V
//     dV += Pᵀ dO         dP = dO Vᵀ                  dS′ = P ⊙ (dP − δ)     δ_i = ⟨P_i, dP_i⟩
//     dQ = scale dS K     dK += scale dSᵀ Q           dS = dS′ ⊙ (1 − (S′/c)²), or dS′
//
// With rows from before (keyRows) query i stands at row past + i of its sequence's keys.
//
// A block of 64 rows takes the keys from where its first row's window begins (i − j < window) to its last row. Of a
// sequence of T rows a share of about 64/T of the products lies beyond the diagonal and is for nothing; they are BLAS's,
// which reads a head as columns of the packed rows.

/// Rows of a block of queries.
private let blockRows = 64

extension CPUBackend {
  public func attention(_ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ plan: SequencePlan<Self>, _ form: AttentionForm)
    -> (output: Tensor<Self>, logSumExp: Tensor<Self>)
  {
    core.timed("attention") {
      let (n, h, d) = (plan.rows, form.heads, form.headWidth)
      requireAttention("attention", q, k, v, plan, form)
      if isDecoding(plan) { return attentionOfNewRows(q, k, v, plan, form) }
      let (output, outputs) = fresh(Shape(n, h * d))
      let (logSumExp, logSums) = fresh(Shape(n, h))
      let (qs, ks, vs) = (rows(q).matrix, rows(k).matrix, rows(v).matrix)
      let (scale, cap) = (Scalar(form.scale), form.softcap.map { Scalar($0) })
      let longest = longestSequence(plan)
      let stride = scoreStride(longest)
      let scoreRows = min(blockRows, n)
      let scratch = core.pool.buffer(core.threads.threads * scoreRows * stride, of: Scalar.self)
      let group = h / form.keyValueHeads
      let window = form.window ?? .max / 2
      forParts(plan.sequences * h, work: n * h * d * longest) { part, thread in
        let (sequence, head) = part.quotientAndRemainder(dividingBy: h)
        let (queries, keyRows) = (plan.queries(sequence), plan.keys(sequence))
        let past = keyRows.count - queries.count
        let scores = Matrix(base: scratch.pointer + thread * scoreRows * stride, stride: stride)
        let q = qs.from(row: queries.lowerBound, column: head * d)
        let k = ks.from(row: keyRows.lowerBound, column: head / group * d)
        let v = vs.from(row: keyRows.lowerBound, column: head / group * d)
        let o = outputs.matrix.from(row: queries.lowerBound, column: head * d)
        var i = 0
        while i < queries.count {
          let count = min(blockRows, queries.count - i)
          let first = max(0, past + i - window + 1)
          let keys = past + i + count - first
          multiplyHere(scale, q.from(row: i), k.from(row: first).transposed, 0, scores, count, keys, d)
          for row in 0..<count {
            let visible = max(0, past + i + row - window + 1) - first..<past + i + row + 1 - first
            let all = scores.base + row * stride
            let s = all + visible.lowerBound
            if let cap { Scalar.softcap(s, 0..<visible.count, cap) }
            let largest = Scalar.maximum(s, visible.count)
            let sum = Scalar.exponentials(s, visible.count, minus: largest)
            Scalar.scale(s, 0..<visible.count, by: Scalar(1 / sum))
            clear(all, keys, except: visible)
            logSums[queries.lowerBound + i + row][head] = largest + Scalar.log(Scalar(sum))
          }
          multiplyHere(1, scores, v.from(row: first), 0, o.from(row: i), count, d, keys)
          i += count
        }
      }
      withExtendedLifetime(scratch) {}
      return (output, logSumExp)
    }
  }

  /// One part is a key and value head of one sequence with all query heads that read it, so dk and dv have one writer.
  public func attentionBackward(
    _ dy: Tensor<Self>, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, output: Tensor<Self>, logSumExp: Tensor<Self>,
    _ plan: SequencePlan<Self>, _ form: AttentionForm
  ) -> (dq: Tensor<Self>, dk: Tensor<Self>, dv: Tensor<Self>) {
    core.timed("attentionBackward") {
      let (n, h, d) = (plan.rows, form.heads, form.headWidth)
      requireAttention("attentionBackward", q, k, v, plan, form)
      if plan.keyRows != nil { trap("attentionBackward: rows from before have no gradient") }
      requireShapes(
        "attentionBackward", ("dy", dy.shape, q.shape), ("output", output.shape, q.shape), ("logSumExp", logSumExp.shape, Shape(n, h)))
      let (dq, dqs) = fresh(q.shape)
      let (dk, dks) = fresh(k.shape)
      let (dv, dvs) = fresh(v.shape)
      let (dys, logSums) = (rows(dy), rows(logSumExp))
      let (qs, ks, vs) = (rows(q).matrix, rows(k).matrix, rows(v).matrix)
      let (scale, cap) = (Scalar(form.scale), form.softcap.map { Scalar($0) })
      let longest = longestSequence(plan)
      let stride = scoreStride(longest)
      // a thread's P and dS, and one row of the cap's slopes
      let rowsHere = 2 * blockRows + 1
      let scratch = core.pool.buffer(core.threads.threads * rowsHere * stride, of: Scalar.self)
      let groups = form.keyValueHeads
      let group = h / groups
      let window = form.window ?? .max / 2
      forParts(plan.sequences * groups, work: 3 * n * h * d * longest) { part, thread in
        let (sequence, g) = part.quotientAndRemainder(dividingBy: groups)
        let (begin, length) = (plan.queries(sequence).lowerBound, plan.queries(sequence).count)
        let p = Matrix(base: scratch.pointer + thread * rowsHere * stride, stride: stride)
        let ds = p.from(row: blockRows)
        let slope = p.from(row: 2 * blockRows).base
        let k = ks.from(row: begin, column: g * d)
        let v = vs.from(row: begin, column: g * d)
        let dk = dks.matrix.from(row: begin, column: g * d)
        let dv = dvs.matrix.from(row: begin, column: g * d)
        for row in 0..<length {
          (dk.base + row * dk.stride).update(repeating: 0, count: d)
          (dv.base + row * dv.stride).update(repeating: 0, count: d)
        }
        for head in g * group..<(g + 1) * group {
          var i = 0
          while i < length {
            let count = min(blockRows, length - i)
            let first = max(0, i - window + 1)
            let keys = i + count - first
            let q = qs.from(row: begin + i, column: head * d)
            let dy = dys.matrix.from(row: begin + i, column: head * d)
            let (k, v, dk, dv) = (k.from(row: first), v.from(row: first), dk.from(row: first), dv.from(row: first))
            // forward: S = scale Q Kᵀ, O = P V
            multiplyHere(scale, q, k.transposed, 0, p, count, keys, d)
            multiplyHere(1, dy, v.transposed, 0, ds, count, keys, d)
            for row in 0..<count {
              let visible = max(0, i + row - window + 1) - first..<i + row + 1 - first
              let (p, ds) = (p.base + row * stride, ds.base + row * stride)
              let shift = logSums[begin + i + row][head]
              if let cap {
                cappedGradients(p, ds, visible, cap, shift, slope: slope)
              } else {
                // forward: P = exp(S − lse)
                for j in Scalar.lanes(visible) { p[j] = Scalar.exp(p[j] - shift) }
                // δ from the same P and dP, not ⟨dy, o⟩: with one visible key dS is exactly 0
                let delta = Scalar(Scalar.dot(p, ds, visible))
                for j in Scalar.lanes(visible) { ds[j] = p[j] * (ds[j] - delta) }
              }
              clear(p, keys, except: visible)
              clear(ds, keys, except: visible)
            }
            multiplyHere(1, p.transposed, dy, 1, dv, keys, d, count)
            multiplyHere(scale, ds, k, 0, dqs.matrix.from(row: begin + i, column: head * d), count, d, keys)
            multiplyHere(scale, ds.transposed, q, 1, dk, keys, d, count)
            i += count
          }
        }
      }
      withExtendedLifetime(scratch) {}
      return (dq, dk, dv)
    }
  }

  /// P and dS of a row of scores under a soft cap. Not inlined, so that the loops without one stay as tight as they can be.
  @inline(never)
  private func cappedGradients(
    _ p: UnsafeMutablePointer<Scalar>, _ ds: UnsafeMutablePointer<Scalar>, _ visible: Range<Int>, _ cap: Scalar, _ shift: Scalar,
    slope: UnsafeMutablePointer<Scalar>
  ) {
    // forward: S′ = c tanh(S/c), P = exp(S′ − lse)
    for j in Scalar.lanes(visible) {
      let t = Scalar.tanh(p[j] / cap)
      p[j] = Scalar.exp(cap * t - shift)
      slope[j] = 1 - t * t
    }
    let delta = Scalar(Scalar.dot(p, ds, visible))
    for j in Scalar.lanes(visible) { ds[j] = p[j] * (ds[j] - delta) * slope[j] }
  }

  /// Zeros in a row of `keys` scores outside those that are visible.
  @inline(__always)
  private func clear(_ row: UnsafeMutablePointer<Scalar>, _ keys: Int, except visible: Range<Int>) {
    row.update(repeating: 0, count: visible.lowerBound)
    (row + visible.upperBound).update(repeating: 0, count: keys - visible.upperBound)
  }

  private func longestSequence(_ plan: SequencePlan<Self>) -> Int {
    (0..<plan.sequences).map { plan.keys($0).count }.max() ?? 0
  }

  /// Distance of two rows of scores: whole cache lines and an odd number of them, so that rows spread over the cache's sets.
  private func scoreStride(_ keys: Int) -> Int { ((keys + 15) / 16 | 1) * 16 }
}
