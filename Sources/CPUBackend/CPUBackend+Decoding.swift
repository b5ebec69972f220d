import Tensors

// Attention of one new row a sequence over the rows before it: decoding. BLAS would copy the keys into panels for each head that reads
// them, where one trip of keys and values through memory is all that counts. The visible keys are cut into pieces; all heads meet a
// piece's rows of k one after the other, as they lie in memory, then those of v; and the pieces' softmaxes are joined:
//
//     piece p:  s_j = scale ⟨q, k_j⟩, or c tanh(s_j/c)      m_p = max_j s_j      e_j = exp(s_j − m_p)      z_p = Σ e_j      o_p = Σ e_j v_j
//     m = max_p m_p      f_p = exp(m_p − m)      z = Σ_p f_p z_p      o = Σ_p f_p o_p / z      lse = m + log z
//
// Where the pieces begin depends on the keys alone, so the number of threads changes no bit.

/// Keys of a piece: with three groups of 64 columns its keys and values are 24 KiB each.
private let pieceRows = 32

extension CPUBackend {
  /// Whether each sequence has at most one query, over rows that are kept.
  func isDecoding(_ plan: SequencePlan<Self>) -> Bool {
    plan.keyRows != nil && (0..<plan.sequences).allSatisfy { plan.queries($0).count <= 1 }
  }

  /// `attention` where each sequence has one query at most, which sees all rows of its sequence within the window.
  func attentionOfNewRows(
    _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ plan: SequencePlan<Self>, _ form: AttentionForm
  ) -> (output: Tensor<Self>, logSumExp: Tensor<Self>) {
    let (n, h, d, groups) = (plan.rows, form.heads, form.headWidth, form.keyValueHeads)
    let (output, outputs) = fresh(Shape(n, h * d))
    let (logSumExp, logSums) = fresh(Shape(n, h))
    let (qs, ks, vs) = (rows(q), rows(k), rows(v))
    let (scale, cap) = (Scalar(form.scale), form.softcap.map { Scalar($0) })
    var pieces: [(query: Int, keys: Range<Int>)] = []
    var ends = [0]  // behind the pieces of each query
    for sequence in 0..<plan.sequences where !plan.queries(sequence).isEmpty {
      let keys = plan.keys(sequence)
      let first = max(keys.lowerBound, keys.upperBound - (form.window ?? keys.count))
      for start in stride(from: first, to: keys.upperBound, by: pieceRows) {
        pieces.append((ends.count - 1, start..<min(start + pieceRows, keys.upperBound)))
      }
      ends.append(pieces.count)
    }
    // of a piece and head: m_p, z_p, o_p
    let width = d + 2
    let partials = core.pool.buffer(pieces.count * h * width, of: Scalar.self)
    let scores = core.pool.buffer(core.threads.threads * h * pieceRows, of: Scalar.self)
    let keyCount = pieces.reduce(0) { $0 + $1.keys.count }
    forParts(pieces.count, work: keyCount * h * d) { number, thread in
      let (query, keys) = pieces[number]
      let scores = scores.pointer + thread * h * pieceRows  // (H,pieceRows)
      let (q, k, v) = (qs[query], ks.matrix.from(row: keys.lowerBound), vs.matrix.from(row: keys.lowerBound))
      let group = h / groups
      for j in 0..<keys.count {
        ks.prefetch(keys.lowerBound + j + 8)
        vs.prefetch(keys.lowerBound + j)
        for g in 0..<groups {
          let key = k.base + j * k.stride + g * d
          for head in g * group..<(g + 1) * group { scores[head * pieceRows + j] = scale * Scalar.product(q + head * d, key, d) }
        }
      }
      for head in 0..<h {
        let (s, partial) = (scores + head * pieceRows, partials.pointer + (number * h + head) * width)
        if let cap { Scalar.softcap(s, 0..<keys.count, cap) }
        partial[0] = Scalar.maximum(s, keys.count)
        partial[1] = Scalar(Scalar.exponentials(s, keys.count, minus: partial[0]))
        Scalar.weightedSum(s, v.from(column: head / group * d), keys.count, d, partial + 2)
      }
    }
    forParts(n * h, work: pieces.count * h * width) { part, _ in
      let (query, head) = part.quotientAndRemainder(dividingBy: h)
      let (o, pieces) = (outputs[query] + head * d, ends[query]..<ends[query + 1])
      func partial(_ piece: Int) -> UnsafeMutablePointer<Scalar> { partials.pointer + (piece * h + head) * width }
      let largest = pieces.reduce(-Scalar.infinity) { max($0, partial($1)[0]) }
      var sum: Scalar = 0
      o.update(repeating: 0, count: d)
      for piece in pieces {
        let partial = partial(piece)
        let factor = Scalar.exp(Scalar.Vector(repeating: partial[0] - largest))[0]
        sum += factor * partial[1]
        for i in Scalar.lanes(0..<d) { o[i] = o[i] + factor * (partial + 2)[i] }
      }
      Scalar.scale(o, 0..<d, by: 1 / sum)
      logSums[query][head] = largest + Scalar.log(sum)
    }
    withExtendedLifetime((partials, scores)) {}
    return (output, logSumExp)
  }
}
