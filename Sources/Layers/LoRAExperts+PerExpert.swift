import Tensors

/// The experts by their definition: each (token, expert) pair is a row that runs through W1, W3 and W2.
///
/// Every line below is a line of the equations in ``LoRAExperts`` with a row for each of the M pairs; the derivatives
/// are those of a gated feed-forward with LoRA on three matrices. Nothing is shared and nothing is formed again, so
/// this is slow, large and plain: what the other evaluations are tested against.
///
/// - Complexity: 6·K·N·C·F flops in frozen products forward, as many backward.
extension LoRAExperts {
  /// M·(3·F + 2·C + 3·r) scalars.
  public struct PerExpertCache {
    let x: LoRAInput<B>  // (M,C)  x and u of each row's token
    let a: Tensor<B>  // (M,F)
    let c: Tensor<B>  // (M,F)
    let h: Tensor<B>  // (M,F)
    let t1: Tensor<B>?  // (M,r)  A1_k x
    let t3: Tensor<B>?  // (M,r)  A3_k x
    let output: EachOutput
  }

  func forwardPerExpert(_ input: LoRAInput<B>, _ routing: Routing<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: PerExpertCache) {
    let x = LoRAInput(x: run.backend.dispatch(input.x, routing), u: run.backend.dispatch(input.u, routing))  // (M,C)
    var (a, t1) = expertLinear(x, w1, lora1, routing, run)  // (M,F)  W1 x + b1 + s B1_k A1_k x
    run.hookExperts(&a, path, "gate_proj.output", routing)
    var (c, t3) = expertLinear(x, w3, lora3, routing, run)  // (M,F)  W3 x + b3 + s B3_k A3_k x
    run.hookExperts(&c, path, "up_proj.output", routing)
    var h = run.backend.swiGLU(a, c)  // (M,F)  silu(a_k) ⊙ c_k
    run.hookExperts(&h, path, "hidden", routing)
    let (y, output) = forwardEachOutput(h, routing, run)  // (N,C)  Σ_k w_k e_k
    return (y, PerExpertCache(x: x, a: a, c: c, h: h, t1: t1, t3: t3, output: output))
  }

  func backwardPerExpert(
    _ dy: Tensor<B>, _ input: LoRAInput<B>, _ routing: Routing<B>, _ cache: PerExpertCache, into gradient: inout LoRAInput<B>.Gradient,
    _ run: Run<B>
  ) -> Tensor<B> {
    // forward: y = Σ_k w_k e_k, e_k from h_k
    let (dh, dw) = backwardEachOutput(dy, cache.h, cache.output, routing, run)  // (M,F), (M)
    // forward: h_k = silu(a_k) ⊙ c_k
    var (da, dc) = run.backend.swiGLUBackward(dh, cache.a, cache.c)  // (M,F)  da_k, dc_k
    // forward: c_k = W3 x + b3 + s B3_k A3_k x, a_k alike
    var dx = LoRAInput<B>.Gradient()
    run.hookExperts(&dc, path, "up_proj.output", routing)
    backwardExpertLinear(dc, cache.x, cache.t3, w3, lora3, into: &dx, routing, run)
    run.hookExperts(&da, path, "gate_proj.output", routing)
    backwardExpertLinear(da, cache.x, cache.t1, w1, lora1, into: &dx, routing, run)
    // forward: x of each row's token
    if let dx = dx.dx { run.accumulate(run.backend.combine(dx, weights: nil, routing), into: &gradient.dx) }  // (N,C)
    if let du = dx.du { run.accumulate(run.backend.combine(du, weights: nil, routing), into: &gradient.du) }  // (N,C)
    return dw
  }
}

/// The second half of the experts where each runs W2 itself: the definition's and ``ExpertEvaluation/sharedGateUp``'s.
///
///     e_k = W2 h_k + b2 + s B2_k A2_k g_k      (C)      dw_k = ⟨dy, e_k⟩      de_k = w_k dy
///     y = Σ_k w_k e_k                          (C)      dh_k = W2ᵀ de_k + m_k ⊙ A2_kᵀ (s B2_kᵀ de_k)
extension LoRAExperts {
  /// M·(C + r) scalars.
  struct EachOutput {
    let e: Tensor<B>  // (M,C)
    let t2: Tensor<B>?  // (M,r)  A2_k g_k
  }

  func forwardEachOutput(_ h: Tensor<B>, _ routing: Routing<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: EachOutput) {
    var (e, t2) = expertLinear(LoRAInput(x: h, u: masked(h, routing, run)), w2, lora2, routing, run)  // (M,C)
    run.hookExperts(&e, path, "down_proj.output", routing)
    let y = run.backend.combine(e, weights: routing.weights, routing)  // (N,C)  Σ_k w_k e_k
    return (y, EachOutput(e: e, t2: t2))
  }

  func backwardEachOutput(_ dy: Tensor<B>, _ h: Tensor<B>, _ cache: EachOutput, _ routing: Routing<B>, _ run: Run<B>)
    -> (dh: Tensor<B>, dw: Tensor<B>)
  {
    // forward: y = Σ_k w_k e_k
    var de = run.backend.dispatch(dy, routing)  // (M,C)  dy of each row's token
    let dw = run.backend.rowDots(de, cache.e)  // (M)  ⟨dy, e_k⟩
    run.backend.scaleRows(routing.weights, &de)  // (M,C)  w_k dy
    run.hookExperts(&de, path, "down_proj.output", routing)
    // forward: e_k = W2 h_k + b2 + s B2_k A2_k g_k
    var gradient = LoRAInput<B>.Gradient()
    backwardExpertLinear(de, LoRAInput(x: h, u: masked(h, routing, run)), cache.t2, w2, lora2, into: &gradient, routing, run)
    guard var dh = gradient.dx.take() else { trap("\(path): no gradient arrived at h") }  // (M,F)
    if let du = gradient.du.take() { run.backend.add(1, masked(du, routing, run), into: &dh) }
    run.hookExperts(&dh, path, "hidden", routing)
    return (dh, dw)
  }

  /// W x + b + s B_k A_k u for rows ordered by expert, and t_k = A_k u (u is g_k for W2): (M,I) → (M,O), (M,r).
  private func expertLinear(_ x: LoRAInput<B>, _ w: Linear<B>, _ lora: ExpertLoRA<B>?, _ routing: Routing<B>, _ run: Run<B>)
    -> (y: Tensor<B>, t: Tensor<B>?)
  {
    var y = w.forward(x.x, run)  // (M,O)  W x + b
    guard let lora else { return (y, nil) }
    let t = run.groupedMatmul(1, x.u, lora.aOfRow.T, routing)  // (M,r)  A_k u
    run.addGroupedProduct(lora.scale, t, lora.bOfRow.T, into: &y, routing)  // (M,O)  + s B_k t_k
    return (y, t)
  }

  private func backwardExpertLinear(
    _ dy: Tensor<B>, _ x: LoRAInput<B>, _ t: Tensor<B>?, _ w: Linear<B>, _ lora: ExpertLoRA<B>?, into gradient: inout LoRAInput<B>.Gradient,
    _ routing: Routing<B>, _ run: Run<B>
  ) {
    if let lora, let t {
      // forward: y += s B_k t_k
      let dt = run.groupedMatmul(lora.scale, dy, lora.bOfRow, routing)  // (M,r)  s B_kᵀ dy
      run.backend.groupedOuter(lora.scale, dy, t, into: &lora.b.gradient, stackedAlong: .columns, routing)  // + s dy t_kᵀ
      // forward: t_k = A_k u
      run.backend.groupedOuter(1, dt, x.u, into: &lora.a.gradient, stackedAlong: .rows, routing)  // + dt uᵀ
      let du = run.groupedMatmul(1, dt, lora.aOfRow, routing)  // (M,I)  A_kᵀ dt
      run.accumulate(du, into: &gradient.du)
    }
    // forward: y = W x + b
    w.backward(dy, x.x, into: &gradient.dx, run)  // (M,I)  + Wᵀ dy
  }
}
