import Layers
import Tensors

/// One block of a decoder: attention and feed-forward, each on the normalised residual stream
/// (arXiv:2404.15159, equations 4 and 5).
///
///     z = x + attention(norm₁(x))              (N,C)
///     y = z + feedForward(norm₂(z))            (N,C)
///
/// The residual stream's gradient passes both sums unchanged and collects what the branches add to it.
public struct DecoderBlock<B: Backend> {
  let path: String
  let inputNorm: RMSNorm<B>
  let attention: Attention<B>
  let postAttentionNorm: RMSNorm<B>
  let feedForward: FeedForward

  /// Dense, or a mixture of experts.
  enum FeedForward {
    case dense(GatedFeedForward<B>)
    case mixture(MixLoRAFeedForward<B>)
  }

  enum FeedForwardCache {
    case dense(GatedFeedForward<B>.Cache)
    case mixture(MixLoRAFeedForward<B>.Cache)
  }

  /// The matrices of all linear layers.
  var matrices: [Weight<B>] {
    let ffn: [Linear<B>] =
      switch feedForward {
      case .dense(let layer): [layer.gate.linear, layer.up.linear, layer.down.linear]
      case .mixture(let layer): [layer.experts.w1, layer.experts.w3, layer.experts.w2]
      }
    return ([attention.q.linear, attention.k.linear, attention.v.linear, attention.o.linear] + ffn).map(\.weight)
  }

  /// What backward needs: all of it, or x alone, from which it is formed again.
  enum Cache {
    case kept(Kept)
    case recomputed(x: Tensor<B>)
  }

  struct Kept {
    let inputNorm: RMSNorm<B>.Cache
    let attention: Attention<B>.Cache
    let postAttentionNorm: RMSNorm<B>.Cache
    let feedForward: FeedForwardCache
  }

  /// (N,C) → (N,C), with how busy the experts were where there are any; `earlier` as for ``Attention``.
  func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>? = nil) -> (
    y: Tensor<B>, load: Router<B>.Load?, cache: Kept
  ) {
    let (x1, norm1Cache) = inputNorm.forward(x, run)  // (N,C)
    var (z, attentionCache) = attention.forward(x1, batch, run, earlier: earlier)  // (N,C)
    run.backend.add(1, x, into: &z)  // (N,C)  x + attention
    let (x2, norm2Cache) = postAttentionNorm.forward(z, run)  // (N,C)
    var y: Tensor<B>  // (N,C)
    let feedForwardCache: FeedForwardCache
    var load: Router<B>.Load?
    switch feedForward {
    case .dense(let layer):
      let (output, cache) = layer.forward(x2, run)
      (y, feedForwardCache) = (output, .dense(cache))
    case .mixture(let layer):
      let (output, layerLoad, cache) = layer.forward(x2, run)
      (y, feedForwardCache, load) = (output, .mixture(cache), layerLoad)
    }
    run.backend.add(1, z, into: &y)  // (N,C)  z + feedForward
    run.hook(&y, path, "output")
    let cache = Kept(inputNorm: norm1Cache, attention: attentionCache, postAttentionNorm: norm2Cache, feedForward: feedForwardCache)
    return (y, load, cache)
  }

  /// Turns dy (N,C) into dx (N,C) in place; `balance` (E) where there is a router.
  func backward(_ dx: inout Tensor<B>, balance: Tensor<B>?, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) {
    run.hook(&dx, path, "output")
    let cache = kept(cache, batch, run)
    let (inputNormCache, attentionCache, norm2Cache) = (cache.inputNorm, cache.attention, cache.postAttentionNorm)
    let feedForwardCache = cache.feedForward
    // forward: y = z + feedForward(norm₂(z))
    let dx2: Tensor<B>  // (N,C)
    switch consume feedForwardCache {
    case .dense(let cache):
      guard case .dense(let layer) = feedForward else { trap("\(path): the cache of another feed-forward") }
      dx2 = layer.backward(dx, consume cache, run)
    case .mixture(let cache):
      guard case .mixture(let layer) = feedForward, let balance else { trap("\(path): the cache of another feed-forward") }
      dx2 = layer.backward(dx, balance: balance, consume cache, run)
    }
    postAttentionNorm.backward(dx2, norm2Cache, into: &dx, run)  // (N,C)  dz
    // forward: z = x + attention(norm₁(x))
    let dx1 = attention.backward(dx, attentionCache, batch, run)  // (N,C)
    inputNorm.backward(dx1, inputNormCache, into: &dx, run)  // (N,C)
  }

  /// The caches of the layers, kept or formed again from x by the same forward: the same numbers, masks and replaced values.
  private func kept(_ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Kept {
    switch cache {
    case .kept(let kept): kept
    case .recomputed(let x): run.recomputing { forward(x, batch, run).cache }
    }
  }
}
