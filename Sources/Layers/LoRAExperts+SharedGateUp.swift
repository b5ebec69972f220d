import Tensors

/// The experts as the paper optimises them (arXiv:2404.15159, section 3.3, algorithm 1): W1 x and W3 x once a token, W2
/// once for every expert that the token chose.
///
/// The first half is ``forwardSharedInput(_:_:_:)``, the second that of the definition:
///
///     e_k = W2 h_k + b2 + s B2_k A2_k g_k      (C)      y = Σ_k w_k e_k
///
/// It holds for experts whose outputs are no longer linear in W2 h_k alone, where ``ExpertEvaluation/sharedBase`` does not.
///
/// - Complexity: (4 + 2·K)·N·C·F flops in frozen products forward, as many backward.
extension LoRAExperts {
  /// N·2·F + M·(C + 3·r) scalars; h is formed again.
  public struct SharedGateUpCache {
    let shared: SharedInput
    let output: EachOutput
  }

  func forwardSharedGateUp(_ input: LoRAInput<B>, _ routing: Routing<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: SharedGateUpCache) {
    let shared = forwardSharedInput(input, routing, run)
    let (_, _, h) = hidden(shared, routing, run)  // (M,F)
    let (y, output) = forwardEachOutput(h, routing, run)  // (N,C)
    return (y, SharedGateUpCache(shared: shared, output: output))
  }

  func backwardSharedGateUp(
    _ dy: Tensor<B>, _ input: LoRAInput<B>, _ routing: Routing<B>, _ cache: SharedGateUpCache, into gradient: inout LoRAInput<B>.Gradient,
    _ run: Run<B>
  ) -> Tensor<B> {
    let (a, c, h) = run.recomputing { hidden(cache.shared, routing, run) }  // (M,F) each
    // forward: y = Σ_k w_k e_k, e_k from h_k
    let (dh, dw) = backwardEachOutput(dy, h, cache.output, routing, run)  // (M,F), (M)
    // forward: h_k = silu(a_k) ⊙ c_k
    let (da, dc) = run.backend.swiGLUBackward(dh, a, c)  // (M,F)  da_k, dc_k
    // forward: a_k, c_k from W1 x, W3 x
    backwardSharedInput(da, dc, cache.shared, input, into: &gradient, routing, run)
    return dw
  }
}
