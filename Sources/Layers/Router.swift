import Tensors

/// The router of a MixLoRA block: which of E experts compute a token, and with what weight
/// (arXiv:2404.15159, equation 7 and algorithm 1, line 5; the order of Mixtral: softmax, choice, weights).
///
/// N tokens, C channels, Wg (E,C), M chosen pairs (token, expert):
///
///     z = x Wgᵀ                                 (N,E)      dWg += dzᵀ x              (E,C)
///     p = softmax(z)                            (N,E)      dx  += dz Wg              (N,C)
///     chosen = choice of the policy from p
///     w_j = weight of the policy                (M)
///
///     topK(K)         the K largest p, ties to the lower index          w_j = p_j / Σ_chosen p
///                     dz_j = w_j (dw_j − Σ_i w_i dw_i), j chosen, else 0
///     topP(P, t)      by falling p/t up to the first at which the sum exceeds P       w_j = p_j / t, t = 1 without a temperature
///                     dp_j = dw_j / t, j chosen, else 0                 dz = p ⊙ (dp − ⟨dp, p⟩)
///     balance loss    dz += p ⊙ (balance − ⟨balance, p⟩)
///
/// balance (E) is the gradient of the balance loss with respect to p, the same for every row (``BalanceLoss``); the model's pass puts
/// it into `run.balances` under the router's path once all layers' loads are known, before the first backward. Where the weights are
/// renormalized the sum over the full softmax cancels in w, hence the short dz; with K = 1, w is 1 and the router learns from
/// the balance loss alone. Which experts are chosen has no gradient.
public struct Router<B: Backend> {
  /// Module path: `model.layers.3.mlp.moe_gate`.
  public let path: String
  /// The number of the adapter that it belongs to.
  public let adapter: Int
  /// Wg (E,C).
  public let gate: Parameter<B>
  /// How experts are picked and weighted.
  public let policy: RoutingPolicy

  /// N·E scalars, and the plan.
  public struct Cache {
    let p: Tensor<B>  // (N,E)
    /// Who computes what.
    public let routing: Routing<B>
  }

  /// A router with the given gate.
  public init(path: String, adapter: Int = 0, gate: Parameter<B>, policy: RoutingPolicy) {
    self.path = path
    self.adapter = adapter
    self.gate = gate
    self.policy = policy
  }

  /// Chooses for every row of x (N,C), and reports how busy that keeps the experts.
  ///
  /// - Complexity: 2·N·C·E flops.
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> Cache {
    let backend = run.backend
    var z = backend.matmul(x, gate.value.T)  // (N,E)  x Wgᵀ
    run.hook(&z, path, "output", "z = x Wgᵀ")
    var p = backend.softmax(z)  // (N,E)
    run.hook(&p, path, "probabilities.output", "p = softmax(z)")
    var choice = backend.choose(p, policy)  // (N·S)
    run.hook(choice: &choice, path, "choice", "the experts of the largest p")
    let routing = weighted(backend.route(p, choice: choice, policy), run)  // (M)  rows ordered by expert
    run.report(
      RouterLoad(
        path: path, adapter: adapter, tokens: routing.tokens, counts: routing.counts, firstCounts: routing.firstCounts,
        probabilities: p))
    return Cache(p: p, routing: routing)
  }

  /// Adds dz Wg to dx and dzᵀ x to the gate's gradient, x (N,C) being what forward read; dw (M) comes from the experts in the routing's
  /// order, the balance loss's part from the run.
  ///
  /// - Parameter rows: the rows of dx that are those of x; without a range, all.
  public func backward(
    _ dw: Tensor<B>, _ x: Tensor<B>, _ cache: consuming Cache, into dx: inout Tensor<B>, rows: Range<Int>? = nil, _ run: Run<B>
  ) {
    let backend = run.backend
    let balance = run.balances[path] ?? backend.zeros(Shape(gate.shape.rows))  // (E)
    // forward: w from p, p = softmax(z)
    let dw = hookedWeightGradient(dw, cache.routing, run)
    var dz = backend.routerBackward(dw, cache.p, cache.routing, balance: balance)  // (N,E)
    run.hook(gradient: &dz, path, "output")
    // forward: z = x Wgᵀ
    backend.addProduct(1, dz.T, x, into: &gate.gradient)  // (E,C)  + dzᵀ x
    backend.addProduct(1, dz, gate.value, into: &dx, rows: rows)  // (N,C)  + dz Wg
  }

  /// Lets hooks see the weights by token and slot (N,S), in the order of the choice; zero in an empty slot.
  private func weighted(_ routing: Routing<B>, _ run: Run<B>) -> Routing<B> {
    guard run.listens(to: "\(path).weights.output") else { return routing }
    let before = slots(of: routing.weights, routing, run)
    var w = before
    run.hook(&w, path, "weights.output", "w = p / Σ_chosen p, or p / t")
    if w.storage === before.storage { return routing }
    return routing.withWeights(run.backend.gather(column(w), rows: routing.slotOfRow).asVector)
  }

  private func hookedWeightGradient(_ dw: Tensor<B>, _ routing: Routing<B>, _ run: Run<B>) -> Tensor<B> {
    guard run.listens(to: "\(path).weights.output") else { return dw }
    let before = slots(of: dw, routing, run)
    var slots = before
    run.hook(gradient: &slots, path, "weights.output")
    return slots.storage === before.storage ? dw : run.backend.gather(column(slots), rows: routing.slotOfRow).asVector
  }

  /// Values of the rows in expert order (M) at their tokens' slots: (N,S).
  private func slots(of rows: Tensor<B>, _ routing: Routing<B>, _ run: Run<B>) -> Tensor<B> {
    var slots = run.backend.zeros(Shape(routing.tokens * routing.slots, 1))  // (N·S,1)
    run.backend.copy(rows.asColumn, into: &slots, rows: routing.slotOfRow)
    return Tensor(storage: slots.storage, shape: Shape(routing.tokens, routing.slots))
  }

  private func column(_ slots: Tensor<B>) -> Tensor<B> {
    guard slots.isContiguous else { trap("\(path).weights: the replacement has gaps") }
    return Tensor(storage: slots.storage, offset: slots.offset, shape: Shape(slots.shape.count, 1))
  }
}
