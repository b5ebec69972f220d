import Tensors

/// The experts as the paper optimizes them (arXiv:2404.15159, section 3.3, algorithm 1): W1 x and W3 x once a token, W2
/// once for every expert that the token chose.
///
/// The first half is that of ``ExpertEvaluation/sharedBase``, the second that of the definition:
///
///     a_k, c_k, h_k from base1 = W1 x + b1, base3 = W3 x + b3
///     e_k = W2 h_k + b2 + s B2_k A2_k g_k      (C)      y = Σ_k w_k e_k
///
/// It holds for experts whose outputs are no longer linear in W2 h_k alone, where ``ExpertEvaluation/sharedBase`` does not.
///
/// - Complexity: (4·N + 2·M)·C·F flops in frozen products forward (M is K·N where every token has K experts), as many backward.
extension LoRAExperts {
  /// N·2·F + M·(C + 3·r) scalars; a, c and h are formed again.
  struct SharedGateUpCache {
    let base1: Tensor<B>  // (N,F)
    let base3: Tensor<B>  // (N,F)
    let branches: SharedCache
    let output: EachOutput
  }

  /// y of the adapter's n rows, (n,C), from x and u (n,C).
  func forwardSharedGateUp(
    _ x: Tensor<B>, _ u: Tensor<B>, _ frozen: GatedLinears<B>, _ routing: Routing<B>, _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> (y: Tensor<B>, cache: SharedGateUpCache) {
    var base1 = frozen.gate.forward(x, run)  // (N,F)  W1 x + b1
    var base3 = frozen.up.forward(x, run)  // (N,F)  W3 x + b3
    run.hook(&base1, path, "gate_proj.base.output", "W1 x + b1")
    run.hook(&base3, path, "up_proj.base.output", "W3 x + b3")
    let (t1, t3) = lowRanks(u, routing, run)  // (M,r)
    let (_, _, h) = hidden(base1, base3, t1, t3, frozen, routing, run)  // (M,F)
    let (y, output) = forwardEachOutput(h, frozen, routing, batch, run)  // (N,C)
    return (y, SharedGateUpCache(base1: base1, base3: base3, branches: SharedCache(t1: t1, t3: t3, t2: nil), output: output))
  }

  /// Adds to dx and du, (n,C) each, where nil counts as zero; dw (M), the gradient of the weights, is for the router.
  func backwardSharedGateUp(
    _ dy: Tensor<B>, _ x: Tensor<B>, _ u: Tensor<B>, _ frozen: GatedLinears<B>, _ routing: Routing<B>, _ cache: SharedGateUpCache,
    into dx: inout Tensor<B>?, _ du: inout Tensor<B>?, _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> Tensor<B> {
    let (a, c, h) = run.recomputing {  // (M,F) each
      hidden(cache.base1, cache.base3, cache.branches.t1, cache.branches.t3, frozen, routing, run)
    }
    // forward: y = Σ_k w_k e_k, e_k from h_k
    let (dh, dw) = backwardEachOutput(dy, h, frozen, cache.output, routing, batch, run)  // (M,F), (M)
    // forward: h_k = act(a_k) ⊙ c_k
    let (da, dc) = run.backend.gatedBackward(activation, dh, a, c)  // (M,F)  da_k, dc_k
    // forward: a_k, c_k from base1, base3
    var dbase3 = backwardInput(.rows(dc), isUp: true, cache.branches, u, routing, into: &du, run)  // (N,F)
    run.hook(gradient: &dbase3, path, "up_proj.base.output")
    frozen.up.backward(dbase3, x, into: &dx, run)  // (N,C)  + W3ᵀ dbase3
    var dbase1 = backwardInput(.rows(da), isUp: false, cache.branches, u, routing, into: &du, run)  // (N,F)
    run.hook(gradient: &dbase1, path, "gate_proj.base.output")
    frozen.gate.backward(dbase1, x, into: &dx, run)  // (N,C)  + W1ᵀ dbase1
    return dw
  }
}
