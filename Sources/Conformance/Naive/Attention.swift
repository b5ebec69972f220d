import Tensors

extension Naive {
  /// Visits every query row i of every head h with its group g and the rows of k and v that it sees: of its own sequence, up to
  /// itself, within the window. The queries of a sequence are the last of its keys.
  static func forEachQuery(_ form: AttentionForm, _ body: (_ i: Int, _ h: Int, _ g: Int, _ seen: ClosedRange<Int>) -> Void) {
    for sequence in 0..<form.sequences {
      let (queries, keys) = (form.queries(sequence), form.keys(sequence))
      for i in queries {
        let itself = keys.upperBound - (queries.upperBound - i)
        for h in 0..<form.heads {
          body(i, h, h / (form.heads / form.keyValueHeads), max(keys.lowerBound, form.window.map { itself - $0 + 1 } ?? 0)...itself)
        }
      }
    }
  }

  /// The scores of query i, head h, with the rows that it sees: scale ⟨q_i, k_j⟩.
  static func scores(_ q: Matrix, _ k: Matrix, _ form: AttentionForm, _ i: Int, _ h: Int, _ g: Int, _ seen: ClosedRange<Int>) -> [Double] {
    seen.map { j in
      var total = 0.0
      for d in 0..<form.headWidth { total += q[i, h * form.headWidth + d] * k[j, g * form.headWidth + d] }
      return form.scale * total
    }
  }

  /// Causal attention within each sequence (Vaswani et al. 2017, eq. 1): q (N,H·D), k, v (N,G·D) → output (N,H·D), log Σ exp (N,H).
  ///
  ///     p_ij = softmax_j≤i(scale ⟨q_i, k_j⟩)      output_i = Σ_j p_ij v_j
  ///
  /// Head h reads group h / (H / G). With rows from before (`form.keyRows`) j counts rows of k and v, and i the row that is query i.
  public static func attention(_ q: Matrix, _ k: Matrix, _ v: Matrix, _ form: AttentionForm) -> (output: Matrix, logSumExp: Matrix) {
    let width = form.headWidth
    var output = Matrix(q.rows, q.columns)
    var logSumExp = Matrix(q.rows, form.heads)
    forEachQuery(form) { i, h, g, seen in
      let s = scores(q, k, form, i, h, g, seen)
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
  ///     dp_ij = ⟨dy_i, v_j⟩      ds_ij = Σ_l dp_il ∂p_il/∂s_ij      ∂p_l/∂s_j = p_l (δ_lj − p_j)
  ///     dq_i = scale Σ_j ds_ij k_j      dk_j = scale Σ_i ds_ij q_i      dv_j = Σ_i p_ij dy_i
  ///
  /// The heads of a group add up in dk and dv.
  public static func attentionBackward(
    _ dy: Matrix, _ q: Matrix, _ k: Matrix, _ v: Matrix, _ form: AttentionForm
  ) -> (dq: Matrix, dk: Matrix, dv: Matrix) {
    let width = form.headWidth
    var dq = Matrix(q.rows, q.columns)
    var dk = Matrix(k.rows, k.columns)
    var dv = Matrix(v.rows, v.columns)
    forEachQuery(form) { i, h, g, seen in
      let first = seen.lowerBound
      let p = softmax(scores(q, k, form, i, h, g, seen))
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
