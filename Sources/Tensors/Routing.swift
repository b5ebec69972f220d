/// How a router picks a token's experts from its probabilities p (E).
public enum RoutingPolicy: Equatable, Sendable {
  /// The K largest, ties to the lower index; w = p / Σ_chosen p. MixLoRA's and Mixtral's.
  case topK(Int)
  /// By falling p, ties to the lower index, up to and including the first expert at which their sum exceeds `threshold`; w = p, not
  /// renormalized. With a temperature t > 0 both take p / t, so for t ≠ 1 the weights do not sum up to about `threshold`.
  /// MoE-PEFT's `mixlora-dynamic`.
  case topP(threshold: Double, temperature: Double)

  /// Slots S of a token: the most experts that it can choose of `experts`, E.
  public func slots(of experts: Int) -> Int {
    if case .topK(let k) = self { k } else { experts }
  }
  /// What the weights divide p by: t where there is one.
  public var weightDivisor: Double {
    if case .topP(_, let temperature) = self, temperature > 0 { temperature } else { 1 }
  }
}

/// Which expert computes which token: the plan that all expert operations follow.
///
/// Each token has S slots that name an expert or none (−1). The pairs (token, expert) are ordered by expert, then by token, so that an
/// expert's rows are one range. Everything lies on the device; a GPU's kernels read the offsets there, only CPU backends look at
/// them on the host.
public struct Routing<B: Backend> {
  /// How the experts were picked, and with it how the weights follow from p.
  public let policy: RoutingPolicy
  /// Number of tokens N.
  public let tokens: Int
  /// Number of experts E.
  public let experts: Int
  /// Slots S of a token.
  public let slots: Int
  /// Rows M that buffers in expert order have: as many as there are pairs where the host knows it, as on a CPU or where every slot is
  /// taken, else N·S. Rows from `offsets[E]` on belong to nobody: `dispatch` makes them zero and no operation reads them.
  public let rows: Int
  /// The expert of each slot, −1 for none: (N·S), slot k of token n at n·S + k; largest probability first where no hook replaced it.
  public let choice: Indices<B>
  /// The row in expert order of each slot, −1 for none: (N·S).
  public let rowOfSlot: Indices<B>
  /// The token of each row in expert order: (M).
  public let tokenOfRow: Indices<B>
  /// The slot (n·S + k) of each row in expert order: (M).
  public let slotOfRow: Indices<B>
  /// Where each expert's rows begin, and the number of pairs at the end: (E+1).
  public let offsets: Indices<B>
  /// Routing weight of each row in expert order: (M).
  public let weights: Tensor<B>
  /// Number of rows of each expert, as scalars: (E).
  public let counts: Tensor<B>
  /// Number of tokens whose first choice is each expert, as scalars: (E).
  public let firstCounts: Tensor<B>

  /// Puts a plan together. Only backends call this.
  public init(
    policy: RoutingPolicy, tokens: Int, experts: Int, rows: Int, choice: Indices<B>, rowOfSlot: Indices<B>, tokenOfRow: Indices<B>,
    slotOfRow: Indices<B>, offsets: Indices<B>, weights: Tensor<B>, counts: Tensor<B>, firstCounts: Tensor<B>
  ) {
    self.policy = policy
    self.tokens = tokens
    self.experts = experts
    self.rows = rows
    slots = policy.slots(of: experts)
    self.choice = choice
    self.rowOfSlot = rowOfSlot
    self.tokenOfRow = tokenOfRow
    self.slotOfRow = slotOfRow
    self.offsets = offsets
    self.weights = weights
    self.counts = counts
    self.firstCounts = firstCounts
  }

  /// The same plan with other weights (M).
  public func withWeights(_ weights: Tensor<B>) -> Routing {
    requireShapes("withWeights", ("weights", weights.shape, self.weights.shape))
    return Routing(
      policy: policy, tokens: tokens, experts: experts, rows: rows, choice: choice, rowOfSlot: rowOfSlot, tokenOfRow: tokenOfRow,
      slotOfRow: slotOfRow, offsets: offsets, weights: weights, counts: counts, firstCounts: firstCounts)
  }
}

/// How busy the experts of one router were: all that the balance loss needs of it.
public struct RouterLoad<B: Backend> {
  /// The router's path, by which the balance loss's gradient finds it.
  public let path: String
  /// The adapter that the router belongs to.
  public let adapter: Int
  /// Number of tokens N.
  public let tokens: Int
  /// Rows of each expert: (E).
  public let counts: Tensor<B>
  /// Tokens whose first choice is each expert: (E).
  public let firstCounts: Tensor<B>
  /// p: (N,E).
  public let probabilities: Tensor<B>

  /// The load of a router.
  public init(path: String, adapter: Int, tokens: Int, counts: Tensor<B>, firstCounts: Tensor<B>, probabilities: Tensor<B>) {
    self.path = path
    self.adapter = adapter
    self.tokens = tokens
    self.counts = counts
    self.firstCounts = firstCounts
    self.probabilities = probabilities
  }
}
