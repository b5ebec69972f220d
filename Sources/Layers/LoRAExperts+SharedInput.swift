import Tensors

/// The first half of the experts where W1 x and W3 x are formed once a token and all its experts read them
/// (arXiv:2404.15159, section 3.3 and figure 3): ``ExpertEvaluation/sharedBase`` and ``ExpertEvaluation/sharedGateUp``.
///
///     t1_k = A1_k x     t3_k = A3_k x          (r)
///     a_k = W1 x + b1 + s B1_k t1_k            (F)      c_k alike with W3, b3, B3, t3
///     h_k = silu(a_k) ⊙ c_k                    (F)
///
/// Backward, from da_k and dc_k; Σ without an index runs over the tokens that chose expert k:
///
///     dB1_k = s Σ da_k t1_kᵀ      dt1_k = s B1_kᵀ da_k      dA1_k = Σ dt1_k xᵀ                        3 alike
///     dx = W1ᵀ Σ_k da_k + W3ᵀ Σ_k dc_k + Σ_k A1_kᵀ dt1_k + Σ_k A3_kᵀ dt3_k
///
/// With dropout A1 and A3 read u instead of x. If trained: dW1 = Σ (Σ_k da_k) xᵀ, db1 = Σ Σ_k da_k, 3 alike.
///
/// - Complexity: 4·N·C·F flops in frozen products forward, as many backward.
extension LoRAExperts {
  /// N·2·F + 2·M·r scalars.
  struct SharedInput {
    let base1: Tensor<B>  // (N,F)  W1 x + b1
    let base3: Tensor<B>  // (N,F)  W3 x + b3
    let t1: Tensor<B>?  // (M,r)  A1_k x
    let t3: Tensor<B>?  // (M,r)  A3_k x
  }

  func forwardSharedInput(_ input: LoRAInput<B>, _ routing: Routing<B>, _ run: Run<B>) -> SharedInput {
    var base1 = w1.forward(input.x, run)  // (N,F)  W1 x + b1
    var base3 = w3.forward(input.x, run)  // (N,F)  W3 x + b3
    run.hook(&base1, path, "gate_proj.base.output")
    run.hook(&base3, path, "up_proj.base.output")
    // All experts' A at once, then for each row its own expert's columns.
    let t1 = lora1.map { run.backend.dispatchBlocks(run.matmul(input.u, $0.a.value.T), routing) }  // (M,r)  A1_k x
    let t3 = lora3.map { run.backend.dispatchBlocks(run.matmul(input.u, $0.a.value.T), routing) }  // (M,r)  A3_k x
    return SharedInput(base1: base1, base3: base3, t1: t1, t3: t3)
  }

  /// a_k, c_k and h_k of every row: (M,F) each. Forward and, in backward, the recomputation.
  func hidden(_ shared: SharedInput, _ routing: Routing<B>, _ run: Run<B>) -> (a: Tensor<B>, c: Tensor<B>, h: Tensor<B>) {
    var a = run.backend.dispatch(shared.base1, routing)  // (M,F)  W1 x + b1
    if let lora1, let t1 = shared.t1 { run.addGroupedProduct(lora1.scale, t1, lora1.bOfRow.T, into: &a, routing) }  // + s B1_k t1_k
    run.hookExperts(&a, path, "gate_proj.output", routing)
    var c = run.backend.dispatch(shared.base3, routing)  // (M,F)  W3 x + b3
    if let lora3, let t3 = shared.t3 { run.addGroupedProduct(lora3.scale, t3, lora3.bOfRow.T, into: &c, routing) }  // + s B3_k t3_k
    run.hookExperts(&c, path, "up_proj.output", routing)
    var h = run.backend.swiGLU(a, c)  // (M,F)  silu(a_k) ⊙ c_k
    run.hookExperts(&h, path, "hidden", routing)
    return (a, c, h)
  }

  /// Adds to the gradients of x and u from da_k and dc_k, (M,F) each.
  func backwardSharedInput(
    _ da: Tensor<B>, _ dc: Tensor<B>, _ shared: SharedInput, _ input: LoRAInput<B>, into gradient: inout LoRAInput<B>.Gradient,
    _ routing: Routing<B>, _ run: Run<B>
  ) {
    backwardBranchOnShared(dc, shared.t3, w3, lora3, "up_proj", input, into: &gradient, routing, run)
    backwardBranchOnShared(da, shared.t1, w1, lora1, "gate_proj", input, into: &gradient, routing, run)
  }

  /// Backward of a_k = W1 x + b1 + s B1_k A1_k x, and of c_k alike.
  private func backwardBranchOnShared(
    _ da: Tensor<B>, _ t: Tensor<B>?, _ w: Linear<B>, _ lora: ExpertLoRA<B>?, _ name: String, _ input: LoRAInput<B>,
    into gradient: inout LoRAInput<B>.Gradient, _ routing: Routing<B>, _ run: Run<B>
  ) {
    var da = da
    run.hookExperts(&da, path, "\(name).output", routing)
    // forward: a_k += s B1_k t1_k,  t1_k = A1_k x
    if let lora, let t {
      let dt = run.groupedMatmul(lora.scale, da, lora.bOfRow, routing)  // (M,r)  s B1_kᵀ da_k
      run.backend.groupedOuter(lora.scale, da, t, into: &lora.b.gradient, stackedAlong: .columns, routing)  // (F,E·r)  + s da_k t1_kᵀ
      let dtAll = run.backend.combineBlocks(dt, weights: nil, routing)  // (N,E·r)
      run.addProduct(1, dtAll.T, input.u, into: &lora.a.gradient)  // (E·r,C)  + dt1_k xᵀ
      run.addProduct(1, dtAll, lora.a.value, into: &gradient.du)  // (N,C)  + Σ_k A1_kᵀ dt1_k
    }
    // forward: a_k = W1 x + b1, the same for all of a token's experts
    var dbase = run.backend.combine(da, weights: nil, routing)  // (N,F)  Σ_k da_k
    run.hook(&dbase, path, "\(name).base.output")
    w.backward(dbase, input.x, into: &gradient.dx, run)  // (N,C)  + W1ᵀ Σ_k da_k
  }
}
