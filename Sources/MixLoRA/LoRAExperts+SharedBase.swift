import Tensors

/// The experts with every frozen product shared: three of them a token, the cost of one dense feed-forward.
///
/// For one token (``LoRAExperts`` names the letters; with dropout A1, A3 read u and A2_k reads m_k ⊙ h_k):
///
///     t1_k = A1_k x     t3_k = A3_k x          (r)
///     a_k = W1 x + s B1_k t1_k                 (F)      c_k alike with W3, B3, t3
///     h_k = silu(a_k) ⊙ c_k                    (F)
///     t2_k = A2_k h_k                          (r)
///     u = Σ_k w_k h_k                          (F)      not the u that branches read: the weighted sum of hidden rows
///     y = W2 u + (Σ_k w_k) b2 + s Σ_k B2_k (w_k t2_k)
///
/// Backward, from dy. The products with W2 do not depend on the expert, so one W2ᵀ dy serves all:
///
///     g = W2ᵀ dy       v_k = s B2_kᵀ dy                 dB2_k = s Σ dy (w_k t2_k)ᵀ
///     q_k = g + A2_kᵀ v_k                               the gradient of ⟨dy, e_k⟩ with respect to h_k
///     dw_k = ⟨q_k, h_k⟩ + ⟨dy, b2⟩                      = ⟨dy, e_k⟩, without forming W2 h_k
///     dh_k = w_k q_k                                    dA2_k = Σ (w_k v_k) h_kᵀ
///     da_k = dh_k ⊙ c_k ⊙ silu′(a_k)                    dB1_k = s Σ da_k t1_kᵀ      dA1_k = Σ (s B1_kᵀ da_k) xᵀ
///     dc_k = dh_k ⊙ silu(a_k)                           dB3_k, dA3_k alike
///     dx = W1ᵀ Σ_k da_k + W3ᵀ Σ_k dc_k + Σ_k A1_kᵀ (s B1_kᵀ da_k) + Σ_k A3_kᵀ (s B3_kᵀ dc_k)
///
/// where Σ without an index runs over the tokens that chose expert k. If trained: dW2 = Σ dy uᵀ, dW1 = Σ (Σ_k da_k) xᵀ,
/// dW3 alike, db2 = Σ (Σ_k w_k) dy, db1 = Σ Σ_k da_k, db3 alike.
///
/// - Complexity: 6·N·C·F flops in frozen products forward, as many backward; about 2·N·(K·F + E·C)·3·r in branches.
extension LoRAExperts {
  /// N·2·F + 3·M·r scalars: a, c and h are formed again in backward, for they are K times as large as W1 x.
  public struct SharedBaseCache {
    let shared: SharedInput
    let t2: Tensor<B>?  // (M,r)  A2_k h_k
  }

  func forwardSharedBase(_ input: LoRAInput<B>, _ routing: Routing<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: SharedBaseCache) {
    let backend = run.backend
    let shared = forwardSharedInput(input, routing, run)  // W1 x, W3 x, A1_k x, A3_k x
    let (_, _, h) = hidden(shared, routing, run)  // (M,F)

    let u = backend.combine(h, weights: routing.weights, routing)  // (N,F)  Σ_k w_k h_k
    var y = run.matmul(u, w2.weight.T)  // (N,C)  W2 u
    if let b2 = w2.bias {
      run.addProduct(1, weightSums(routing, run), run.vector(b2), into: &y)  // (N,C)  + (Σ_k w_k) b2
    }
    var t2: Tensor<B>?
    if let lora2 {
      let t = run.groupedMatmul(1, masked(h, routing, run), lora2.aOfRow.T, routing)  // (M,r)  A2_k h_k
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

    // forward: y = W2 u
    let g = run.matmul(dy, w2.weight)  // (N,F)  W2ᵀ dy
    if let w = w2.weight.parameter {
      let u = backend.combine(h, weights: routing.weights, routing)  // (N,F)
      run.addProduct(1, dy.T, u, into: &w.gradient)  // (C,F)  + dy uᵀ
    }
    var q = backend.dispatch(g, routing)  // (M,F)
    // forward: y += s Σ_k B2_k (w_k t2_k),  t2_k = A2_k h_k
    if let lora2, let t2 = cache.t2 {
      let weighted = backend.combineBlocks(t2, weights: routing.weights, routing)  // (N,E·r)  w_k t2_k
      run.addProduct(lora2.scale, dy.T, weighted, into: &lora2.b.gradient)  // (C,E·r)  + s dy (w_k t2_k)ᵀ
      var v = backend.dispatchBlocks(run.scaledMatmul(lora2.scale, dy, lora2.b.value), routing)  // (M,r)  v_k = s B2_kᵀ dy
      addMasked(v, lora2, into: &q, routing, run)  // (M,F)  + A2_kᵀ v_k
      backend.scaleRows(routing.weights, &v)  // (M,r)  w_k v_k
      backend.groupedOuter(1, v, masked(h, routing, run), into: &lora2.a.gradient, stackedAlong: .rows, routing)  // (E·r,F)  + (w_k v_k) h_kᵀ
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
    // forward: u = Σ_k w_k h_k
    backend.scaleRows(routing.weights, &q)  // (M,F)  q is dh_k = w_k q_k now
    run.hookExperts(&q, path, "hidden", routing)
    // forward: h_k = silu(a_k) ⊙ c_k
    let (da, dc) = backend.swiGLUBackward(q, a, c)  // (M,F)  da_k, dc_k
    // forward: a_k, c_k from W1 x, W3 x
    backwardSharedInput(da, dc, cache.shared, input, into: &gradient, routing, run)
    return dw
  }

  /// q += m_k ⊙ (A2_kᵀ v_k), (M,F).
  private func addMasked(_ v: Tensor<B>, _ lora2: ExpertLoRA<B>, into q: inout Tensor<B>, _ routing: Routing<B>, _ run: Run<B>) {
    guard run.isTraining, dropout > 0 else { return run.addGroupedProduct(1, v, lora2.aOfRow, into: &q, routing) }
    run.backend.add(1, masked(run.groupedMatmul(1, v, lora2.aOfRow, routing), routing, run), into: &q)
  }

  /// Σ_k w_k of every token, as a column (N,1): what b2 is multiplied with.
  private func weightSums(_ routing: Routing<B>, _ run: Run<B>) -> Tensor<B> {
    run.backend.combine(routing.weights.asColumn, weights: nil, routing)
  }
}
