import Tensors

/// The router of a MixLoRA block: which K of E experts compute a token, and with what weight
/// (arXiv:2404.15159, equation 7 and algorithm 1, line 5; the order of Mixtral: softmax, top-K, renormalise).
///
/// N tokens, C channels, Wg (E,C), M = N·K choices:
///
///     z = x Wgᵀ                                (N,E)       dz_j  = w_j (dw_j − Σ_i w_i dw_i)    j chosen, else 0
///     p = softmax(z)                           (N,E)       dz   += p ⊙ (balance − ⟨balance, p⟩)
///     chosen = the K largest p, ties to the lower index    dWg  += dzᵀ x                        (E,C)
///     w_j = p_j / Σ_chosen p                   (M)         dx   += dz Wg                        (N,C)
///
/// balance (E) is the gradient of the balance loss with respect to p, the same for every row (``BalanceLoss``). The sum over the
/// full softmax cancels in w, hence the short dz. With K = 1, w is 1 and the router learns from
/// the balance loss alone. Which experts are chosen has no gradient.
public struct Router<B: Backend> {
  /// Module path: `model.layers.3.mlp.moe_gate`.
  public let path: String
  /// Wg (E,C).
  public let gate: Parameter<B>
  /// Experts per token K.
  public let expertsPerToken: Int

  /// N·(C + E) scalars, x shared with the experts.
  public struct Cache {
    let x: Tensor<B>  // (N,C)
    let p: Tensor<B>  // (N,E)
    /// Who computes what.
    public let routing: Routing<B>
  }

  /// How busy the experts were in one layer: all that the balance loss needs of it.
  public struct Load {
    /// Number of tokens N.
    public let tokens: Int
    /// Rows of each expert: (E).
    public let counts: Tensor<B>
    /// Tokens whose first choice is each expert: (E).
    public let firstCounts: Tensor<B>
    /// Σ_n p_n: (E).
    public let importance: Tensor<B>
  }

  /// A router with the given gate.
  public init(path: String, gate: Parameter<B>, expertsPerToken: Int) {
    self.path = path
    self.gate = gate
    self.expertsPerToken = expertsPerToken
  }

  /// Chooses for every row of x (N,C).
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> (load: Load, cache: Cache) {
    var z = run.matmul(x, gate.value.T)  // (N,E)  x Wgᵀ
    run.hook(&z, path, "output")
    let p = run.backend.softmax(z)  // (N,E)
    var choice = run.backend.topK(p, expertsPerToken)  // (N·K)
    run.hook(choice: &choice, path, "choice")
    let routing = run.backend.route(p, choice: choice, expertsPerToken)  // (M)  w = p / Σ_chosen p, rows ordered by expert
    var importance = run.backend.zeros(Shape(routing.experts))  // (E)
    run.backend.addColumnSums(p, weights: nil, into: &importance)
    let load = Load(tokens: routing.tokens, counts: routing.counts, firstCounts: routing.firstCounts, importance: importance)
    return (load, Cache(x: x, p: p, routing: routing))
  }

  /// Adds dz Wg to dx (nil counts as zero); dw (M) comes from the experts in the routing's order, balance (E) from ``BalanceLoss``.
  public func backward(_ dw: Tensor<B>, balance: Tensor<B>, _ cache: consuming Cache, into dx: inout Tensor<B>?, _ run: Run<B>) {
    // forward: w = p / Σ_chosen p, p = softmax(z)
    var dz = run.backend.routerBackward(dw, cache.p, cache.routing, balance: balance)  // (N,E)
    run.hook(&dz, path, "output")
    // forward: z = x Wgᵀ
    run.addProduct(1, dz.T, cache.x, into: &gate.gradient)  // (E,C)  + dzᵀ x
    run.addProduct(1, dz, gate.value, into: &dx)  // (N,C)  + dz Wg
  }
}
