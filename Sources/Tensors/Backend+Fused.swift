// Operations that a backend may run in one pass. The lines of the layer are what they mean and what they are tested against; where
// somebody observes a value between them (`Run.observes`), the lines run.

/// base_n + s B_k t_m: what all experts of a token share, and each one's own branch on it.
public struct ExpertSum<B: Backend> {
  /// W x + b of every token: (N,F).
  public let base: Tensor<B>
  /// t_k = A_k u of every row (M,r), all experts' B (F,E·r) and s; nil without a branch.
  public let branch: (t: Tensor<B>, b: Parameter<B>, scale: Double)?

  /// A shared value and the branch on it.
  public init(base: Tensor<B>, branch: (t: Tensor<B>, b: Parameter<B>, scale: Double)?) {
    self.base = base
    self.branch = branch
  }
}

/// What the hidden rows of the experts are formed from.
///
///     a_k, c_k the two sums            h_k = act(a_k) ⊙ c_k         g_k = m_k ⊙ h_k
///     v = Σ_k w_k h_k                  t2_k = A2_k g_k
public struct ExpertHidden<B: Backend> {
  /// act.
  public let activation: Activation
  /// a_k.
  public let a: ExpertSum<B>
  /// c_k.
  public let c: ExpertSum<B>
  /// All experts' A2 (E·r,F); nil without a branch on W2.
  public let a2: Parameter<B>?
  /// The masks m_k; nil for g_k = h_k.
  public let mask: (probability: Double, key: RandomKey, rows: RowIdentity<B>)?

  /// The hidden rows of these sums.
  public init(
    activation: Activation, a: ExpertSum<B>, c: ExpertSum<B>, a2: Parameter<B>?,
    mask: (probability: Double, key: RandomKey, rows: RowIdentity<B>)?
  ) {
    self.activation = activation
    self.a = a
    self.c = c
    self.a2 = a2
    self.mask = mask
  }

  /// What the pass gives.
  public struct Result {
    /// Σ_k w_k h_k: (N,F).
    public let v: Tensor<B>
    /// A2_k g_k: (M,r).
    public let t2: Tensor<B>?

    /// The results of a pass.
    public init(v: Tensor<B>, t2: Tensor<B>?) {
      self.v = v
      self.t2 = t2
    }
  }

  /// What backward gives from q = W2ᵀ dy (N,F) and z = s B2_kᵀ dy (M,r), having added dB1, dB3 and dA2 to their parameters.
  public struct Gradient {
    /// ⟨q + m_k ⊙ A2_kᵀ z_k, h_k⟩: (M).
    public var dw: Tensor<B>
    /// Σ_k da_k (N,F) and s B1_kᵀ da_k (M,r).
    public let a: (base: Tensor<B>, t: Tensor<B>?)
    /// Σ_k dc_k (N,F) and s B3_kᵀ dc_k (M,r).
    public let c: (base: Tensor<B>, t: Tensor<B>?)

    /// The results of a backward pass.
    public init(dw: Tensor<B>, a: (base: Tensor<B>, t: Tensor<B>?), c: (base: Tensor<B>, t: Tensor<B>?)) {
      self.dw = dw
      self.a = a
      self.c = c
    }
  }
}
