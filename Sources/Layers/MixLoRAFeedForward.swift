import Tensors

/// The feed-forward of a MixLoRA block: a router and the experts that it chooses from (arXiv:2404.15159, figure 2).
///
///     routing = router(x)                      x (N,C), the normalised residual stream
///     y = Σ_k w_k e_k(x)     (N,C)             dx = dx of the experts + dx of the router      (N,C)
///
/// The router reads x without dropout; the experts' branches share one mask on x.
public struct MixLoRAFeedForward<B: Backend> {
  /// Module path: `model.layers.3.mlp`.
  public let path: String
  /// Who computes what.
  public let router: Router<B>
  /// What is computed.
  public let experts: LoRAExperts<B>
  let inputDropout: InputDropout<B>

  /// What backward needs; x lies in the router's cache.
  public struct Cache {
    let router: Router<B>.Cache
    let experts: LoRAExperts<B>.Cache
  }

  /// A block of a router and experts; `dropout` is that of the experts' branches on x.
  public init(path: String, router: Router<B>, experts: LoRAExperts<B>, dropout: Double) {
    self.path = path
    self.router = router
    self.experts = experts
    inputDropout = InputDropout(path: path + ".input", probability: dropout)
  }

  /// (N,C) → (N,C).
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> (y: Tensor<B>, load: Router<B>.Load, cache: Cache) {
    let (load, routerCache) = router.forward(x, run)
    var (y, expertsCache) = experts.forward(inputDropout.forward(x, run), routerCache.routing, run)  // (N,C)
    run.hook(&y, path, "output")
    return (y, load, Cache(router: routerCache, experts: expertsCache))
  }

  /// dy (N,C) → dx (N,C); `balance` (E) is the balance loss's gradient for each row of p.
  public func backward(_ dy: Tensor<B>, balance: Tensor<B>, _ cache: consuming Cache, _ run: Run<B>) -> Tensor<B> {
    var dy = dy
    run.hook(&dy, path, "output")
    // forward: y = Σ_k w_k e_k(x)
    let input = inputDropout.forward(cache.router.x, run)
    var gradient = LoRAInput<B>.Gradient()
    let dw = experts.backward(dy, input, cache.router.routing, cache.experts, into: &gradient, run)  // (M)
    // forward: routing = router(x)
    router.backward(dw, balance: balance, cache.router, into: &gradient.dx, run)
    return inputDropout.backward(&gradient, run)  // (N,C)
  }
}
