import Tensors

/// Causal self-attention with grouped heads and low-rank branches (Vaswani et al. 2017; Ainslie et al. 2023,
/// arXiv:2305.13245).
///
/// N tokens of packed sequences, C channels, H query heads, G key/value heads, D head width; query head h reads
/// group h / (H/G). i and j are rows of the same sequence, j ≤ i, and i − j < window where the layer has one.
/// u is x, or x with some elements dropped while training (``InputDropout``), σ the scale, usually 1/√D:
///
///     q, k, v = x Wqᵀ, x Wkᵀ, x Wvᵀ      (N,H·D), (N,G·D), (N,G·D)     each with its branches and bias
///     q, k    = rotated by position
///     P_ij    = softmax_j (σ q_i·k_j)                                  a head at a time
///     o_i     = Σ_j P_ij v_j              (N,H·D)        dv_j = Σ_i P_ij do_i
///     y       = o Woᵀ                     (N,C)          dP_ij = do_i·v_j
///                                                        dS_ij = P_ij (dP_ij − do_i·o_i)
///                                                        dq_i = σ Σ_j dS_ij k_j          dk_j = σ Σ_i dS_ij q_i
///
/// With a soft cap c (Gemma 2) the scores are S = c tanh(σ q·k / c), and dS gets the factor 1 − (S/c)². dk and dv of a group sum over
/// the query heads that read it; dq and dk are then rotated back. P is formed again in backward from log Σ exp of the scores, so
/// memory grows with N, not with N².
///
/// - Complexity: forward 4·N·C·(H + G)·D flops in the projections and about 2·N·T·H·D for sequences of length T without a window;
///   backward as many in the projections, and two and a half times as many for the sequences.
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
  /// H, G, D, σ, window and soft cap.
  public let form: AttentionForm
  /// What turns q and k.
  public let rotary: RotaryEmbedding<B>
  private let inputDropout: InputDropout<B>
  private let outputDropout: InputDropout<B>

  /// N·(2·H·D + 2·G·D + H + ranks) scalars; u is formed again.
  public struct Cache {
    let q: Tensor<B>  // (N,H·D)  rotated
    let k: Tensor<B>  // (N,G·D)  rotated
    let v: Tensor<B>  // (N,G·D)
    let o: Tensor<B>  // (N,H·D)
    let logSumExp: Tensor<B>  // (N,H)
    let thin: Thin
  }

  /// What the branches keep: N·ranks scalars.
  public struct Thin {
    let q, k, v, o: LoRALinear<B>.Cache
  }

  /// Attention from its four projections; `dropout` is each adapter's, of what its branches read.
  public init(
    path: String, q: LoRALinear<B>, k: LoRALinear<B>, v: LoRALinear<B>, o: LoRALinear<B>, form: AttentionForm,
    rotary: RotaryEmbedding<B>, dropout: [Double]
  ) {
    self.path = path
    (self.q, self.k, self.v, self.o) = (q, k, v, o)
    self.form = form
    self.rotary = rotary
    inputDropout = InputDropout(path: path + ".input", probabilities: dropout)
    outputDropout = InputDropout(path: path + ".o_proj.input", probabilities: dropout)
  }

  /// (N,C) → (N,C).
  ///
  /// - Parameter earlier: the keys and values of the rows before the batch's, which those of the batch then join: decoding. No
  ///   backward follows.
  public func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>? = nil) -> (
    y: Tensor<B>, cache: Cache
  ) {
    forward(x, keeping: nil, batch, run, earlier: earlier)
  }

  /// The same again, from the same x, batch and run, but for h of the branches, which was kept.
  public func forward(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    forward(x, keeping: thin, batch, run, earlier: nil)
  }

  private func forward(_ x: Tensor<B>, keeping kept: Thin?, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>?) -> (
    y: Tensor<B>, cache: Cache
  ) {
    func input(_ dropout: InputDropout<B>, _ x: Tensor<B>) -> LoRAInput<B> {
      kept == nil ? dropout.forward(x, batch, run) : LoRAInput(x: x, u: [])
    }
    let xs = input(inputDropout, x)
    var (qs, qCache) = q.forward(xs, batch, run, kept: kept?.q)  // (N,H·D)
    var (ks, kCache) = k.forward(xs, batch, run, kept: kept?.k)  // (N,G·D)
    var (vs, vCache) = v.forward(xs, batch, run, kept: kept?.v)  // (N,G·D)
    qs = rotary.forward(consume qs, batch, run)
    ks = rotary.forward(consume ks, batch, run)
    run.hook(&qs, path, "q_proj.rotated.output", "q turned by its position")
    run.hook(&ks, path, "k_proj.rotated.output", "k turned by its position")
    if let earlier { (ks, vs) = earlier.append(keys: ks, values: vs, batch, run) }  // (all rows kept,G·D) each
    var (os, logSumExp) = run.backend.attention(qs, ks, vs, batch.plan, form)  // (N,H·D), (N,H)
    run.hook(&os, path, "o_proj.input", "o_i = Σ_j P_ij v_j,  P = softmax(σ q kᵀ)")
    var (y, oCache) = o.forward(input(outputDropout, os), batch, run, kept: kept?.o)  // (N,C)
    run.hook(&y, path, "output", "y = o Woᵀ + b + s h Bᵀ")
    return (y, Cache(q: qs, k: ks, v: vs, o: os, logSumExp: logSumExp, thin: Thin(q: qCache, k: kCache, v: vCache, o: oCache)))
  }

  /// What the branches keep.
  public func thin(_ cache: Cache) -> Thin { cache.thin }

  /// dy (N,C) → dx (N,C), x being what forward read.
  ///
  /// - Precondition: the cache is of a forward over this batch without earlier rows.
  public func backward(_ dy: Tensor<B>, _ x: Tensor<B>, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var dy = dy
    run.hook(gradient: &dy, path, "output")
    // Apart from here on, so that each tensor is given back after its last use.
    let (qs, ks, vs, os, logSumExp, branches) = (cache.q, cache.k, cache.v, cache.o, cache.logSumExp, cache.thin)
    _ = consume cache
    // forward: y = o Woᵀ
    var oGradient = outputDropout.noGradient
    o.backward(dy, outputDropout.forward(os, batch, run), branches.o, into: &oGradient, batch, run)
    var dos = outputDropout.backward(&oGradient, batch, run)  // (N,H·D)
    run.hook(gradient: &dos, path, "o_proj.input")
    // forward: o = softmax(σ q kᵀ) v
    var (dq, dk, dv) = run.backend.attentionBackward(
      dos, qs, ks, vs, output: os, logSumExp: logSumExp, batch.plan, form)  // (N,H·D), (N,G·D), (N,G·D)
    // forward: q, k rotated
    run.hook(gradient: &dk, path, "k_proj.rotated.output")
    run.hook(gradient: &dq, path, "q_proj.rotated.output")
    dk = rotary.backward(consume dk, batch, run)
    dq = rotary.backward(consume dq, batch, run)
    // forward: q, k, v = x Wᵀ
    let input = inputDropout.forward(x, batch, run)  // the same key, so the same mask
    var gradient = inputDropout.noGradient
    v.backward(dv, input, branches.v, into: &gradient, batch, run)
    k.backward(dk, input, branches.k, into: &gradient, batch, run)
    q.backward(dq, input, branches.q, into: &gradient, batch, run)
    return inputDropout.backward(&gradient, batch, run)  // (N,C)
  }
}
