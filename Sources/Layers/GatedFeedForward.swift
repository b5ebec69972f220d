import Tensors

/// The dense feed-forward of a Llama block with low-rank branches (Shazeer 2020, arXiv:2002.05202, SwiGLU).
///
/// N tokens, C channels, F hidden width:
///
///     a = W1 x     c = W3 x     (N,F)     dh = dy W2
///     h = silu(a) ⊙ c           (N,F)     da = dh ⊙ c ⊙ silu′(a)      dc = dh ⊙ silu(a)
///     y = W2 h                  (N,C)     dx = da W1 + dc W3
///
/// each with its branches and bias (``LoRALinear``).
///
/// - Complexity: 6·N·C·F flops forward, as many backward.
public struct GatedFeedForward<B: Backend> {
  /// Module path: `model.layers.3.mlp`.
  public let path: String
  /// W1 (F,C), gate_proj.
  public let gate: LoRALinear<B>
  /// W3 (F,C), up_proj.
  public let up: LoRALinear<B>
  /// W2 (C,F), down_proj.
  public let down: LoRALinear<B>
  let inputDropout: InputDropout<B>
  let hiddenDropout: InputDropout<B>

  /// N·(C + 2·F + ranks) scalars; h is formed again.
  public struct Cache {
    let x: Tensor<B>  // (N,C)
    let a: Tensor<B>  // (N,F)
    let c: Tensor<B>  // (N,F)
    let branches: (gate: LoRALinear<B>.Cache, up: LoRALinear<B>.Cache, down: LoRALinear<B>.Cache)
  }

  /// A feed-forward of three linear layers.
  public init(path: String, gate: LoRALinear<B>, up: LoRALinear<B>, down: LoRALinear<B>, dropout: Double) {
    self.path = path
    (self.gate, self.up, self.down) = (gate, up, down)
    inputDropout = InputDropout(path: path + ".input", probability: dropout)
    hiddenDropout = InputDropout(path: path + ".down_proj.input", probability: dropout)
  }

  /// (N,C) → (N,C).
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    let input = inputDropout.forward(x, run)
    let (a, gateCache) = gate.forward(input, run)  // (N,F)
    let (c, upCache) = up.forward(input, run)  // (N,F)
    let h = hidden(a, c, run)  // (N,F)
    var (y, downCache) = down.forward(hiddenDropout.forward(h, run), run)  // (N,C)
    run.hook(&y, path, "output")
    return (y, Cache(x: x, a: a, c: c, branches: (gateCache, upCache, downCache)))
  }

  /// dy (N,C) → dx (N,C).
  public func backward(_ dy: Tensor<B>, _ cache: consuming Cache, _ run: Run<B>) -> Tensor<B> {
    var dy = dy
    run.hook(&dy, path, "output")
    // forward: y = W2 h
    let h = run.recomputing { hidden(cache.a, cache.c, run) }  // (N,F)
    var hGradient = LoRAInput<B>.Gradient()
    down.backward(dy, hiddenDropout.forward(h, run), cache.branches.down, into: &hGradient, run)
    var dh = hiddenDropout.backward(&hGradient, run)  // (N,F)
    run.hook(&dh, path, "hidden")
    // forward: h = silu(a) ⊙ c
    let (da, dc) = run.backend.swiGLUBackward(dh, cache.a, cache.c)  // (N,F) each
    // forward: c = W3 x, a = W1 x
    let input = inputDropout.forward(cache.x, run)
    var gradient = LoRAInput<B>.Gradient()
    up.backward(dc, input, cache.branches.up, into: &gradient, run)
    gate.backward(da, input, cache.branches.gate, into: &gradient, run)
    return inputDropout.backward(&gradient, run)  // (N,C)
  }

  private func hidden(_ a: Tensor<B>, _ c: Tensor<B>, _ run: Run<B>) -> Tensor<B> {
    var h = run.backend.swiGLU(a, c)  // (N,F)  silu(a) ⊙ c
    run.hook(&h, path, "hidden")
    return h
  }
}
