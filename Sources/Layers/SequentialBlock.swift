import Tensors

/// Attention, then feed-forward, each on the normalized residual stream (arXiv:2404.15159, equations 4 and 5).
///
///     z = x + attention(norm₁(x))              (N,C)
///     y = z + feedForward(norm₂(z))            (N,C)
///
/// Gemma 2 also normalizes what either gives before it is added. The residual stream's gradient passes both sums unchanged and
/// collects what the branches add to it.
public struct SequentialBlock<B: Backend>: DecoderBlock {
  /// Module path: `model.layers.3`.
  public let path: String
  /// Attention and its norms.
  public let attention: Normalized<Attention<B>>
  /// The feed-forward and its norms.
  public let feedForward: Normalized<FeedForward<B>>

  /// What the layers need.
  public struct Cache {
    let attention: Normalized<Attention<B>>.Cache
    let feedForward: Normalized<FeedForward<B>>.Cache
  }

  /// What the layers keep where the rest is formed again.
  public struct Thin {
    let attention: Attention<B>.Thin
    let feedForward: FeedForward<B>.Thin
  }

  /// A block of its two halves.
  public init(path: String, attention: Normalized<Attention<B>>, feedForward: Normalized<FeedForward<B>>) {
    self.path = path
    self.attention = attention
    self.feedForward = feedForward
  }

  /// The seven linear layers.
  public var linears: [Linear<B>] {
    let (a, f) = (attention.layer, feedForward.layer.frozen)
    return [a.q.linear, a.k.linear, a.v.linear, a.o.linear, f.gate, f.up, f.down]
  }

  /// (N,C) → (N,C).
  public func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>? = nil) -> (
    y: Tensor<B>, cache: Cache
  ) {
    var (z, attentionCache) = attention.forward(x, batch, run, earlier: earlier)  // (N,C)
    addResidual(x, to: &z, run)
    var (y, feedForwardCache) = feedForward.forward(z, batch, run, earlier: nil)  // (N,C)
    run.backend.add(1, z, into: &y)  // (N,C)  z + feedForward
    run.hook(&y, path, "output", "y = z + feedForward(norm₂(z))")
    return (y, Cache(attention: attentionCache, feedForward: feedForwardCache))
  }

  /// What the layers keep.
  public func thin(_ cache: Cache) -> Thin {
    Thin(attention: attention.layer.thin(cache.attention.layer), feedForward: feedForward.layer.thin(cache.feedForward.layer))
  }

  /// The same up to what the feed-forward keeps.
  public func cache(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> Cache {
    var (z, attentionCache) = attention.forward(x, keeping: thin.attention, batch, run)  // (N,C)
    addResidual(x, to: &z, run)
    return Cache(attention: attentionCache, feedForward: feedForward.cache(z, keeping: thin.feedForward, batch, run))
  }

  /// dy (N,C) → dx (N,C), in place where nobody else holds dy.
  public func backward(_ dy: consuming Tensor<B>, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var dx: Tensor<B> = consume dy
    run.hook(gradient: &dx, path, "output")
    let (attentionCache, feedForwardCache) = (cache.attention, cache.feedForward)
    _ = consume cache
    // forward: y = z + feedForward(norm₂(z))
    dx = feedForward.backwardOfSum(consume dx, consume feedForwardCache, batch, run)  // (N,C)  dz
    run.hook(gradient: &dx, path, "residual.output")
    // forward: z = x + attention(norm₁(x))
    return attention.backwardOfSum(consume dx, consume attentionCache, batch, run)  // (N,C)
  }

  /// z = x + attention, from attention (N,C).
  private func addResidual(_ x: Tensor<B>, to z: inout Tensor<B>, _ run: Run<B>) {
    run.backend.add(1, x, into: &z)
    run.hook(&z, path, "residual.output", "z = x + attention(norm₁(x))")
  }
}
