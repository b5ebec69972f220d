import Tensors

// Causal attention in blocks of query rows. For a head of one sequence, with rows i of a block and keys j ≤ i:
//
//     S = scale Q Kᵀ      P = exp(S − lse)      lse_i = log Σ_j exp(S_ij)      O = P V
//     dV += Pᵀ dO         dP = dO Vᵀ            dS = P ⊙ (dP − δ), δ_i = ⟨P_i, dP_i⟩
//     dQ = scale dS K     dK += scale dSᵀ Q
//
// With rows from before (keyRows) query i stands at row past + i of its sequence's keys.
//
// A block of 64 rows takes the keys from where its first row's window begins (i − j < window) to its last row. Of a
// sequence of T rows a share of about 64/T of the products lies beyond the diagonal and is for nothing; they are BLAS's,
// which reads a head as columns of the packed rows.

/// Rows of a block of queries.
private let blockRows = 64

extension CPUBackend {
  /// Causal attention within each sequence: q (N,H·D), k and v (N,G·D) → output (N,H·D), log Σ exp of the scores (N,H).
  ///
  /// With `form.keyRows` k and v are (P,G·D) and also hold the rows that came before those of q.
  public func attention(_ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ form: AttentionForm)
    -> (output: Tensor<Self>, logSumExp: Tensor<Self>)
  {
    let watch = core.watch("attention")
    defer { watch.stop() }
    let (n, h, d) = (q.rowCount, form.heads, form.headWidth)
    requireAttention("attention", q, k, v, form)
    let (output, outputs) = fresh(Shape(n, h * d))
    let (logSumExp, logSums) = fresh(Shape(n, h))
    let (qs, ks, vs) = (rows(q).matrix, rows(k).matrix, rows(v).matrix)
    let scale = Scalar(form.scale)
    let longest = longestSequence(form)
    let stride = scoreStride(longest)
    let scoreRows = min(blockRows, n)
    let scratch = core.pool.buffer(core.threads.threads * scoreRows * stride, of: Scalar.self)
    let group = h / form.keyValueHeads
    let window = form.window ?? .max / 2
    forParts(form.sequences * h, work: n * h * d * longest) { part, thread in
      let (sequence, head) = part.quotientAndRemainder(dividingBy: h)
      let (queries, keyRows) = (form.queries(sequence), form.keys(sequence))
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

  /// The gradients of `attention` for dy (N,H·D); the probabilities are formed again from `logSumExp`.
  ///
  /// One part is a key and value head of one sequence with all query heads that read it, so dk and dv have one writer.
  public func attentionBackward(
    _ dy: Tensor<Self>, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, logSumExp: Tensor<Self>, _ form: AttentionForm
  ) -> (dq: Tensor<Self>, dk: Tensor<Self>, dv: Tensor<Self>) {
    let watch = core.watch("attentionBackward")
    defer { watch.stop() }
    let (n, h, d) = (q.rowCount, form.heads, form.headWidth)
    requireAttention("attentionBackward", q, k, v, form)
    if form.keyRows != nil { trap("attentionBackward: rows from before have no gradient") }
    requireShapes("attentionBackward", ("dy", dy.shape, q.shape), ("logSumExp", logSumExp.shape, Shape(n, h)))
    let (dq, dqs) = fresh(q.shape)
    let (dk, dks) = fresh(k.shape)
    let (dv, dvs) = fresh(v.shape)
    let (dys, logSums) = (rows(dy), rows(logSumExp))
    let (qs, ks, vs) = (rows(q).matrix, rows(k).matrix, rows(v).matrix)
    let scale = Scalar(form.scale)
    let longest = longestSequence(form)
    let stride = scoreStride(longest)
    let scratch = core.pool.buffer(2 * core.threads.threads * blockRows * stride, of: Scalar.self)
    let groups = form.keyValueHeads
    let group = h / groups
    let window = form.window ?? .max / 2
    form.offsets.withUnsafeBufferPointer { offsets in
      forParts(form.sequences * groups, work: 3 * n * h * d * longest) { part, thread in
        let (sequence, g) = part.quotientAndRemainder(dividingBy: groups)
        let (begin, length) = (offsets[sequence], offsets[sequence + 1] - offsets[sequence])
        let p = Matrix(base: scratch.pointer + 2 * thread * blockRows * stride, stride: stride)
        let ds = p.from(row: blockRows)
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
            // forward: P = exp(S − lse)
            for row in 0..<count {
              let visible = max(0, i + row - window + 1) - first..<i + row + 1 - first
              let (p, ds) = (p.base + row * stride, ds.base + row * stride)
              let shift = logSums[begin + i + row][head]
              for j in Scalar.lanes(visible) { p[j] = Scalar.exp(p[j] - shift) }
              let delta = Scalar(Scalar.dot(p, ds, visible))
              for j in Scalar.lanes(visible) { ds[j] = p[j] * (ds[j] - delta) }
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
    }
    withExtendedLifetime(scratch) {}
    return (dq, dk, dv)
  }

  private func requireAttention(
    _ operation: StaticString, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ form: AttentionForm
  ) {
    let (n, h, g, d) = (q.rowCount, form.heads, form.keyValueHeads, form.headWidth)
    let p = form.keyRows == nil ? n : k.rowCount
    guard g > 0, h % g == 0 else { trap("\(operation): \(h) query heads over \(g) key and value heads") }
    requireShapes(operation, ("q", q.shape, Shape(n, h * d)), ("k", k.shape, Shape(p, g * d)), ("v", v.shape, Shape(p, g * d)))
    if let window = form.window, window < 1 { trap("\(operation): a window of \(window) rows") }
    guard form.offsets.first == 0, form.offsets.last == n, zip(form.offsets, form.offsets.dropFirst()).allSatisfy({ $0 <= $1 }) else {
      trap("\(operation): offsets \(form.offsets) for \(n) rows")
    }
    guard form.keyRows.map({ $0.count == form.sequences }) ?? true,
      (0..<form.sequences).allSatisfy({ form.keys($0).count >= form.queries($0).count && form.keys($0).upperBound <= p })
    else { trap("\(operation): keys in rows \(form.keyRows ?? []) of \(p) for offsets \(form.offsets)") }
  }

  /// Zeros in a row of `keys` scores outside those that are visible.
  @inline(__always)
  private func clear(_ row: UnsafeMutablePointer<Scalar>, _ keys: Int, except visible: Range<Int>) {
    row.update(repeating: 0, count: visible.lowerBound)
    (row + visible.upperBound).update(repeating: 0, count: keys - visible.upperBound)
  }

  private func longestSequence(_ form: AttentionForm) -> Int {
    (0..<form.sequences).map { form.keys($0).count }.max() ?? 0
  }

  /// Distance of two rows of scores: whole cache lines and an odd number of them, so that rows spread over the cache's sets.
  private func scoreStride(_ keys: Int) -> Int { ((keys + 15) / 16 | 1) * 16 }
}

extension Matrix {
  /// The transposed matrix; nothing is moved.
  var transposed: Matrix { Matrix(base: base, stride: stride, isTransposed: !isTransposed) }
}
