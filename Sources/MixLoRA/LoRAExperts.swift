import Tensors

/// The experts of a MixLoRA block: one frozen gated feed-forward, shared, and for every expert its own low-rank
/// branches on the three matrices (arXiv:2404.15159, section 3.3 and algorithm 1).
///
/// N tokens, C channels, F hidden width, E experts, K experts per token, r rank, s scale (alpha/r). Each token has
/// K weights w_k from the router. For one token x and one of its experts k, all vectors as columns:
///
///     a_k = W1 x + b1 + s B1_k A1_k x          (F)      W1 = gate_proj (F,C)      A1_k, A3_k (r,C)    B1_k, B3_k (F,r)
///     c_k = W3 x + b3 + s B3_k A3_k x          (F)      W3 = up_proj   (F,C)      A2_k (r,F)          B2_k (C,r)
///     h_k = silu(a_k) ⊙ c_k                    (F)      W2 = down_proj (C,F)
///     e_k = W2 h_k + b2 + s B2_k A2_k h_k      (C)
///     y   = Σ_k w_k e_k                        (C)
///
/// This is computed in one of three ways, equal up to rounding, chosen by name:
///
/// - ``ExpertEvaluation/perExpert`` is the definition: each expert runs W1, W3 and W2 (`LoRAExperts+PerExpert.swift`).
/// - ``ExpertEvaluation/sharedGateUp`` is the paper's section 3.3: W1 and W3 once a token (`LoRAExperts+SharedGateUp.swift`).
/// - ``ExpertEvaluation/sharedBase`` runs each of them once a token (`LoRAExperts+SharedBase.swift`). Experts read the
///   same x, so W1 x and W3 x are shared; and because w_k is a number, Σ_k w_k W2 h_k = W2 Σ_k w_k h_k.
///
/// While training with dropout the branches A1, A3 read u = m ⊙ x and A2_k reads m_k ⊙ h_k (``InputDropout``); W1,
/// W3 and W2 read x and h_k as they are.
///
/// On the device the K·N (token, expert) pairs are M rows ordered by expert (``Routing``): `dispatch` copies a
/// token's row to its K places, `combine` sums them back, and a *grouped* product gives every row its own
/// expert's matrix.
public struct LoRAExperts<B: Backend> {
  /// Module path of the block: `model.layers.3.mlp`.
  public let path: String
  /// W1 (F,C), b1 (F).
  public let w1: Linear<B>
  /// W3 (F,C), b3 (F).
  public let w3: Linear<B>
  /// W2 (C,F), b2 (C).
  public let w2: Linear<B>
  /// Every expert's A1, B1; nil where the adapter does not target gate_proj.
  public let lora1: ExpertLoRA<B>?
  /// Every expert's A3, B3; nil where the adapter does not target up_proj.
  public let lora3: ExpertLoRA<B>?
  /// Every expert's A2, B2; nil where the adapter does not target down_proj.
  public let lora2: ExpertLoRA<B>?
  /// Number of experts E.
  public let experts: Int
  /// Probability with which an element of h_k is hidden from A2_k while training.
  public let dropout: Double
  /// How the sum over the experts is computed.
  public let evaluation: ExpertEvaluation

  /// What backward needs, by evaluation.
  public enum Cache {
    case sharedBase(SharedBaseCache)
    case sharedGateUp(SharedGateUpCache)
    case perExpert(PerExpertCache)
  }

  /// The experts of one block.
  public init(
    path: String, w1: Linear<B>, w3: Linear<B>, w2: Linear<B>, lora1: ExpertLoRA<B>?, lora3: ExpertLoRA<B>?, lora2: ExpertLoRA<B>?,
    experts: Int, dropout: Double, evaluation: ExpertEvaluation
  ) {
    self.path = path
    (self.w1, self.w3, self.w2) = (w1, w3, w2)
    (self.lora1, self.lora3, self.lora2) = (lora1, lora3, lora2)
    self.experts = experts
    self.dropout = dropout
    self.evaluation = evaluation
  }

  /// y = Σ_k w_k e_k: (N,C) → (N,C).
  public func forward(_ input: LoRAInput<B>, _ routing: Routing<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    switch evaluation {
    case .sharedBase:
      let (y, cache) = forwardSharedBase(input, routing, run)
      return (y, .sharedBase(cache))
    case .sharedGateUp:
      let (y, cache) = forwardSharedGateUp(input, routing, run)
      return (y, .sharedGateUp(cache))
    case .perExpert:
      let (y, cache) = forwardPerExpert(input, routing, run)
      return (y, .perExpert(cache))
    }
  }

  /// Adds to the gradients of x and u, forms those of everything trained, and returns dw (M), the gradient of each
  /// row's routing weight, for the router.
  public func backward(
    _ dy: Tensor<B>, _ input: LoRAInput<B>, _ routing: Routing<B>, _ cache: consuming Cache,
    into gradient: inout LoRAInput<B>.Gradient, _ run: Run<B>
  ) -> Tensor<B> {
    switch cache {
    case .sharedBase(let cache): backwardSharedBase(dy, input, routing, cache, into: &gradient, run)
    case .sharedGateUp(let cache): backwardSharedGateUp(dy, input, routing, cache, into: &gradient, run)
    case .perExpert(let cache): backwardPerExpert(dy, input, routing, cache, into: &gradient, run)
    }
  }

  /// m_k ⊙ x for rows ordered by expert, a mask for each (token, expert); x itself outside training.
  func masked(_ x: Tensor<B>, _ routing: Routing<B>, _ run: Run<B>) -> Tensor<B> {  // (M,F)
    guard run.isTraining, dropout > 0 else { return x }
    guard let rows = run.rows else { trap("\(path): dropout needs to know the rows of the batch") }
    let keys = (0..<experts).map { run.key.derived("\(path).experts.\($0).hidden", "dropout") }
    return run.backend.dropout(x, dropout, keys, rows, routing)
  }
}

/// The low-rank branches of all experts on one matrix: A_k (r,I) and B_k (O,r) for k in 0..<E.
///
/// All A_k lie below each other in A (E·r,I) and all B_k side by side in B (O,E·r). So what every expert's A makes
/// of a token is one product u Aᵀ, and Σ_k B_k t_k is one product T Bᵀ where T (N,E·r) holds t_k in the columns of
/// the experts that the token chose and zeros elsewhere. In files each A_k and B_k is a tensor of its own.
public struct ExpertLoRA<B: Backend> {
  /// All A_k, (E·r,I).
  public let a: Parameter<B>
  /// All B_k, (O,E·r).
  public let b: Parameter<B>
  /// s = alpha/r, or alpha/√r with rsLoRA.
  public let scale: Double

  /// The branches of all experts.
  public init(a: Parameter<B>, b: Parameter<B>, scale: Double) {
    self.a = a
    self.b = b
    self.scale = scale
  }

  /// Each row's own expert's A_k (r,I), for grouped products.
  var aOfRow: ExpertStack<B> { ExpertStack(a.value, along: .rows) }
  /// Each row's own expert's B_k (O,r), for grouped products.
  var bOfRow: ExpertStack<B> { ExpertStack(b.value, along: .columns) }
}

/// The ways to compute a block of experts; all give the same numbers up to rounding.
public enum ExpertEvaluation: String, Sendable, CaseIterable {
  /// Three products with a frozen matrix per token.
  case sharedBase
  /// 2 + K products with a frozen matrix per token: the paper's optimisation.
  case sharedGateUp
  /// 3·K products with a frozen matrix per token: the definition.
  case perExpert
}
