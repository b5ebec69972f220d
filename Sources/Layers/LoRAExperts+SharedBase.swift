import Tensors

/// The experts with every frozen product shared: three of them a token, the cost of one dense feed-forward.
///
/// For one token, with the letters of ``LoRAExperts`` (g_k is h_k, or m_k ⊙ h_k under dropout):
///
///     a_k, c_k, h_k as in ``forwardSharedInput(_:_:_:)``
///     t2_k = A2_k g_k                          (r)
///     v = Σ_k w_k h_k                          (F)
///     y = W2 v + (Σ_k w_k) b2 + s Σ_k B2_k (w_k t2_k)
///
/// Backward, from dy. The products with W2 do not depend on the expert, so one W2ᵀ dy serves all:
///
///     W2ᵀ dy (F), once         z_k = s B2_kᵀ dy (r)           dB2_k = s Σ dy (w_k t2_k)ᵀ
///     q_k = W2ᵀ dy + m_k ⊙ A2_kᵀ z_k                          the gradient of ⟨dy, e_k⟩ with respect to h_k
///     dw_k = ⟨q_k, h_k⟩ + ⟨dy, b2⟩                            = ⟨dy, e_k⟩, without forming W2 h_k
///     dh_k = w_k q_k                                          dA2_k = Σ (w_k z_k) g_kᵀ
///     da_k = dh_k ⊙ c_k ⊙ silu′(a_k)      dc_k = dh_k ⊙ silu(a_k)
///
/// If trained: dW2 = Σ dy vᵀ, db2 = Σ (Σ_k w_k) dy, over all tokens.
///
/// - Complexity: 6·N·C·F flops in frozen products forward, as many backward; about 2·N·(K·F + E·C)·3·r in branches.
extension LoRAExperts {
  /// N·2·F + 3·M·r scalars: a, c and h are formed again in backward, for they are K times as large as W1 x.
  public struct SharedBaseCache {
    let shared: SharedInput
    let t2: Tensor<B>?  // (M,r)  A2_k g_k
  }

  func forwardSharedBase(_ input: LoRAInput<B>, _ routing: Routing<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: SharedBaseCache) {
    let backend = run.backend
    let shared = forwardSharedInput(input, routing, run)  // W1 x, W3 x, A1_k x, A3_k x
    let (_, _, h) = hidden(shared, routing, run)  // (M,F)

    let v = backend.combine(h, weights: routing.weights, routing)  // (N,F)  Σ_k w_k h_k
    var y = run.matmul(v, w2.weight.T)  // (N,C)  W2 v
    if let b2 = w2.bias {
      run.addProduct(1, weightSums(routing, run), run.vector(b2), into: &y)  // (N,C)  + (Σ_k w_k) b2
    }
    var t2: Tensor<B>?
    if let lora2 {
      let t = run.groupedMatmul(1, masked(h, routing, run), lora2.aOfRow.T, routing)  // (M,r)  A2_k g_k
      let weighted = backend.combineBlocks(t, weights: routing.weights, routing)  // (N,E·r)  w_k t2_k
      run.addProduct(lora2.scale, weighted, lora2.b.value.T, into: &y)  // (N,C)  + s Σ_k B2_k (w_k t2_k)
      t2 = t
    }
    return (y, SharedBaseCache(shared: shared, t2: t2))
  }

  func backwardSharedBase(
    _ dy: Tensor<B>, _ input: LoRAInput<B>, _ routing: Routing<B>, _ cache: SharedBaseCache, into gradient: inout LoRAInput<B>.Gradient,
    _ run: Run<B>
  ) -> Tensor<B> {
    let backend = run.backend
    // The same a, c and h again, whatever a hook replaced included.
    let (a, c, h) = run.recomputing { hidden(cache.shared, routing, run) }  // (M,F) each

    // forward: y = W2 v
    var q = backend.dispatch(run.matmul(dy, w2.weight), routing)  // (M,F)  W2ᵀ dy
    if let w = w2.weight.parameter {
      let v = backend.combine(h, weights: routing.weights, routing)  // (N,F)
      run.addProduct(1, dy.T, v, into: &w.gradient)  // (C,F)  + dy vᵀ
    }
    // forward: y += s Σ_k B2_k (w_k t2_k),  t2_k = A2_k g_k
    if let lora2, let t2 = cache.t2 {
      let weighted = backend.combineBlocks(t2, weights: routing.weights, routing)  // (N,E·r)  w_k t2_k
      run.addProduct(lora2.scale, dy.T, weighted, into: &lora2.b.gradient)  // (C,E·r)  + s dy (w_k t2_k)ᵀ
      var z = backend.dispatchBlocks(run.scaledMatmul(lora2.scale, dy, lora2.b.value), routing)  // (M,r)  s B2_kᵀ dy
      addMasked(z, lora2, into: &q, routing, run)  // (M,F)  + m_k ⊙ A2_kᵀ z_k
      backend.scaleRows(routing.weights, &z)  // (M,r)  w_k z_k
      let g = masked(h, routing, run)  // (M,F)  g_k
      backend.groupedOuter(1, z, g, into: &lora2.a.gradient, stackedAlong: .rows, routing)  // (E·r,F)  + (w_k z_k) g_kᵀ
    }
    // forward: y = Σ_k w_k e_k
    var dw = backend.rowDots(q, h)  // (M)  ⟨q_k, h_k⟩
    // forward: y += (Σ_k w_k) b2
    if let b2 = w2.bias {
      let dyb2 = run.matmul(dy, run.vector(b2).asColumn)  // (N,1)  ⟨dy, b2⟩
      backend.add(1, backend.dispatch(dyb2, routing).asVector, into: &dw)
      if let b = b2.parameter {
        backend.addColumnSums(dy, weights: weightSums(routing, run).asVector, into: &b.gradient)  // (C)  + (Σ_k w_k) dy
      }
    }
    // forward: v = Σ_k w_k h_k
    backend.scaleRows(routing.weights, &q)  // (M,F)  q is dh_k = w_k q_k now
    run.hookExperts(&q, path, "hidden", routing)
    // forward: h_k = silu(a_k) ⊙ c_k
    let (da, dc) = backend.swiGLUBackward(q, a, c)  // (M,F)  da_k, dc_k
    // forward: a_k, c_k from W1 x, W3 x
    backwardSharedInput(da, dc, cache.shared, input, into: &gradient, routing, run)
    return dw
  }

  /// q += m_k ⊙ (A2_kᵀ z_k), (M,F).
  private func addMasked(_ z: Tensor<B>, _ lora2: ExpertLoRA<B>, into q: inout Tensor<B>, _ routing: Routing<B>, _ run: Run<B>) {
    guard run.isTraining, dropout > 0 else { return run.addGroupedProduct(1, z, lora2.aOfRow, into: &q, routing) }
    run.backend.add(1, masked(run.groupedMatmul(1, z, lora2.aOfRow, routing), routing, run), into: &q)
  }

  /// Σ_k w_k of every token, as a column (N,1): what b2 is multiplied with.
  private func weightSums(_ routing: Routing<B>, _ run: Run<B>) -> Tensor<B> {
    run.backend.combine(routing.weights.asColumn, weights: nil, routing)
  }
}
