import Tensors

extension Naive {
  /// Which rows of a batch see each other; what `SequencePlan` holds on the device, as plain lists.
  public struct Sequences: Equatable, Sendable {
    /// Where each packed sequence begins, and N at the end.
    public let offsets: [Int]
    /// Where each sequence's rows of k and v lie, those of q being the last of them; nil where they are those of q.
    public let keyRows: [Range<Int>]?

    /// The sequences between the offsets.
    public init(_ offsets: [Int], keyRows: [Range<Int>]? = nil) {
      self.offsets = offsets
      self.keyRows = keyRows
    }

    /// Number of rows N of q.
    public var rows: Int { offsets.last ?? 0 }
  }

  /// Visits every query row i of every head h with its group g and the rows of k and v that it sees: of its own sequence, up to
  /// itself, within the window. The queries of a sequence are the last of its keys.
  static func forEachQuery(
    _ sequences: Sequences, _ form: AttentionForm, _ body: (_ i: Int, _ h: Int, _ g: Int, _ seen: ClosedRange<Int>) -> Void
  ) {
    for s in 0..<sequences.offsets.count - 1 {
      let queries = sequences.offsets[s]..<sequences.offsets[s + 1]
      let keys = sequences.keyRows?[s] ?? queries
      for i in queries {
        let itself = keys.upperBound - (queries.upperBound - i)
        for h in 0..<form.heads {
          body(i, h, h / (form.heads / form.keyValueHeads), max(keys.lowerBound, form.window.map { itself - $0 + 1 } ?? 0)...itself)
        }
      }
    }
  }

  /// The scores of query i, head h, with the rows that it sees, before a soft cap: scale ⟨q_i, k_j⟩.
  static func scores(_ q: Matrix, _ k: Matrix, _ form: AttentionForm, _ i: Int, _ h: Int, _ g: Int, _ seen: ClosedRange<Int>) -> [Double] {
    seen.map { j in
      var total = 0.0
      for d in 0..<form.headWidth { total += q[i, h * form.headWidth + d] * k[j, g * form.headWidth + d] }
      return form.scale * total
    }
  }

  /// Scores with the form's soft cap, if it has one.
  static func capped(_ scores: [Double], _ form: AttentionForm) -> [Double] {
    scores.map { s in form.softcap.map { softcap($0, s) } ?? s }
  }

  /// Causal attention within each sequence (Vaswani et al. 2017, eq. 1): q (N,H·D), k, v (N,G·D) → output (N,H·D), log Σ exp (N,H).
  ///
  ///     p_ij = softmax_j≤i(s_ij)      s_ij = scale ⟨q_i, k_j⟩, or cap tanh(scale ⟨q_i, k_j⟩ / cap)      output_i = Σ_j p_ij v_j
  ///
  /// Head h reads group h / (H / G). With rows from before (`keyRows`) j counts rows of k and v, and i the row that is query i.
  public static func attention(
    _ q: Matrix, _ k: Matrix, _ v: Matrix, _ sequences: Sequences, _ form: AttentionForm
  ) -> (output: Matrix, logSumExp: Matrix) {
    let width = form.headWidth
    var output = Matrix(q.rows, q.columns)
    var logSumExp = Matrix(q.rows, form.heads)
    forEachQuery(sequences, form) { i, h, g, seen in
      let s = capped(scores(q, k, form, i, h, g, seen), form)
      let p = softmax(s)
      for j in seen {
        for d in 0..<width { output[i, h * width + d] += p[j - seen.lowerBound] * v[j, g * width + d] }
      }
      logSumExp[i, h] = Naive.logSumExp(s)
    }
    return (output, logSumExp)
  }

  /// The gradients of `attention` through the whole Jacobian of each softmax: dy (N,H·D) → dq (N,H·D), dk, dv (N,G·D).
  ///
  ///     dp_ij = ⟨dy_i, v_j⟩      ds_ij = Σ_l dp_il ∂p_il/∂s_ij      ∂p_l/∂s_j = p_l (δ_lj − p_j), times the soft cap's slope
  ///     dq_i = scale Σ_j ds_ij k_j      dk_j = scale Σ_i ds_ij q_i      dv_j = Σ_i p_ij dy_i
  ///
  /// The heads of a group add up in dk and dv.
  public static func attentionBackward(
    _ dy: Matrix, _ q: Matrix, _ k: Matrix, _ v: Matrix, _ sequences: Sequences, _ form: AttentionForm
  ) -> (dq: Matrix, dk: Matrix, dv: Matrix) {
    let width = form.headWidth
    var dq = Matrix(q.rows, q.columns)
    var dk = Matrix(k.rows, k.columns)
    var dv = Matrix(v.rows, v.columns)
    forEachQuery(sequences, form) { i, h, g, seen in
      let first = seen.lowerBound
      let s = scores(q, k, form, i, h, g, seen)
      let p = softmax(capped(s, form))
      var dp = [Double](repeating: 0, count: p.count)
      for j in seen {
        for d in 0..<width { dp[j - first] += dy[i, h * width + d] * v[j, g * width + d] }
      }
      for j in seen {
        var ds = 0.0
        for l in seen {
          let jacobian = p[l - first] * ((l == j ? 1 : 0) - p[j - first])
          ds += dp[l - first] * jacobian
        }
        if let cap = form.softcap { ds *= softcapSlope(cap, s[j - first]) }
        for d in 0..<width {
          dq[i, h * width + d] += form.scale * ds * k[j, g * width + d]
          dk[j, g * width + d] += form.scale * ds * q[i, h * width + d]
          dv[j, g * width + d] += p[j - first] * dy[i, h * width + d]
        }
      }
    }
    return (dq, dk, dv)
  }
}
