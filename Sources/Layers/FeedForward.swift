import Tensors

/// The feed-forward of a block: three matrices of the base for all rows, and what every adapter makes of them on its own rows
/// (Shazeer 2020, arXiv:2002.05202, gated linear unit; arXiv:2404.15159, figure 2).
///
/// N tokens, C channels, F hidden width, W1 (F,C) gate_proj, W3 (F,C) up_proj, W2 (C,F) down_proj with their biases, act silu or GELU:
///
///     base1 = W1 x + b1     base3 = W3 x + b3      (N,F)
///     v, t of each adapter's rows from them        (n,F)     ``DenseBranches``: v = h; ``ExpertMixture``: v = Σ_k w_k h_k
///     y = W2 v + β b2 + s B2 t                     (N,C)     β = 1, or Σ_k w_k where experts share b2
///
///     q = W2ᵀ dy                                   (N,F)     dW2 = Σ dy vᵀ         db2 = Σ β dy
///     dbase1, dbase3 of each adapter's rows        (n,F)
///     dx = W1ᵀ dbase1 + W3ᵀ dbase3 + …             (N,C)     dW1 = Σ dbase1 xᵀ     db1 = Σ dbase1      3 alike
///
/// So the products with them run once over all rows, whatever serves these. With another ``ExpertEvaluation`` than `sharedBase` every
/// adapter's rows go their own way. They are called frozen, as they are under an adapter; where the base is trained they have gradients.
///
/// - Complexity: 6·N·C·F flops in these products forward, as many backward, 6·N·C·F more where they are trained. Another evaluation
///   than `sharedBase` takes more (``ExpertEvaluation``).
public struct FeedForward<B: Backend> {
  /// Module path: `model.layers.3.mlp`.
  public let path: String
  /// W1, W3, W2 and act.
  public let frozen: GatedLinears<B>
  /// What serves each adapter's rows; an adapter's number is its place here. Empty without an adapter.
  public let adapters: [AdaptedFeedForward<B>]
  /// How experts are computed.
  public let evaluation: ExpertEvaluation
  private let inputDropout: InputDropout<B>

  /// Of each part of the rows what its evaluation needs.
  public struct Cache {
    let parts: [PartCache]
  }

  /// Of each part what has no rows of F numbers: routing and what branches keep; nothing of experts that run by themselves.
  public struct Thin {
    let parts: [[Middle]?]
  }

  enum PartCache {
    case shared(SharedCache)
    case sharedGateUp(Router<B>.Cache, LoRAExperts<B>.SharedGateUpCache)
    case perExpert(Router<B>.Cache, LoRAExperts<B>.PerExpertCache)
  }

  /// A feed-forward; `dropout` is each adapter's, of what its branches on x read.
  public init(
    path: String, frozen: GatedLinears<B>, adapters: [AdaptedFeedForward<B>] = [], evaluation: ExpertEvaluation = .sharedBase,
    dropout: [Double] = []
  ) {
    guard dropout.count == adapters.count else { trap("\(path): dropout of \(dropout.count) adapters, expected \(adapters.count)") }
    self.path = path
    self.frozen = frozen
    self.adapters = adapters
    self.evaluation = evaluation
    inputDropout = InputDropout(path: path + ".input", probabilities: dropout)
  }

  /// (N,C) → (N,C).
  public func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    forward(x, keeping: nil, batch, run)
  }

  /// The same again, from the same x, batch and run, but for routing and what branches made of x, which were kept where rows share the
  /// frozen products.
  public func forward(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    forward(x, keeping: thin.parts, batch, run)
  }

  private func forward(_ x: Tensor<B>, keeping kept: [[Middle]?]?, _ batch: PackedBatch<B>, _ run: Run<B>) -> (
    y: Tensor<B>, cache: Cache
  ) {
    let input = input(x, keeping: kept, batch, run)
    var (ys, caches): ([Tensor<B>], [PartCache]) = ([], [])
    for (i, group) in groups(batch).enumerated() {
      let (y, cache) = forward(group, keeping: kept?[i], input, batch, run)
      ys.append(y)
      caches.append(cache)
    }
    var y = run.backend.joined(ys, columns: x.columnCount)  // (N,C)
    run.hook(&y, path, "output", "y = Σ_k w_k e_k, or W2 h + b2 + s B2 A2 h")
    return (y, Cache(parts: caches))
  }

  /// What has no rows of F numbers.
  public func thin(_ cache: Cache) -> Thin {
    Thin(parts: cache.parts.map { if case .shared(let cache) = $0 { cache.parts } else { nil } })
  }

  /// The cache alone of that, which needs neither hidden rows nor W2.
  public func cache(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> Cache {
    let input = input(x, keeping: thin.parts, batch, run)
    return Cache(
      parts: zip(groups(batch), thin.parts).map { group, middles in
        if case .shared(let parts) = group, let middles { return .shared(cacheShared(x, keeping: middles, parts, run)) }
        return forward(group, keeping: nil, input, batch, run).1
      })
  }

  /// x and what branches read of it, if one of the groups has not kept what they made of that.
  private func input(_ x: Tensor<B>, keeping kept: [[Middle]?]?, _ batch: PackedBatch<B>, _ run: Run<B>) -> LoRAInput<B> {
    if let kept, kept.allSatisfy({ $0 != nil }) { return LoRAInput(x: x, u: []) }
    return inputDropout.forward(x, batch, run)
  }

  /// dy (N,C) → dx (N,C), x being what forward read.
  public func backward(_ dy: Tensor<B>, _ x: Tensor<B>, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var dy = dy
    run.hook(gradient: &dy, path, "output")
    var caches = cache.parts
    _ = consume cache
    let input = inputDropout.forward(x, batch, run)  // the same key, so the same mask
    var gradient = inputDropout.noGradient
    gradient.dx = run.backend.joined(
      groups(batch).map { group in  // a part's cache is taken out, so that it goes as it is used
        backward(dy.rows(group.rows), group, input, caches.removeFirst(), into: &gradient.du, batch, run)
      }, columns: x.columnCount)
    return inputDropout.backward(&gradient, batch, run)  // (N,C)
  }

  // MARK: Who computes which rows

  /// Rows that one adapter serves, or none (`layer` without branches).
  struct Part {
    let rows: Range<Int>
    let layer: AdaptedFeedForward<B>
  }

  /// Parts that share the frozen products, or an adapter's experts by themselves.
  enum Group {
    case shared([Part])
    case alone(Range<Int>, ExpertMixture<B>)

    var rows: Range<Int> {
      switch self {
      case .shared(let parts): (parts.first?.rows.lowerBound ?? 0)..<(parts.last?.rows.upperBound ?? 0)
      case .alone(let rows, _): rows
      }
    }
  }

  private func groups(_ batch: PackedBatch<B>) -> [Group] {
    let plain = AdaptedFeedForward<B>.dense(DenseBranches(path: adapters.isEmpty ? path : "base." + path))
    if adapters.isEmpty { return [.shared([Part(rows: 0..<batch.tokens, layer: plain)])] }
    var parts = adapters.indices.map { Part(rows: batch.rows(of: $0), layer: adapters[$0]) }
    parts.append(Part(rows: batch.baseRows, layer: plain))
    if adapters.count > 1 || !batch.baseRows.isEmpty { parts.removeAll { $0.rows.isEmpty } } else { parts.removeLast() }
    if evaluation == .sharedBase { return [.shared(parts)] }
    return parts.map { part in
      if case .mixture(let mixture) = part.layer { .alone(part.rows, mixture) } else { .shared([part]) }
    }
  }

  private func forward(
    _ group: Group, keeping kept: [Middle]?, _ input: LoRAInput<B>, _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> (Tensor<B>, PartCache) {
    switch group {
    case .shared(let parts):
      let (y, cache) = forwardShared(parts, keeping: kept, input, batch, run)
      return (y, .shared(cache))
    case .alone(let rows, let mixture):
      let (x, u) = (input.x.rows(rows), input.u[mixture.router.adapter])
      let routerCache = mixture.router.forward(x, run)
      if evaluation == .perExpert {
        let (y, cache) = mixture.experts.forwardPerExpert(x, u, frozen, routerCache.routing, batch, run)
        return (y, .perExpert(routerCache, cache))
      }
      let (y, cache) = mixture.experts.forwardSharedGateUp(x, u, frozen, routerCache.routing, batch, run)
      return (y, .sharedGateUp(routerCache, cache))
    }
  }

  /// dx of the group's rows; adds to du of its adapters.
  private func backward(
    _ dy: Tensor<B>, _ group: Group, _ input: LoRAInput<B>, _ cache: consuming PartCache, into du: inout [Tensor<B>?],
    _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> Tensor<B> {
    var dx: Tensor<B>?
    let (dw, routerCache): (Tensor<B>, Router<B>.Cache)
    switch (consume cache, group) {
    case (.shared(let cache), .shared(let parts)): return backwardShared(dy, parts, input, cache, into: &du, batch, run)
    case (.perExpert(let router, let cache), .alone(let rows, let mixture)):
      let (x, u) = (input.x.rows(rows), input.u[mixture.router.adapter])
      dw = mixture.experts.backwardPerExpert(
        dy, x, u, frozen, router.routing, cache, into: &dx, &du[mixture.router.adapter], batch, run)
      routerCache = router
    case (.sharedGateUp(let router, let cache), .alone(let rows, let mixture)):
      let (x, u) = (input.x.rows(rows), input.u[mixture.router.adapter])
      dw = mixture.experts.backwardSharedGateUp(
        dy, x, u, frozen, router.routing, cache, into: &dx, &du[mixture.router.adapter], batch, run)
      routerCache = router
    default: trap("\(path): the cache of another evaluation")
    }
    guard case .alone(_, let mixture) = group, var sum = dx.take() else { trap("\(path): no gradient arrived") }
    mixture.router.backward(dw, input.x.rows(group.rows), routerCache, into: &sum, run)
    return sum
  }
}

/// The matrices of a gated feed-forward and its nonlinearity.
public struct GatedLinears<B: Backend> {
  /// W1 (F,C), b1 (F).
  public let gate: Linear<B>
  /// W3 (F,C), b3 (F).
  public let up: Linear<B>
  /// W2 (C,F), b2 (C).
  public let down: Linear<B>
  /// act.
  public let activation: Activation

  /// Three linear layers.
  public init(gate: Linear<B>, up: Linear<B>, down: Linear<B>, activation: Activation = .silu) {
    (self.gate, self.up, self.down) = (gate, up, down)
    self.activation = activation
  }
}

/// What an adapter adds to the feed-forward of a block.
public enum AdaptedFeedForward<B: Backend> {
  /// Low-rank branches on its matrices; without any, nothing.
  case dense(DenseBranches<B>)
  /// A router and experts.
  case mixture(ExpertMixture<B>)
}

extension Backend {
  /// Tensors of equal width below each other; a single one is itself.
  func joined(_ parts: [Tensor<Self>], columns: Int) -> Tensor<Self> {
    if parts.count == 1 { return parts[0] }
    var whole = empty(Shape(parts.reduce(0) { $0 + $1.rowCount }, columns))
    var begin = 0
    for part in parts {
      copy(part, into: &whole, rows: begin..<begin + part.rowCount)
      begin += part.rowCount
    }
    return whole
  }
}
