import Tensors

/// What a MixLoRA adapter makes of a feed-forward: a router and the experts that it chooses from (arXiv:2404.15159, figure 2).
///
///     routing = router(x)                      x (N,C), the normalized residual stream
///     y = Σ_k w_k e_k(x)     (N,C)             dx = dx of the experts + dx of the router      (N,C)
///
/// The router reads x without dropout; the experts' branches share one mask on x. ``FeedForward`` leads both.
public struct ExpertMixture<B: Backend> {
  /// Who computes what.
  public let router: Router<B>
  /// What is computed.
  public let experts: LoRAExperts<B>

  /// A router and its experts.
  public init(router: Router<B>, experts: LoRAExperts<B>) {
    self.router = router
    self.experts = experts
  }

  /// What comes of x (n,C) and u alone: the routing, and A1_k u and A3_k u of every row, (M,r).
  func lowRanks(_ x: Tensor<B>, _ input: LoRAInput<B>, _ run: Run<B>) -> (router: Router<B>.Cache, low: LoRAExperts<B>.SharedCache) {
    let routerCache = router.forward(x, run)
    let (t1, t3) = experts.lowRanks(input.u[router.adapter], routerCache.routing, run)
    return (routerCache, LoRAExperts<B>.SharedCache(t1: t1, t3: t3, t2: nil))
  }
}
