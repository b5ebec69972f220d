import Tensors

/// One block of a decoder: what a family builds of layers. It reads the residual stream and gives the next one.
///
/// A family whose blocks are put together otherwise (attention beside the feed-forward, say) brings a type of its own.
public protocol DecoderBlock<B> {
  /// The backend of its tensors.
  associatedtype B: Backend
  /// What backward needs.
  associatedtype Cache
  /// What of it is kept where the rest is formed again, as in ``StreamLayer``. Nothing, if a block does not say.
  associatedtype Thin = Void

  /// Module path: `model.layers.3`.
  var path: String { get }
  /// The linear layers that every token runs through, trained or not, in the order of the model.
  var linears: [Linear<B>] { get }
  /// x (N,C) → y (N,C); with `earlier`, for decoding, as in ``Attention``.
  func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>?) -> (y: Tensor<B>, cache: Cache)
  /// What is kept of a cache.
  func thin(_ cache: Cache) -> Thin
  /// The cache, formed again in backward from x and what was kept: the same numbers, masks and replaced values. It need not form y.
  func cache(_ x: Tensor<B>, keeping thin: Thin, _ batch: PackedBatch<B>, _ run: Run<B>) -> Cache
  /// dy (N,C) → dx (N,C).
  func backward(_ dy: consuming Tensor<B>, _ cache: consuming Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B>
}

extension DecoderBlock where Thin == Void {
  /// Nothing.
  public func thin(_ cache: Cache) {}

  /// By the whole forward.
  public func cache(_ x: Tensor<B>, keeping thin: Void, _ batch: PackedBatch<B>, _ run: Run<B>) -> Cache {
    forward(x, batch, run, earlier: nil).cache
  }
}
