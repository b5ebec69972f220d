import Tensors

/// The experts with every frozen product shared: three of them a token, as in a dense feed-forward, and ``FeedForward`` runs them.
///
/// For one token, with the letters of ``LoRAExperts`` (g_k is h_k, or m_k ⊙ h_k under dropout):
///
///     base1 = W1 x + b1    base3 = W3 x + b3   (F)      once a token, by the feed-forward
///     t1_k = A1_k u        t3_k = A3_k u       (r)
///     a_k = base1 + s B1_k t1_k                (F)      c_k alike
///     h_k = act(a_k) ⊙ c_k                     (F)
///     t2_k = A2_k g_k                          (r)
///     v = Σ_k w_k h_k                          (F)
///     y = W2 v + (Σ_k w_k) b2 + s Σ_k B2_k (w_k t2_k)    W2 and b2 by the feed-forward
///
/// Backward, from dy and q = W2ᵀ dy (F), once a token too; Σ without an index runs over the tokens that chose expert k:
///
///     z_k = s B2_kᵀ dy (r)                               dB2_k = s Σ dy (w_k t2_k)ᵀ
///     q_k = q + m_k ⊙ A2_kᵀ z_k                          the gradient of ⟨dy, e_k⟩ with respect to h_k
///     dw_k = ⟨q_k, h_k⟩ + ⟨dy, b2⟩                       = ⟨dy, e_k⟩, without forming W2 h_k
///     dh_k = w_k q_k                                     dA2_k = Σ (w_k z_k) g_kᵀ
///     da_k = dh_k ⊙ c_k ⊙ act′(a_k)      dc_k = dh_k ⊙ act(a_k)
///     dB1_k = s Σ da_k t1_kᵀ      dt1_k = s B1_kᵀ da_k      dA1_k = Σ dt1_k uᵀ      du += Σ_k A1_kᵀ dt1_k      3 alike
///     dbase1 = Σ_k da_k           dbase3 = Σ_k dc_k
///
/// - Complexity: about 2·N·K·(F + C)·3·r flops in branches, K the experts of a token, beside the frozen products; E·C instead of K·C
///   where a backend multiplies with all experts' A and B2 at once.
extension LoRAExperts {
  /// 3·M·r scalars: a, c and h are formed again in backward, for they are K times as large as base1.
  struct SharedCache {
    let t1: Tensor<B>?  // (M,r)  A1_k u
    let t3: Tensor<B>?  // (M,r)  A3_k u
    let t2: Tensor<B>?  // (M,r)  A2_k g_k
  }

  /// What base1 or base3 gets back: the gradient of each row, or where one pass formed everything its sums.
  enum InputGradient {
    case rows(Tensor<B>)  // (M,F)  da_k
    case sums(base: Tensor<B>, t: Tensor<B>?)  // (N,F)  Σ_k da_k, (M,r)  dt1_k
  }

  /// v = Σ_k w_k h_k (N,F), from base1 and base3 (N,F) and t1 and t3; they and t2 are the cache.
  func forwardShared(
    _ base1: Tensor<B>, _ base3: Tensor<B>, _ low: SharedCache, _ frozen: GatedLinears<B>, _ routing: Routing<B>, _ batch: PackedBatch<B>,
    _ run: Run<B>
  ) -> (v: Tensor<B>, cache: SharedCache) {
    let (backend, t1, t3) = (run.backend, low.t1, low.t3)
    if let fused = fusedHidden(base1, base3, t1, t3, frozen, routing, batch, run) {
      return (fused.v, SharedCache(t1: t1, t3: t3, t2: fused.t2))
    }
    let (_, _, h) = hidden(base1, base3, t1, t3, frozen, routing, run)  // (M,F)
    let v = backend.combine(h, weights: routing.weights, routing)  // (N,F)  Σ_k w_k h_k
    let t2 = lora2.map { backend.groupedMatmul(1, masked(h, routing, batch, run), $0.aOfRow.T, routing) }  // (M,r)  A2_k g_k
    return (v, SharedCache(t1: t1, t3: t3, t2: t2))
  }

  /// y[rows] += s Σ_k B2_k (w_k t2_k).
  func addOutput(_ cache: SharedCache, _ routing: Routing<B>, into y: inout Tensor<B>, rows: Range<Int>, _ run: Run<B>) {
    guard let lora2, let t2 = cache.t2 else { return }
    run.backend.addExpertProducts(lora2.scale, t2, weights: routing.weights, lora2.bOfRow.T, into: &y, rows: rows, routing)  // (N,C)
  }

  /// Down to base1 and base3, from dy (N,C) and q = W2ᵀ dy (N,F); dw (M) for the router, and v (N,F) again where W2 is trained.
  func backwardShared(
    _ dy: Tensor<B>, _ q: Tensor<B>, _ base1: Tensor<B>, _ base3: Tensor<B>, _ cache: SharedCache, _ frozen: GatedLinears<B>,
    _ routing: Routing<B>, _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> (dw: Tensor<B>, da: InputGradient, dc: InputGradient, v: Tensor<B>?) {
    let backend = run.backend
    // forward: y += s Σ_k B2_k (w_k t2_k)
    var z: Tensor<B>?  // (M,r)  s B2_kᵀ dy
    if let lora2, let t2 = cache.t2 {
      backend.addExpertOuter(  // (C,E·r)  + s dy (w_k t2_k)ᵀ
        lora2.scale, t2, weights: routing.weights, dy, into: &lora2.b.gradient, stackedAlong: .columns, routing)
      z = backend.expertProduct(lora2.scale, dy, lora2.bOfRow, routing)  // (M,r)
    }
    // forward: y += (Σ_k w_k) b2
    let dyb2 = frozen.down.bias.map { bias in  // (M)  ⟨dy, b2⟩ of each row's token
      backend.dispatch(backend.matmul(dy, backend.vector(bias).asColumn), routing).asVector
    }
    let needsV = frozen.down.weight.parameter != nil
    if var fused = fusedBackward(q, z, base1, base3, cache, frozen, routing, batch, run) {
      if let dyb2 { backend.add(1, dyb2, into: &fused.dw) }
      let v = needsV ? fusedHidden(base1, base3, cache.t1, cache.t3, frozen, routing, batch, run)?.v : nil
      return (fused.dw, .sums(base: fused.a.base, t: fused.a.t), .sums(base: fused.c.base, t: fused.c.t), v)
    }
    // The same a, c and h again, whatever a hook replaced included.
    let (a, c, h) = run.recomputing { hidden(base1, base3, cache.t1, cache.t3, frozen, routing, run) }  // (M,F) each
    // forward: v = Σ_k w_k h_k, t2_k = A2_k g_k
    var qk = backend.dispatch(q, routing)  // (M,F)
    if let lora2, let z = z.take() {
      addMasked(z, lora2, into: &qk, routing, batch, run)  // (M,F)  + m_k ⊙ A2_kᵀ z_k
      var wz = consume z
      backend.scaleRows(routing.weights, &wz)  // (M,r)  w_k z_k
      let g = masked(h, routing, batch, run)  // (M,F)  g_k
      backend.groupedOuter(1, wz, g, into: &lora2.a.gradient, stackedAlong: .rows, routing)  // (E·r,F)  + (w_k z_k) g_kᵀ
    }
    var dw = backend.rowDots(qk, h)  // (M)  ⟨q_k, h_k⟩
    if let dyb2 { backend.add(1, dyb2, into: &dw) }
    var dh = consume qk
    backend.scaleRows(routing.weights, &dh)  // (M,F)  w_k q_k
    run.hook(experts: routing, gradient: &dh, path, "hidden")
    // forward: h_k = act(a_k) ⊙ c_k
    let (da, dc) = backend.gatedBackward(activation, dh, a, c)  // (M,F)  da_k, dc_k
    return (dw, .rows(da), .rows(dc), needsV ? backend.combine(h, weights: routing.weights, routing) : nil)
  }

  /// Backward of a_k = base1 + s B1_k t1_k, t1_k = A1_k u (or c_k alike): dbase1 (N,F); adds to du (nil counts as zero).
  func backwardInput(
    _ gradient: InputGradient, isUp: Bool, _ cache: SharedCache, _ u: Tensor<B>, _ routing: Routing<B>, into du: inout Tensor<B>?,
    _ run: Run<B>
  ) -> Tensor<B> {
    let backend = run.backend
    let (lora, t) = isUp ? (lora3, cache.t3) : (lora1, cache.t1)
    var dt: Tensor<B>?  // (M,r)  s B1_kᵀ da_k
    var rows: Tensor<B>?  // (M,F)  da_k
    switch gradient {
    case .sums(_, let sum): dt = sum
    case .rows(var da):
      run.hook(experts: routing, gradient: &da, path, isUp ? "up_proj.output" : "gate_proj.output")
      if let lora, let t {
        dt = backend.groupedMatmul(lora.scale, da, lora.bOfRow, routing)  // (M,r)
        backend.groupedOuter(lora.scale, da, t, into: &lora.b.gradient, stackedAlong: .columns, routing)  // (F,E·r)  + s da_k t1_kᵀ
      }
      rows = da
    }
    if let lora, let dt {
      // dA1_k += Σ dt1_k uᵀ and du += Σ_k A1_kᵀ dt1_k
      backend.addExpertGradients(dt, u, lora.aOfRow, into: &lora.a.gradient, &du, routing)  // (E·r,C), (N,C)
    }
    if case .sums(let base, _) = gradient { return base }
    guard let rows else { trap("\(path): no gradient arrived") }
    return backend.combine(rows, weights: nil, routing)  // (N,F)  Σ_k da_k
  }

  /// A1_k u and A3_k u of every row, (M,r).
  func lowRanks(_ u: Tensor<B>, _ routing: Routing<B>, _ run: Run<B>) -> (t1: Tensor<B>?, t3: Tensor<B>?) {
    func t(_ lora: ExpertLoRA<B>?) -> Tensor<B>? {
      lora.map { run.backend.expertProduct(1, u, $0.aOfRow.T, routing) }
    }
    return (t(lora1), t(lora3))
  }

  /// a_k, c_k and h_k of every row: (M,F) each. Forward and, in backward, the recomputation.
  func hidden(
    _ base1: Tensor<B>, _ base3: Tensor<B>, _ t1: Tensor<B>?, _ t3: Tensor<B>?, _ frozen: GatedLinears<B>, _ routing: Routing<B>,
    _ run: Run<B>
  ) -> (a: Tensor<B>, c: Tensor<B>, h: Tensor<B>) {
    let backend = run.backend
    var a = backend.dispatch(base1, routing)  // (M,F)  W1 x + b1
    if let lora1, let t1 { backend.addGroupedProduct(lora1.scale, t1, lora1.bOfRow.T, into: &a, routing) }  // (M,F)  + s B1_k t1_k
    run.hook(experts: routing, &a, path, "gate_proj.output", "a_k = W1 x + b1 + s B1_k A1_k u")
    var c = backend.dispatch(base3, routing)  // (M,F)  W3 x + b3
    if let lora3, let t3 { backend.addGroupedProduct(lora3.scale, t3, lora3.bOfRow.T, into: &c, routing) }  // (M,F)  + s B3_k t3_k
    run.hook(experts: routing, &c, path, "up_proj.output", "c_k = W3 x + b3 + s B3_k A3_k u")
    var h = backend.gated(activation, a, c)  // (M,F)  act(a_k) ⊙ c_k
    run.hook(experts: routing, &h, path, "hidden", "h_k = act(a_k) ⊙ c_k")
    return (a, c, h)
  }

  /// q_k += m_k ⊙ (A2_kᵀ z_k), (M,F).
  private func addMasked(
    _ z: Tensor<B>, _ lora2: ExpertLoRA<B>, into qk: inout Tensor<B>, _ routing: Routing<B>, _ batch: PackedBatch<B>, _ run: Run<B>
  ) {
    // Without a mask the product is added where it is formed: one operation instead of two.
    guard mask(batch, run) != nil else { return run.backend.addGroupedProduct(1, z, lora2.aOfRow, into: &qk, routing) }
    run.backend.add(1, masked(run.backend.groupedMatmul(1, z, lora2.aOfRow, routing), routing, batch, run), into: &qk)
  }

  // MARK: In one pass, where the backend has one (all but the oracle have) and nobody observes what lies between

  private func fusedHidden(
    _ base1: Tensor<B>, _ base3: Tensor<B>, _ t1: Tensor<B>?, _ t3: Tensor<B>?, _ frozen: GatedLinears<B>, _ routing: Routing<B>,
    _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> ExpertHidden<B>.Result? {
    run.observes(insidePoints) ? nil : run.backend.expertHidden(stage(base1, base3, t1, t3, frozen, batch, run), routing)
  }

  private func fusedBackward(
    _ q: Tensor<B>, _ z: Tensor<B>?, _ base1: Tensor<B>, _ base3: Tensor<B>, _ cache: SharedCache, _ frozen: GatedLinears<B>,
    _ routing: Routing<B>, _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> ExpertHidden<B>.Gradient? {
    run.observes(insidePoints)
      ? nil : run.backend.expertHiddenBackward(q, z: z, stage(base1, base3, cache.t1, cache.t3, frozen, batch, run), routing)
  }

  private func stage(
    _ base1: Tensor<B>, _ base3: Tensor<B>, _ t1: Tensor<B>?, _ t3: Tensor<B>?, _ frozen: GatedLinears<B>, _ batch: PackedBatch<B>,
    _ run: Run<B>
  ) -> ExpertHidden<B> {
    func sum(_ base: Tensor<B>, _ t: Tensor<B>?, _ lora: ExpertLoRA<B>?) -> ExpertSum<B> {
      guard let t, let lora else { return ExpertSum(base: base, branch: nil) }
      return ExpertSum(base: base, branch: (t, lora.b, lora.scale))
    }
    return ExpertHidden(
      activation: activation, a: sum(base1, t1, lora1), c: sum(base3, t3, lora3), a2: lora2?.a, mask: mask(batch, run))
  }

  /// The points between the bases and v.
  private var insidePoints: [String] {
    (0..<experts).flatMap { e in ["gate_proj.output", "up_proj.output", "hidden"].map { "\(path).experts.\(e).\($0)" } }
  }
}
