import Tensors

/// A layer on the residual stream: it reads rows of C channels and gives as many.
///
/// What forward read, backward is given again: x is as large as anything that a cache holds, and whoever led to it can form it anew.
///
/// Backward follows one of two rules. A layer that is its input's only reader takes dy and returns dx, as these do. One whose input
/// others read as well takes dy and adds to dx: ``Linear`` and ``RMSNorm``, where nil counts as zero; ``LoRALinear``, to dx and du alike;
/// ``Router`` and ``LanguageModelHead``, to a dx that is there already. An ``Embedding`` has no dx.
public protocol StreamLayer<B> {
  /// The backend of its tensors.
  associatedtype B: Backend
  /// What backward needs.
  associatedtype Cache
  /// What of it is kept where the rest is formed again: what has no rows of C or F numbers. Nothing, if a layer does not say.
  associatedtype Thin = Void

  /// Module path: `model.layers.3.self_attn`.
  var path: String { get }
  /// (N,C) → (N,C); `earlier` as for ``Attention``, which alone reads it.
  func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>?) -> (y: Tensor<B>, cache: Cache)
  /// What is kept of a cache.
  func thin(_ cache: Cache) -> Thin
  /// Forward again in backward, from what was kept: the same numbers, masks and replaced values.
  func forward(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache)
  /// The cache alone of that.
  func cache(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> Cache
  /// dy (N,C) → dx (N,C); x (N,C) is what forward read.
  func backward(_ dy: Tensor<B>, _ x: Tensor<B>, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B>
}

extension StreamLayer {
  /// By all of that.
  public func cache(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> Cache {
    forward(x, keeping: thin, batch, run).cache
  }
}

extension StreamLayer where Thin == Void {
  /// Nothing.
  public func thin(_ cache: Cache) {}

  /// The whole forward.
  public func forward(_ x: Tensor<B>, keeping thin: Void, _ batch: PackedBatch<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    forward(x, batch, run, earlier: nil)
  }
}

extension Attention: StreamLayer {}

extension FeedForward: StreamLayer {
  /// (N,C) → (N,C); a feed-forward reads no earlier rows.
  public func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>?) -> (y: Tensor<B>, cache: Cache) {
    forward(x, batch, run)
  }
}

/// A layer on the normalized stream, its result normalized as well where the family does so.
///
///     n = pre(x)    y = post(layer(n))         (N,C)
///
/// In a sequential block y is added to x, so backward is that of x + y.
public struct Normalized<Layer: StreamLayer> {
  /// The backend of its tensors.
  public typealias B = Layer.B
  /// Before the layer.
  public let pre: RMSNorm<B>
  /// The layer.
  public let layer: Layer
  /// After the layer; nil in most families.
  public let post: RMSNorm<B>?

  /// x, which the residual stream holds anyway, and what the layers need; n only where it is not formed again (``/Tensors/MemoryUse``).
  public struct Cache {
    let x: Tensor<B>  // (N,C)
    let pre: (y: Tensor<B>, cache: RMSNorm<B>.Cache)?  // (N,C)
    let layer: Layer.Cache
    let post: RMSNorm<B>.Cache?
  }

  /// A layer between its norms.
  public init(pre: RMSNorm<B>, layer: Layer, post: RMSNorm<B>? = nil) {
    (self.pre, self.layer, self.post) = (pre, layer, post)
  }

  /// (N,C) → (N,C).
  public func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>? = nil) -> (
    y: Tensor<B>, cache: Cache
  ) {
    let normalized = pre.forward(x, run)  // (N,C)
    let (y, layerCache) = layer.forward(normalized.y, batch, run, earlier: earlier)  // (N,C)
    return ended(y, x, normalized, layerCache, run)
  }

  /// The same again, from what the layer has kept.
  public func forward(_ x: Tensor<B>, keeping thin: Layer.Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    let normalized = pre.forward(x, run)  // (N,C)
    let (y, layerCache) = layer.forward(normalized.y, keeping: thin, batch, run)  // (N,C)
    return ended(y, x, normalized, layerCache, run)
  }

  /// The cache alone of that.
  public func cache(_ x: Tensor<B>, keeping thin: Layer.Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> Cache {
    if post != nil { return forward(x, keeping: thin, batch, run).cache }  // the norm behind the layer needs its result
    let normalized = pre.forward(x, run)  // (N,C)
    return Cache(x: x, pre: kept(normalized, run), layer: layer.cache(normalized.y, keeping: thin, batch, run), post: nil)
  }

  private func ended(
    _ y: Tensor<B>, _ x: Tensor<B>, _ normalized: (y: Tensor<B>, cache: RMSNorm<B>.Cache), _ layerCache: Layer.Cache, _ run: Run<B>
  ) -> (y: Tensor<B>, cache: Cache) {
    guard let post else { return (y, Cache(x: x, pre: kept(normalized, run), layer: layerCache, post: nil)) }
    let (p, postCache) = post.forward(y, run)  // (N,C)
    return (p, Cache(x: x, pre: kept(normalized, run), layer: layerCache, post: postCache))
  }

  private func kept(_ normalized: (y: Tensor<B>, cache: RMSNorm<B>.Cache), _ run: Run<B>) -> (y: Tensor<B>, cache: RMSNorm<B>.Cache)? {
    run.backend.memoryUse.formsNormsAgain ? nil : normalized
  }

  /// The gradient of x + y from that of the sum (N,C), in place where nobody else holds it.
  public func backwardOfSum(_ dy: consuming Tensor<B>, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var dx: Tensor<B>? = consume dy
    let (x, kept, layerCache, postCache) = (cache.x, cache.pre, cache.layer, cache.post)
    _ = consume cache
    let (n, preCache) = kept ?? run.recomputing { pre.forward(x, run) }  // (N,C)  the same, perhaps again
    // forward: y = post(layer(n))
    let dn = layer.backward(throughPost(dx, postCache, run), n, consume layerCache, batch, run)  // (N,C)
    // forward: n = pre(x)
    pre.backward(dn, preCache, into: &dx, run)  // (N,C)  + what comes through y
    guard let dx else { trap("\(layer.path): no gradient arrived") }
    return dx
  }

  /// What the layer gets: dy itself, or dy through the norm behind it.
  private func throughPost(_ dy: Tensor<B>?, _ cache: RMSNorm<B>.Cache?, _ run: Run<B>) -> Tensor<B> {
    var through = dy
    if let post, let cache, let dy {
      through = nil
      post.backward(dy, cache, into: &through, run)  // (N,C)
    }
    guard let through else { trap("\(layer.path): no gradient arrived") }
    return through
  }
}
