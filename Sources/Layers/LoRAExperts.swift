import Tensors

/// The experts of a MixLoRA adapter: one frozen gated feed-forward, shared, and for every expert its own low-rank
/// branches on the three matrices (arXiv:2404.15159, section 3.3 and algorithm 1).
///
/// N tokens, C channels, F hidden width, E experts, r rank, s the scale of the branches (``ExpertLoRA/scale``). W1 = gate_proj (F,C),
/// W3 = up_proj (F,C), W2 = down_proj (C,F) with their biases are the same for all experts; A1_k, A3_k (r,C), B1_k, B3_k (F,r),
/// A2_k (r,F), B2_k (C,r) belong to expert k.
///
/// The router gives each token some experts k, each with a weight w_k. For one token x, all vectors as columns, Σ_k over the token's own
/// experts:
///
///     a_k = W1 x + b1 + s B1_k A1_k u               (F)
///     c_k = W3 x + b3 + s B3_k A3_k u               (F)
///     h_k = act(a_k) ⊙ c_k                          (F)
///     e_k = W2 h_k + b2 + s B2_k A2_k g_k           (C)
///     y   = Σ_k w_k e_k                             (C)
///
/// u is x and g_k is h_k, except while training with dropout: then u = m ⊙ x with one mask m (C) a token, shared by
/// all experts, and g_k = m_k ⊙ h_k with a mask m_k (F) for each (token, expert). A mask's elements are 0 with
/// probability p, else 1/(1−p). W1, W3 and W2 read x and h_k undropped.
///
/// Backward, from dy (C) of each token. A gradient of A_k or B_k sums over the tokens that chose expert k, written Σ
/// without an index; that of an expert that nobody chose is zero:
///
///     dw_k = ⟨dy, e_k⟩        de_k = w_k dy         dt_k = s B2_kᵀ de_k (r)
///     dB2_k = s Σ de_k (A2_k g_k)ᵀ                  dA2_k = Σ dt_k g_kᵀ
///     dh_k = W2ᵀ de_k + m_k ⊙ A2_kᵀ dt_k            and so on for a_k, c_k as the files of the ways write out
///
/// This is computed in one of three ways, equal up to rounding, chosen by name:
///
/// - ``ExpertEvaluation/perExpert`` is the definition: W1, W3 and W2 run for each of a token's experts
///   (`LoRAExperts+PerExpert.swift`).
/// - ``ExpertEvaluation/sharedBase``, the default, runs each of them once a token (`LoRAExperts+SharedBase.swift`): what all experts
///   read alike needs one product, and so does what is summed over them, since Σ_k w_k W2 h_k = W2 Σ_k w_k h_k.
/// - ``ExpertEvaluation/sharedGateUp`` is the paper's section 3.3 between them: W1 x and W3 x once a token, W2 for each expert
///   (`LoRAExperts+SharedGateUp.swift`: the first half of the one, the second of the other).
///
/// In code a token is a row, so A x becomes X Aᵀ. The M (token, expert) pairs are rows ordered by expert (`Routing`): `dispatch` copies
/// a token's row to its pairs, `combine` sums a token's pairs, times w_k when it is given the weights, and a *grouped* product
/// multiplies every pair with its own expert's matrix.
public struct LoRAExperts<B: Backend> {
  /// Module path of the feed-forward: `model.layers.3.mlp`; of several adapters each has its own, by which hooks know it.
  public let path: String
  /// act: the model's own, or what the adapter asks for.
  public let activation: Activation
  /// Every expert's A1, B1; nil, and the term absent, where the adapter does not target gate_proj.
  public let lora1: ExpertLoRA<B>?
  /// Every expert's A3, B3; nil where the adapter does not target up_proj.
  public let lora3: ExpertLoRA<B>?
  /// Every expert's A2, B2; nil where the adapter does not target down_proj.
  public let lora2: ExpertLoRA<B>?
  /// Number of experts E.
  public let experts: Int
  /// The number of the adapter that they belong to.
  public let adapter: Int
  /// What keys the masks m_k, with the expert's number: `model.layers.3.mlp.experts`.
  public let dropoutPath: String
  /// p of the masks m_k: the probability with which A2_k reads 0 instead of an element of h_k while training.
  /// (The mask m on x is ``InputDropout``'s.)
  public let dropout: Double

  /// The experts of one block.
  ///
  /// - Precondition: the branches that there are have E experts each.
  public init(
    activation: Activation = .silu, path: String, adapter: Int = 0, lora1: ExpertLoRA<B>?, lora3: ExpertLoRA<B>?, lora2: ExpertLoRA<B>?,
    experts: Int,
    dropout: Double, dropoutPath: String
  ) {
    self.activation = activation
    self.path = path
    self.adapter = adapter
    (self.lora1, self.lora3, self.lora2) = (lora1, lora3, lora2)
    self.experts = experts
    self.dropout = dropout
    self.dropoutPath = dropoutPath
  }

  /// g_k = m_k ⊙ h_k for the pairs, h itself outside training; and m_k ⊙ dg_k, since a mask is its own transpose: (M,F).
  func masked(_ h: Tensor<B>, _ routing: Routing<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    guard let mask = mask(batch, run) else { return h }
    return run.backend.dropout(h, mask.probability, mask.key, mask.rows, routing)
  }

  /// The masks m_k; nil where there are none.
  func mask(_ batch: PackedBatch<B>, _ run: Run<B>) -> (probability: Double, key: RandomKey, rows: RowIdentity<B>)? {
    guard let training = run.training, dropout > 0 else { return nil }
    let key = training.key(ofAdapter: adapter).derived(dropoutPath, "dropout")
    return (dropout, key, batch.identity(of: adapter, step: training.step))
  }
}

/// The low-rank branches of all experts on one matrix W (O,I): A_k (r,I) and B_k (O,r) for each expert k in 0..<E.
///
/// All A_k lie below each other in A (E·r,I) and all B_k side by side in B (O,E·r), so that a backend may multiply with those of all
/// experts at once: U Aᵀ (N,E·r) for A1 and A3, of which a pair then takes its own expert's r columns, and s T Bᵀ for the sum
/// Σ_k s B2_k (w_k A2_k g_k), where T (N,E·r) holds w_k A2_k g_k in the columns of the token's experts and zeros elsewhere. In files each
/// A_k and B_k is a tensor of its own.
public struct ExpertLoRA<B: Backend> {
  /// All A_k, (E·r,I).
  public let a: Parameter<B>
  /// All B_k, (O,E·r).
  public let b: Parameter<B>
  /// Number of experts E.
  public let experts: Int
  /// s = alpha/r, or alpha/√r with rsLoRA; not contained in `a` or `b`.
  public let scale: Double

  /// The branches of all experts.
  public init(a: Parameter<B>, b: Parameter<B>, experts: Int, scale: Double) {
    self.a = a
    self.b = b
    self.experts = experts
    self.scale = scale
  }

  /// Each row's own expert's A_k (r,I), for grouped products.
  var aOfRow: ExpertStack<B> { ExpertStack(a.value, experts: experts, along: .rows) }
  /// Each row's own expert's B_k (O,r), for grouped products.
  var bOfRow: ExpertStack<B> { ExpertStack(b.value, experts: experts, along: .columns) }
}

/// The ways to compute a block of experts; all give the same numbers up to rounding.
public enum ExpertEvaluation: String, Sendable, CaseIterable {
  /// Three products with a frozen matrix per token.
  case sharedBase
  /// 2 + K products with a frozen matrix per token: the paper's optimization.
  case sharedGateUp
  /// 3·K products with a frozen matrix per token: the definition.
  case perExpert
}
