import Tensors

/// The experts by their definition: each (token, expert) pair is a row that runs through W1, W3 and W2.
///
/// Every line below is a line of the equations in ``LoRAExperts`` with a row for each of the M pairs; the derivatives
/// are those of a gated feed-forward with LoRA on three matrices. Nothing is shared and nothing but masks is formed again, so
/// this is slow, large and plain: what the other evaluations are tested against.
///
/// - Complexity: 6·M·C·F flops in frozen products forward (M is K·N where every token has K experts), as many backward.
extension LoRAExperts {
  /// M·(3·F + 3·C + 3·r) scalars, `output` included.
  struct PerExpertCache {
    let x: Tensor<B>  // (M,C)  x of each row's token
    let u: Tensor<B>  // (M,C)  u of each row's token
    let a: Tensor<B>  // (M,F)
    let c: Tensor<B>  // (M,F)
    let h: Tensor<B>  // (M,F)
    let t1: Tensor<B>?  // (M,r)  A1_k u
    let t3: Tensor<B>?  // (M,r)  A3_k u
    let output: EachOutput
  }

  /// y of the adapter's n rows, (n,C), from x and u (n,C).
  func forwardPerExpert(
    _ x: Tensor<B>, _ u: Tensor<B>, _ frozen: GatedLinears<B>, _ routing: Routing<B>, _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> (y: Tensor<B>, cache: PerExpertCache) {
    let (x, u) = (run.backend.dispatch(x, routing), run.backend.dispatch(u, routing))  // (M,C)
    var (a, t1) = expertLinear(x, u, frozen.gate, lora1, routing, run)  // (M,F)  W1 x + b1 + s B1_k A1_k u
    run.hook(experts: routing, &a, path, "gate_proj.output", "a_k = W1 x + b1 + s B1_k A1_k u")
    var (c, t3) = expertLinear(x, u, frozen.up, lora3, routing, run)  // (M,F)  W3 x + b3 + s B3_k A3_k u
    run.hook(experts: routing, &c, path, "up_proj.output", "c_k = W3 x + b3 + s B3_k A3_k u")
    var h = run.backend.gated(activation, a, c)  // (M,F)  act(a_k) ⊙ c_k
    run.hook(experts: routing, &h, path, "hidden", "h_k = act(a_k) ⊙ c_k")
    let (y, output) = forwardEachOutput(h, frozen, routing, batch, run)  // (N,C)  Σ_k w_k e_k
    return (y, PerExpertCache(x: x, u: u, a: a, c: c, h: h, t1: t1, t3: t3, output: output))
  }

  /// Adds to dx and du, (n,C) each, where nil counts as zero; dw (M), the gradient of the weights, is for the router.
  func backwardPerExpert(
    _ dy: Tensor<B>, _ x: Tensor<B>, _ u: Tensor<B>, _ frozen: GatedLinears<B>, _ routing: Routing<B>, _ cache: PerExpertCache,
    into dx: inout Tensor<B>?, _ du: inout Tensor<B>?, _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> Tensor<B> {
    // forward: y = Σ_k w_k e_k, e_k from h_k
    let (dh, dw) = backwardEachOutput(dy, cache.h, frozen, cache.output, routing, batch, run)  // (M,F), (M)
    // forward: h_k = act(a_k) ⊙ c_k
    var (da, dc) = run.backend.gatedBackward(activation, dh, cache.a, cache.c)  // (M,F)  da_k, dc_k
    // forward: c_k = W3 x + b3 + s B3_k A3_k u, a_k alike
    var (dxRows, duRows): (Tensor<B>?, Tensor<B>?)  // (M,C)
    run.hook(experts: routing, gradient: &dc, path, "up_proj.output")  // (M,F)
    backwardExpertLinear(dc, cache.x, cache.u, cache.t3, frozen.up, lora3, into: &dxRows, &duRows, routing, run)
    run.hook(experts: routing, gradient: &da, path, "gate_proj.output")
    backwardExpertLinear(da, cache.x, cache.u, cache.t1, frozen.gate, lora1, into: &dxRows, &duRows, routing, run)
    // forward: x and u of each row's token
    if let dxRows { run.backend.add(run.backend.combine(dxRows, weights: nil, routing), into: &dx) }  // (N,C)
    if let duRows { run.backend.add(run.backend.combine(duRows, weights: nil, routing), into: &du) }  // (N,C)
    return dw
  }

  // MARK: The second half, where each expert runs W2 itself
  //
  //     e_k = W2 h_k + b2 + s B2_k A2_k g_k      (C)      dw_k = ⟨dy, e_k⟩      de_k = w_k dy
  //     y = Σ_k w_k e_k                          (C)      dh_k = W2ᵀ de_k + m_k ⊙ A2_kᵀ (s B2_kᵀ de_k)

  /// M·(C + r) scalars.
  struct EachOutput {
    let e: Tensor<B>  // (M,C)
    let t2: Tensor<B>?  // (M,r)  A2_k g_k
  }

  /// y (N,C) from h (M,F).
  func forwardEachOutput(_ h: Tensor<B>, _ frozen: GatedLinears<B>, _ routing: Routing<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> (
    y: Tensor<B>, cache: EachOutput
  ) {
    var (e, t2) = expertLinear(h, masked(h, routing, batch, run), frozen.down, lora2, routing, run)  // (M,C)
    run.hook(experts: routing, &e, path, "down_proj.output", "e_k = W2 h_k + b2 + s B2_k A2_k g_k")
    let y = run.backend.combine(e, weights: routing.weights, routing)  // (N,C)  Σ_k w_k e_k
    return (y, EachOutput(e: e, t2: t2))
  }

  /// dh (M,F) and dw (M) from dy (N,C).
  func backwardEachOutput(
    _ dy: Tensor<B>, _ h: Tensor<B>, _ frozen: GatedLinears<B>, _ cache: EachOutput, _ routing: Routing<B>, _ batch: PackedBatch<B>,
    _ run: Run<B>
  ) -> (dh: Tensor<B>, dw: Tensor<B>) {
    // forward: y = Σ_k w_k e_k
    var de = run.backend.dispatch(dy, routing)  // (M,C)  dy of each row's token
    let dw = run.backend.rowDots(de, cache.e)  // (M)  ⟨dy, e_k⟩
    run.backend.scaleRows(routing.weights, &de)  // (M,C)  w_k dy
    run.hook(experts: routing, gradient: &de, path, "down_proj.output")
    // forward: e_k = W2 h_k + b2 + s B2_k A2_k g_k
    var (dhSum, dg): (Tensor<B>?, Tensor<B>?)  // (M,F)
    backwardExpertLinear(de, h, masked(h, routing, batch, run), cache.t2, frozen.down, lora2, into: &dhSum, &dg, routing, run)
    guard var dh = dhSum.take() else { trap("\(path): no gradient arrived at h") }  // (M,F)
    if let dg { run.backend.add(1, masked(dg, routing, batch, run), into: &dh) }
    run.hook(experts: routing, gradient: &dh, path, "hidden")
    return (dh, dw)
  }

  // MARK: One linear layer of every expert

  /// W x + b + s B_k A_k u for rows ordered by expert, and t_k = A_k u: (M,I) → (M,O), (M,r).
  private func expertLinear(
    _ x: Tensor<B>, _ u: Tensor<B>, _ w: Linear<B>, _ lora: ExpertLoRA<B>?, _ routing: Routing<B>, _ run: Run<B>
  ) -> (y: Tensor<B>, t: Tensor<B>?) {
    var y = w.forward(x, run)  // (M,O)  W x + b
    guard let lora else { return (y, nil) }
    let t = run.backend.groupedMatmul(1, u, lora.aOfRow.T, routing)  // (M,r)  A_k u
    run.backend.addGroupedProduct(lora.scale, t, lora.bOfRow.T, into: &y, routing)  // (M,O)  + s B_k t_k
    return (y, t)
  }

  /// Adds to the gradients of x and u, (M,I) each, where nil counts as zero, and of everything trained.
  private func backwardExpertLinear(
    _ dy: Tensor<B>, _ x: Tensor<B>, _ u: Tensor<B>, _ t: Tensor<B>?, _ w: Linear<B>, _ lora: ExpertLoRA<B>?,
    into dx: inout Tensor<B>?, _ du: inout Tensor<B>?, _ routing: Routing<B>, _ run: Run<B>
  ) {
    if let lora, let t {
      // forward: y += s B_k t_k
      let dt = run.backend.groupedMatmul(lora.scale, dy, lora.bOfRow, routing)  // (M,r)  s B_kᵀ dy
      run.backend.groupedOuter(lora.scale, dy, t, into: &lora.b.gradient, stackedAlong: .columns, routing)  // (O,E·r)  + s dy t_kᵀ
      // forward: t_k = A_k u
      run.backend.groupedOuter(1, dt, u, into: &lora.a.gradient, stackedAlong: .rows, routing)  // (E·r,I)  + dt uᵀ
      run.backend.add(run.backend.groupedMatmul(1, dt, lora.aOfRow, routing), into: &du)  // (M,I)  + A_kᵀ dt
    }
    // forward: y = W x + b
    w.backward(dy, x, into: &dx, run)  // (M,I)  + Wᵀ dy
  }
}
