import Tensors

/// The loss that keeps experts evenly busy, in two forms by name.
///
/// L layers of N tokens, p the router's full softmax:
///
///     pooledTopK        F_i = (rows of expert i, all layers) / (L·N)     P_i = (Σ p_i, all layers) / (L·N)
///                       loss = coefficient · E · Σ_i F_i P_i
///
///     perLayerArgmax    F_i = (first choices of expert i) / N            P_i = (Σ p_i) / N             layer by layer
///                       loss = mean over the layers of coefficient · E · Σ_i F_i P_i
///
/// The first is what the authors' code computes, whatever the policy of the router; imbalances of different layers cancel in it, and a
/// uniform top-K router gives coefficient · K. The second is the paper's equations 8 and 9 with the full softmax for P; a uniform router
/// gives coefficient. F has no gradient, so every row of a layer's p has the same one, `balance` (E):
///
///     pooledTopK        balance_i = coefficient · E · F_i / (L·N)
///     perLayerArgmax    balance_i = coefficient · E · F_i / (L·N)    of each layer
///
/// and loss = Σ over the layers of Σ_i balance_i (Σ_n p_ni), dp_n = balance. Without a token it is 0.
public struct BalanceLoss<B: Backend>: Sendable {
  /// What is counted and how layers are joined.
  public let form: BalanceLossForm
  /// What the loss is multiplied with: `router_aux_loss_coef`.
  public let coefficient: Double

  /// A loss with the given coefficient; 0 switches it off.
  public init(_ form: BalanceLossForm, coefficient: Double) {
    self.form = form
    self.coefficient = coefficient
  }

  /// The loss (1) of one adapter's routers, and for every router its gradient (E) with respect to each row of p.
  ///
  /// - Parameter weight: a micro-batch's share of its step's tokens.
  /// - Precondition: `loads` has the load of at least one router; all have the same number of experts.
  public func forward(_ loads: [RouterLoad<B>], weight: Double = 1, _ run: Run<B>) -> (loss: Tensor<B>, balances: [Tensor<B>]) {
    let backend = run.backend
    let experts = loads[0].counts.columnCount
    let tokens = Double(loads.reduce(0) { $0 + $1.tokens })  // L·N
    guard tokens > 0 else { return (backend.zeros(Shape(1)), loads.map { _ in backend.zeros(Shape(experts)) }) }
    let coefficient = weight * coefficient
    switch form {
    case .pooledTopK:
      var (balance, importance) = (backend.zeros(Shape(experts)), backend.zeros(Shape(experts)))  // (E)
      for load in loads {
        backend.add(coefficient * Double(experts) / (tokens * tokens), load.counts, into: &balance)
        backend.addColumnSums(load.probabilities, weights: nil, into: &importance)
      }
      return (backend.dot(balance, importance), loads.map { _ in balance })
    case .perLayerArgmax:
      var (loss, balances) = (backend.zeros(Shape(1)), [Tensor<B>]())
      for load in loads {
        var (balance, importance) = (backend.zeros(Shape(experts)), backend.zeros(Shape(experts)))  // (E)
        backend.add(coefficient * Double(experts) / (tokens * Double(load.tokens)), load.firstCounts, into: &balance)
        backend.addColumnSums(load.probabilities, weights: nil, into: &importance)
        backend.add(1, backend.dot(balance, importance), into: &loss)
        balances.append(balance)
      }
      return (loss, balances)
    }
  }
}

/// The forms of the balance loss.
public enum BalanceLossForm: String, Sendable, CaseIterable {
  /// All choices, pooled over the layers: the authors' code.
  case pooledTopK
  /// The first choice, layer by layer: the paper.
  case perLayerArgmax
}
