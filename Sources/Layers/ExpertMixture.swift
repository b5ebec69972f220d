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
}
