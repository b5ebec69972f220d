import Tensors

/// Causal self-attention with grouped heads and low-rank branches (Vaswani et al. 2017; Ainslie et al. 2023,
/// arXiv:2305.13245).
///
/// N tokens of packed sequences, C channels, H query heads, G key/value heads, D head width; query head h reads
/// group h / (H/G). i and j are rows of the same sequence, j ≤ i, and i − j < window where the layer has one.
/// u is x, or x with some elements dropped while training (``InputDropout``):
///
///     q, k, v = x Wqᵀ, x Wkᵀ, x Wvᵀ      (N,H·D), (N,G·D), (N,G·D)     each with its branches and bias
///     q, k    = rotated by position
///     P_ij    = softmax_j (q_i·k_j / √D)                               a head at a time
///     o_i     = Σ_j P_ij v_j              (N,H·D)        dv_j = Σ_i P_ij do_i
///     y       = o Woᵀ                     (N,C)          dP_ij = do_i·v_j
///                                                        dS_ij = P_ij (dP_ij − Σ_l P_il dP_il)
///                                                        dq_i = Σ_j dS_ij k_j / √D       dk_j = Σ_i dS_ij q_i / √D
///
/// dk and dv of a group sum over the query heads that read it; dq and dk are then rotated back. P is formed again in
/// backward from log Σ exp of the scores, so memory grows with N, not with N².
///
/// - Complexity: 4·N·C·(H + G)·D flops in the projections and about 2·N·T·H·D for sequences of length T, forward.
public struct Attention<B: Backend> {
  /// Module path: `model.layers.3.self_attn`.
  public let path: String
  /// Wq (H·D,C) and its branches.
  public let q: LoRALinear<B>
  /// Wk (G·D,C) and its branches.
  public let k: LoRALinear<B>
  /// Wv (G·D,C) and its branches.
  public let v: LoRALinear<B>
  /// Wo (C,H·D) and its branches.
  public let o: LoRALinear<B>
  /// Query heads H.
  public let heads: Int
  /// Key/value heads G.
  public let keyValueHeads: Int
  /// Rows that a row sees, itself included; nil for all before it.
  public let window: Int?
  /// Dropout of what the branches read.
  let inputDropout: InputDropout<B>
  let outputDropout: InputDropout<B>
  let rotary: RotaryEmbedding<B>

  /// N·(C + 2·H·D + 2·G·D + H + ranks) scalars.
  public struct Cache {
    let x: Tensor<B>  // (N,C)
    let q: Tensor<B>  // (N,H·D)  rotated
    let k: Tensor<B>  // (N,G·D)  rotated
    let v: Tensor<B>  // (N,G·D)
    let o: Tensor<B>  // (N,H·D)
    let logSumExp: Tensor<B>  // (N,H)
    let branches: (q: LoRALinear<B>.Cache, k: LoRALinear<B>.Cache, v: LoRALinear<B>.Cache, o: LoRALinear<B>.Cache)
  }

  /// Attention from its four projections.
  public init(
    path: String, q: LoRALinear<B>, k: LoRALinear<B>, v: LoRALinear<B>, o: LoRALinear<B>, heads: Int, keyValueHeads: Int,
    window: Int? = nil, rotary: RotaryEmbedding<B>, dropout: Double
  ) {
    self.path = path
    (self.q, self.k, self.v, self.o) = (q, k, v, o)
    self.heads = heads
    self.keyValueHeads = keyValueHeads
    self.window = window
    self.rotary = rotary
    inputDropout = InputDropout(path: path + ".input", probability: dropout)
    outputDropout = InputDropout(path: path + ".o_proj.input", probability: dropout)
  }

  /// (N,C) → (N,C).
  ///
  /// - Parameter earlier: the keys and values of the rows before the batch's, which those of the batch then join: decoding. No
  ///   backward follows.
  public func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>? = nil) -> (
    y: Tensor<B>, cache: Cache
  ) {
    let input = inputDropout.forward(x, run)
    var (qs, qCache) = q.forward(input, run)  // (N,H·D)
    var (ks, kCache) = k.forward(input, run)  // (N,G·D)
    var (vs, vCache) = v.forward(input, run)  // (N,G·D)
    rotary.forward(&qs, batch, run)
    rotary.forward(&ks, batch, run)
    var keyRows: [Range<Int>]?
    if let earlier { (ks, vs, keyRows) = earlier.append(keys: ks, values: vs, offsets: batch.offsets, run) }  // (S·P,G·D) each
    let (os, logSumExp) = run.backend.attention(qs, ks, vs, form(batch, keyRows))  // (N,H·D), (N,H)
    var (y, oCache) = o.forward(outputDropout.forward(os, run), run)  // (N,C)
    run.hook(&y, path, "output")
    return (y, Cache(x: x, q: qs, k: ks, v: vs, o: os, logSumExp: logSumExp, branches: (qCache, kCache, vCache, oCache)))
  }

  /// dy (N,C) → dx (N,C).
  public func backward(_ dy: Tensor<B>, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var dy = dy
    run.hook(&dy, path, "output")
    // forward: y = o Woᵀ
    var oGradient = LoRAInput<B>.Gradient()
    o.backward(dy, outputDropout.forward(cache.o, run), cache.branches.o, into: &oGradient, run)
    let dos = outputDropout.backward(&oGradient, run)  // (N,H·D)
    // forward: o = softmax(q kᵀ / √D) v
    var (dq, dk, dv) = run.backend.attentionBackward(
      dos, cache.q, cache.k, cache.v, logSumExp: cache.logSumExp, form(batch))  // (N,H·D), (N,G·D), (N,G·D)
    // forward: q, k rotated
    rotary.backward(&dk, batch, run)
    rotary.backward(&dq, batch, run)
    // forward: q, k, v = x Wᵀ
    let input = inputDropout.forward(cache.x, run)  // the same key, so the same mask
    var gradient = LoRAInput<B>.Gradient()
    v.backward(dv, input, cache.branches.v, into: &gradient, run)
    k.backward(dk, input, cache.branches.k, into: &gradient, run)
    q.backward(dq, input, cache.branches.q, into: &gradient, run)
    return inputDropout.backward(&gradient, run)  // (N,C)
  }

  private func form(_ batch: PackedBatch<B>, _ keyRows: [Range<Int>]? = nil) -> AttentionForm {
    AttentionForm(
      heads: heads, keyValueHeads: keyValueHeads, headWidth: rotary.headWidth, scale: 1 / Double(rotary.headWidth).squareRoot(),
      offsets: batch.offsets, window: window, keyRows: keyRows)
  }
}
