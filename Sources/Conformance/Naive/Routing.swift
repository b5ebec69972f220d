extension Naive {
  /// Which expert computes which token; what `Routing` holds on the device, as plain lists.
  public struct Plan: Equatable, Sendable {
    /// Number of tokens N.
    public var tokens: Int
    /// Number of experts E.
    public var experts: Int
    /// Experts per token K.
    public var expertsPerToken: Int
    /// The expert of choice k of token n at n·K + k.
    public var choice: [Int]
    /// The row in expert order of each choice: (N·K).
    public var rowOfChoice: [Int]
    /// The token of each row in expert order: (M).
    public var tokenOfRow: [Int]
    /// The choice of each row in expert order: (M).
    public var choiceOfRow: [Int]
    /// Where each expert's rows begin, and M at the end: (E+1).
    public var offsets: [Int]
    /// Routing weight of each row in expert order: (M).
    public var weights: [Double]

    /// A plan from its lists.
    public init(
      tokens: Int, experts: Int, expertsPerToken: Int, choice: [Int], rowOfChoice: [Int], tokenOfRow: [Int], choiceOfRow: [Int],
      offsets: [Int], weights: [Double]
    ) {
      self.tokens = tokens
      self.experts = experts
      self.expertsPerToken = expertsPerToken
      self.choice = choice
      self.rowOfChoice = rowOfChoice
      self.tokenOfRow = tokenOfRow
      self.choiceOfRow = choiceOfRow
      self.offsets = offsets
      self.weights = weights
    }

    /// Number of rows M.
    public var rows: Int { tokenOfRow.count }

    /// The expert whose range of rows holds row m.
    public func expert(ofRow m: Int) -> Int { choice[choiceOfRow[m]] }

    /// Number of tokens whose first choice is each expert.
    public var firstCounts: [Double] {
      (0..<experts).map { e in Double((0..<tokens).filter { expertsPerToken > 0 && choice[$0 * expertsPerToken] == e }.count) }
    }

    /// The rows of expert e.
    public func rows(of e: Int) -> Range<Int> { offsets[e]..<offsets[e + 1] }
  }

  /// The K largest of each row, largest first, ties to the lower index: p (N,E) → (N·K).
  public static func topK(_ p: Matrix, _ k: Int) -> [Int] {
    var choice: [Int] = []
    for n in 0..<p.rows {
      var left = Array(0..<p.columns)
      for _ in 0..<k {
        var best = 0
        for candidate in 0..<left.count where p[n, left[candidate]] > p[n, left[best]] { best = candidate }
        choice.append(left.remove(at: best))
      }
    }
    return choice
  }

  /// Orders the N·K choices by expert, then token, with weight p_j / Σ_chosen p.
  public static func route(_ p: Matrix, choice: [Int], _ k: Int) -> Plan {
    let tokens = p.rows
    var plan = Plan(
      tokens: tokens, experts: p.columns, expertsPerToken: k, choice: choice,
      rowOfChoice: [Int](repeating: -1, count: tokens * k), tokenOfRow: [], choiceOfRow: [], offsets: [0], weights: [])
    for e in 0..<p.columns {
      for n in 0..<tokens {
        var chosen = 0.0
        for slot in 0..<k { chosen += p[n, choice[n * k + slot]] }
        for slot in 0..<k where choice[n * k + slot] == e {
          plan.rowOfChoice[n * k + slot] = plan.tokenOfRow.count
          plan.tokenOfRow.append(n)
          plan.choiceOfRow.append(n * k + slot)
          plan.weights.append(p[n, e] / chosen)
        }
      }
      plan.offsets.append(plan.tokenOfRow.count)
    }
    return plan
  }

  /// dlogits through both Jacobians, that of the weights and that of the softmax: dw (M), p (N,E), balance (E) → (N,E).
  ///
  ///     w_a = p_a / S,  S = Σ_chosen p      ∂w_a/∂p_b = δ_ab / S − p_a / S²  for chosen a, b
  ///     dp_b = Σ_a dw_a ∂w_a/∂p_b + balance_b      dlogits_j = Σ_b dp_b p_b (δ_bj − p_j)
  public static func routerBackward(_ dw: [Double], _ p: Matrix, _ plan: Plan, balance: [Double]) -> Matrix {
    let k = plan.expertsPerToken
    var dlogits = Matrix(p.rows, p.columns)
    for n in 0..<p.rows {
      let chosen = (0..<k).map { plan.choice[n * k + $0] }
      let slope = (0..<k).map { dw[plan.rowOfChoice[n * k + $0]] }
      var total = 0.0
      for e in chosen { total += p[n, e] }
      var dp = balance
      for b in 0..<k {
        for a in 0..<k {
          let jacobian = (a == b ? 1 / total : 0) - p[n, chosen[a]] / (total * total)
          dp[chosen[b]] += slope[a] * jacobian
        }
      }
      for j in 0..<p.columns {
        for b in 0..<p.columns { dlogits[n, j] += dp[b] * p[n, b] * ((b == j ? 1 : 0) - p[n, j]) }
      }
    }
    return dlogits
  }
}
