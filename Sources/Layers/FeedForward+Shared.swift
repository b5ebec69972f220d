import Tensors

/// The feed-forward with the products of the base shared by all rows, whoever serves them: ``ExpertEvaluation/sharedBase``, and dense
/// branches in every evaluation.
extension FeedForward {
  /// N·(2·F) scalars and what each part keeps; hidden rows are formed again.
  struct SharedCache {
    let base1: Tensor<B>  // (N,F)  W1 x + b1; in the rows of dense branches a itself
    let base3: Tensor<B>  // (N,F)  W3 x + b3, or c
    let parts: [Middle]
  }

  /// What the middle of one part keeps.
  enum Middle {
    case dense(DenseBranches<B>.Cache)
    case mixture(Router<B>.Cache, LoRAExperts<B>.SharedCache)

    var dense: DenseBranches<B>.Cache? { if case .dense(let cache) = self { cache } else { nil } }
    var mixture: (Router<B>.Cache, LoRAExperts<B>.SharedCache)? {
      if case .mixture(let router, let cache) = self { (router, cache) } else { nil }
    }
  }

  /// Up to the hidden rows: v (n,F) of each part, and the caches. What the parts have `kept` is not formed again.
  func forwardHidden(_ parts: [Part], keeping kept: [Middle]?, _ input: LoRAInput<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> (
    v: [Tensor<B>], cache: SharedCache
  ) {
    let x = input.x.rows(Group.shared(parts).rows)
    var (base1, base3) = bases(x, parts, run)
    var (v, middles): ([Tensor<B>], [Middle]) = ([], [])
    for (i, part) in parts.enumerated() {
      let rows = relative(part, parts)
      switch part.layer {
      case .dense(let branches):
        let (h, cache) = branches.forward(&base1, &base3, rows: rows, input, frozen, batch, run, kept: kept?[i].dense)  // (n,F)
        v.append(h)
        middles.append(.dense(cache))
      case .mixture(let mixture):
        let (router, low) = kept?[i].mixture ?? mixture.lowRanks(x.rows(rows), input, run)
        var (sum, cache) = mixture.experts.forwardShared(  // (n,F)
          base1.rows(rows), base3.rows(rows), low, frozen, router.routing, batch, run)
        hookSum(&sum, mixture, run)
        v.append(sum)
        middles.append(.mixture(router, cache))
      }
    }
    return (v, SharedCache(base1: base1, base3: base3, parts: middles))
  }

  private func bases(_ x: Tensor<B>, _ parts: [Part], _ run: Run<B>) -> (base1: Tensor<B>, base3: Tensor<B>) {
    var base1 = frozen.gate.forward(x, run)  // (N,F)  W1 x + b1
    var base3 = frozen.up.forward(x, run)  // (N,F)  W3 x + b3
    if hasMixture(parts) {
      run.hook(&base1, path, "gate_proj.base.output", "W1 x + b1")
      run.hook(&base3, path, "up_proj.base.output", "W3 x + b3")
    }
    return (base1, base3)
  }

  /// The cache from x (N,C) and what the parts have kept: two products, and what dense branches add to them.
  func cacheShared(_ x: Tensor<B>, keeping middles: [Middle], _ parts: [Part], _ run: Run<B>) -> SharedCache {
    var (base1, base3) = bases(x.rows(Group.shared(parts).rows), parts, run)
    for (part, middle) in zip(parts, middles) {
      guard case .dense(let branches) = part.layer, let kept = middle.dense else { continue }
      branches.addBranches(kept.t1, kept.t3, to: &base1, &base3, rows: relative(part, parts), run)  // (n,F)  + s B1 t1, + s B3 t3
    }
    return SharedCache(base1: base1, base3: base3, parts: middles)
  }

  /// y of the parts' rows, (N,C).
  func forwardShared(_ parts: [Part], keeping kept: [Middle]?, _ input: LoRAInput<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> (
    y: Tensor<B>, cache: SharedCache
  ) {
    let (hidden, cache) = forwardHidden(parts, keeping: kept, input, batch, run)
    let v = run.backend.joined(hidden, columns: frozen.down.weight.shape.columns)  // (N,F)
    var y = run.backend.matmul(v, frozen.down.weight.T)  // (N,C)  W2 v
    for (part, middle) in zip(parts, cache.parts) {
      let rows = relative(part, parts)
      addBias(of: middle, rows: rows, parts, into: &y, run)  // + β b2
      switch (part.layer, middle) {
      case (.dense(let branches), .dense(let cache)):
        branches.addOutput(cache, into: &y, rows: rows, run)  // + s B2 A2 g
        run.hook(rows: rows, of: &y, branches.path, "down_proj.output", "y = W2 h + b2 + s B2 A2 h")
      case (.mixture(let mixture), .mixture(let router, let cache)):
        mixture.experts.addOutput(cache, router.routing, into: &y, rows: rows, run)  // + s Σ_k B2_k (w_k A2_k g_k)
      default: trap("\(path): the cache of another part")
      }
    }
    return (y, cache)
  }

  /// dx of the parts' rows, (N,C); adds to du of their adapters.
  func backwardShared(
    _ dy: Tensor<B>, _ parts: [Part], _ input: LoRAInput<B>, _ cache: consuming SharedCache, into du: inout [Tensor<B>?],
    _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> Tensor<B> {
    let backend = run.backend
    var dy = dy
    for part in parts {
      if case .dense(let branches) = part.layer {
        run.hook(rows: relative(part, parts), ofGradient: &dy, branches.path, "down_proj.output")
      }
    }
    let (x, f) = (input.x.rows(Group.shared(parts).rows), frozen.down.weight.shape.columns)
    let (base1, base3, kept) = (cache.base1, cache.base3, cache.parts)
    _ = consume cache
    // forward: y = W2 v
    var q = backend.matmul(dy, frozen.down.weight)  // (N,F)  W2ᵀ dy
    var middles: [MiddleGradient] = []
    for (part, middle) in zip(parts, kept) {
      let rows = relative(part, parts)
      let (base1, base3) = (base1.rows(rows), base3.rows(rows))
      switch (part.layer, middle) {
      case (.dense(let branches), .dense(let middle)):
        let (da, dc, h) = branches.backward(dy.rows(rows), q: &q, rows: rows, base1, base3, middle, frozen, batch, run)
        middles.append(MiddleGradient(dw: nil, da: .rows(da), dc: .rows(dc), v: h))
      case (.mixture(let mixture), .mixture(let router, let middle)):
        run.hook(rows: rows, ofGradient: &q, mixture.experts.path, "down_proj.input")
        var (dw, da, dc, v) = mixture.experts.backwardShared(
          dy.rows(rows), q.rows(rows), base1, base3, middle, frozen, router.routing, batch, run)
        if var sum = v.take() {
          run.recomputing { hookSum(&sum, mixture, run) }
          v = sum
        }
        middles.append(MiddleGradient(dw: dw, da: da, dc: dc, v: v))
      default: trap("\(path): the cache of another part")
      }
      addBiasGradient(of: middle, dy.rows(rows), run)  // db2 += Σ β dy
    }
    if let w = frozen.down.weight.parameter {
      let v = backend.joined(middles.compactMap(\.v), columns: f)  // (N,F)
      backend.addProduct(1, dy.T, v, into: &w.gradient)  // (C,F)  + dy vᵀ
    }
    // forward: base3 = W3 x + b3, base1 = W1 x + b1, and each adapter's branches on them
    var dx: Tensor<B>?
    for isUp in [true, false] {
      var dbase = backend.joined(  // (N,F)
        parts.indices.map { i in
          backwardInput(parts[i], kept[i], isUp ? middles[i].dc : middles[i].da, isUp: isUp, input, into: &du, run)
        }, columns: f)
      if hasMixture(parts) { run.hook(gradient: &dbase, path, isUp ? "up_proj.base.output" : "gate_proj.base.output") }
      (isUp ? frozen.up : frozen.gate).backward(dbase, x, into: &dx, run)  // (N,C)  + W3ᵀ dbase3, + W1ᵀ dbase1
    }
    guard var sum = dx.take() else { trap("\(path): no gradient arrived") }
    // forward: routing = router(x)
    for (i, part) in parts.enumerated() {
      guard case (.mixture(let mixture), .mixture(let router, _)) = (part.layer, kept[i]), let dw = middles[i].dw else { continue }
      let rows = relative(part, parts)
      mixture.router.backward(dw, x.rows(rows), router, into: &sum, rows: rows, run)
    }
    return sum
  }

  /// What comes out of the middle of a part on the way back.
  private struct MiddleGradient {
    let dw: Tensor<B>?  // (M)    for the router
    let da: LoRAExperts<B>.InputGradient
    let dc: LoRAExperts<B>.InputGradient
    let v: Tensor<B>?  // (n,F)  again, where W2 is trained
  }

  /// dbase1 or dbase3 of a part's rows, (n,F); adds to du of its adapter.
  private func backwardInput(
    _ part: Part, _ middle: Middle, _ gradient: LoRAExperts<B>.InputGradient, isUp: Bool, _ input: LoRAInput<B>,
    into du: inout [Tensor<B>?], _ run: Run<B>
  ) -> Tensor<B> {
    switch (part.layer, middle, gradient) {
    case (.dense(let branches), .dense(let middle), .rows(let da)):
      return branches.backwardInput(da, isUp: isUp, middle, input, into: &du, run)
    case (.mixture(let mixture), .mixture(let router, let middle), _):
      let adapter = mixture.router.adapter
      return mixture.experts.backwardInput(gradient, isUp: isUp, middle, input.u[adapter], router.routing, into: &du[adapter], run)
    default: trap("\(path): the cache of another part")
    }
  }

  // MARK: Helpers

  private func hasMixture(_ parts: [Part]) -> Bool {
    parts.contains { if case .mixture = $0.layer { true } else { false } }
  }

  /// A part's rows, counted from the first of all parts.
  private func relative(_ part: Part, _ parts: [Part]) -> Range<Int> {
    let first = Group.shared(parts).rows.lowerBound
    return part.rows.lowerBound - first..<part.rows.upperBound - first
  }

  private func hookSum(_ v: inout Tensor<B>, _ mixture: ExpertMixture<B>, _ run: Run<B>) {
    run.hook(&v, mixture.experts.path, "down_proj.input", "v = Σ_k w_k h_k")
  }

  /// y += β b2 on the rows of a part: β is 1, or Σ_k w_k of each token.
  private func addBias(of middle: Middle, rows: Range<Int>, _ parts: [Part], into y: inout Tensor<B>, _ run: Run<B>) {
    guard let bias = frozen.down.bias else { return }
    let b2 = run.backend.vector(bias)  // (C)
    if parts.count == 1, case .dense = middle { return run.backend.addBias(b2, into: &y) }
    run.backend.addProduct(1, biasFactors(middle, rows.count, run), b2, into: &y, rows: rows)
  }

  private func addBiasGradient(of middle: Middle, _ dy: Tensor<B>, _ run: Run<B>) {
    guard let b2 = frozen.down.bias?.parameter else { return }
    if case .dense = middle { return run.backend.addColumnSums(dy, weights: nil, into: &b2.gradient) }
    run.backend.addColumnSums(dy, weights: biasFactors(middle, dy.rowCount, run).asVector, into: &b2.gradient)
  }

  /// β as a column: (n,1).
  private func biasFactors(_ middle: Middle, _ count: Int, _ run: Run<B>) -> Tensor<B> {
    if case .mixture(let router, _) = middle { return run.backend.combine(router.routing.weights.asColumn, weights: nil, router.routing) }
    var ones = run.backend.empty(Shape(count, 1))
    run.backend.fill(1, &ones)
    return ones
  }
}
