import Tensors

extension Naive {
  /// Which expert computes which token; what `Routing` holds on the device, as plain lists.
  public struct Plan: Equatable, Sendable {
    /// How the experts were picked.
    public var policy: RoutingPolicy
    /// Number of tokens N.
    public var tokens: Int
    /// Number of experts E.
    public var experts: Int
    /// The expert of slot k of token n at n·S + k, −1 for none.
    public var choice: [Int]
    /// The row in expert order of each slot, −1 for none: (N·S).
    public var rowOfSlot: [Int]
    /// The token of each pair in expert order.
    public var tokenOfRow: [Int]
    /// The slot of each pair in expert order.
    public var slotOfRow: [Int]
    /// Where each expert's rows begin, and the number of pairs at the end: (E+1).
    public var offsets: [Int]
    /// Routing weight of each pair in expert order.
    public var weights: [Double]
    /// Rows behind the pairs, which are nobody's: what a backend has that does not know the number of pairs on the host.
    public var spareRows = 0

    /// A plan from its lists.
    public init(
      policy: RoutingPolicy, tokens: Int, experts: Int, choice: [Int], rowOfSlot: [Int], tokenOfRow: [Int], slotOfRow: [Int],
      offsets: [Int], weights: [Double]
    ) {
      self.policy = policy
      self.tokens = tokens
      self.experts = experts
      self.choice = choice
      self.rowOfSlot = rowOfSlot
      self.tokenOfRow = tokenOfRow
      self.slotOfRow = slotOfRow
      self.offsets = offsets
      self.weights = weights
    }

    /// Slots S of a token.
    public var slots: Int { policy.slots(of: experts) }

    /// Number of pairs of a token and an expert.
    public var pairs: Int { tokenOfRow.count }

    /// Number of rows M.
    public var rows: Int { pairs + spareRows }

    /// The expert whose range of rows holds row m.
    public func expert(ofRow m: Int) -> Int { choice[slotOfRow[m]] }

    /// Number of tokens whose first choice is each expert.
    public var firstCounts: [Double] {
      (0..<experts).map { e in Double((0..<tokens).filter { slots > 0 && choice[$0 * slots] == e }.count) }
    }

    /// The rows of expert e.
    public func rows(of e: Int) -> Range<Int> { offsets[e]..<offsets[e + 1] }

    /// The rows of token n's experts, in the order of its slots.
    public func rows(ofToken n: Int) -> [Int] { rowOfSlot[n * slots..<(n + 1) * slots].filter { $0 >= 0 } }
  }

  /// All experts of a row p (E) by falling probability, ties to the lower index; NaN counts as −∞.
  private static func ranked(_ p: [Double]) -> [Int] {
    var left = Array(p.indices)
    var order: [Int] = []
    while !left.isEmpty {
      var best = 0
      for candidate in left.indices where p[left[candidate]] > p[left[best]] { best = candidate }
      order.append(left.remove(at: best))
    }
    return order
  }

  /// The experts that a policy picks of each row: p (N,E) → (N·S), −1 where a slot has none.
  ///
  ///     top-K     the K largest
  ///     top-P     by falling p, until Σ p/t exceeds the threshold; the one at which it does is the last
  public static func choose(_ p: Matrix, _ policy: RoutingPolicy) -> [Int] {
    let slots = policy.slots(of: p.columns)
    let p = p.map { $0.isNaN ? -.infinity : $0 }
    return (0..<p.rows).flatMap { n -> [Int] in
      let order = ranked(p.row(n))
      guard case .topP(let threshold, _) = policy else { return Array(order.prefix(slots)) }
      var (chosen, sum) = ([Int](), 0.0)
      for e in order where sum <= threshold {
        chosen.append(e)
        sum += p[n, e] / policy.weightDivisor
      }
      return chosen + [Int](repeating: -1, count: slots - chosen.count)
    }
  }

  /// Orders the chosen pairs by expert, then token, with weight p_j / Σ_chosen p of top-K, p_j / t of top-P.
  public static func route(_ p: Matrix, choice: [Int], _ policy: RoutingPolicy) -> Plan {
    let (tokens, slots) = (p.rows, policy.slots(of: p.columns))
    var plan = Plan(
      policy: policy, tokens: tokens, experts: p.columns, choice: choice, rowOfSlot: [Int](repeating: -1, count: tokens * slots),
      tokenOfRow: [], slotOfRow: [], offsets: [0], weights: [])
    for e in 0..<p.columns {
      for n in 0..<tokens {
        var divisor = policy.weightDivisor
        if case .topK = policy {
          divisor = 0
          for slot in n * slots..<(n + 1) * slots where choice[slot] >= 0 { divisor += p[n, choice[slot]] }
        }
        for slot in n * slots..<(n + 1) * slots where choice[slot] == e {
          plan.rowOfSlot[slot] = plan.tokenOfRow.count
          plan.tokenOfRow.append(n)
          plan.slotOfRow.append(slot)
          plan.weights.append(p[n, e] / divisor)
        }
      }
      plan.offsets.append(plan.tokenOfRow.count)
    }
    return plan
  }

  /// dlogits through both Jacobians, that of the weights and that of the softmax: dw (M), p (N,E), balance (E) → (N,E).
  ///
  ///     top-K     w_a = p_a / S,  S = Σ_chosen p      ∂w_a/∂p_b = δ_ab / S − p_a / S²  for chosen a, b
  ///     top-P     w_a = p_a / t                       ∂w_a/∂p_b = δ_ab / t
  ///     dp_b = Σ_a dw_a ∂w_a/∂p_b + balance_b         dlogits_j = Σ_b dp_b p_b (δ_bj − p_j)
  public static func routerBackward(_ dw: [Double], _ p: Matrix, _ plan: Plan, balance: [Double]) -> Matrix {
    var dlogits = Matrix(p.rows, p.columns)
    for n in 0..<p.rows {
      let rows = plan.rows(ofToken: n)
      let chosen = rows.map { plan.expert(ofRow: $0) }
      var total = 0.0
      for e in chosen { total += p[n, e] }
      var dp = balance
      for b in rows.indices {
        for a in rows.indices {
          let jacobian =
            switch plan.policy {
            case .topK: (a == b ? 1 / total : 0) - p[n, chosen[a]] / (total * total)
            case .topP: a == b ? 1 / plan.policy.weightDivisor : 0
            }
          dp[chosen[b]] += dw[rows[a]] * jacobian
        }
      }
      for j in 0..<p.columns {
        for b in 0..<p.columns { dlogits[n, j] += dp[b] * p[n, b] * ((b == j ? 1 : 0) - p[n, j]) }
      }
    }
    return dlogits
  }
}
