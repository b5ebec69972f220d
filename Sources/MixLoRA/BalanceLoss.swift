import Tensors

/// The loss that keeps experts evenly busy, in the form that the authors' code computes (`pooledTopK`).
///
/// M = layers × tokens, slots pooled over all layers:
///
///     F_i = (slots routed to expert i) / M        P_i = (Σ p_i) / M        loss = coefficient · E · Σ_i F_i P_i
///
/// F has no gradient, so every row of every layer's p has the same one, `balance` (E):
///
///     balance_i = coefficient · E · F_i / M       loss = Σ_i balance_i (Σ p_i)       dp = balance
///
/// A router with uniform choices gives coefficient · K. (The paper's equations 8 and 9 count the first choice only
/// and do not say how layers are joined.)
public struct BalanceLoss<B: Backend>: Sendable {
  /// What the loss is multiplied with: `router_aux_loss_coef`.
  public let coefficient: Double

  /// A loss with the given coefficient; 0 switches it off.
  public init(coefficient: Double) { self.coefficient = coefficient }

  /// The loss (1) and its gradient (E) for each row of each layer's p.
  public func forward(_ routers: [Router<B>.Cache], _ run: Run<B>) -> (loss: Tensor<B>, balance: Tensor<B>) {
    let experts = routers[0].routing.experts
    var balance = run.backend.zeros(Shape(experts))  // (E)
    var importance = run.backend.zeros(Shape(experts))  // (E)  Σ p
    let m = Double(routers.reduce(0) { $0 + $1.routing.tokens })
    for router in routers {
      run.backend.add(coefficient * Double(experts) / (m * m), router.routing.counts, into: &balance)  // coefficient·E·F/M
      run.backend.addColumnSums(router.p, weights: nil, into: &importance)
    }
    return (run.backend.dot(balance, importance), balance)
  }
}
