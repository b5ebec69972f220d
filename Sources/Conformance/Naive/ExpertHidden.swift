import Tensors

extension Naive {
  /// base_n + s B_k t_k; what `ExpertSum` holds on the device.
  public struct ExpertSum: Equatable, Sendable {
    /// (N,F).
    public var base: Matrix
    /// t (M,r); M×0 without a branch.
    public var t: Matrix
    /// All experts' B, side by side: (F,E·r).
    public var b: Matrix
    /// s.
    public var scale: Double

    /// A shared value and the branch on it.
    public init(base: Matrix, t: Matrix, b: Matrix, scale: Double) {
      self.base = base
      self.t = t
      self.b = b
      self.scale = scale
    }
  }

  /// What the hidden rows of the experts are formed from; what `ExpertHidden` holds on the device.
  public struct ExpertHidden: Equatable, Sendable {
    /// act.
    public var activation: Activation
    /// a_k.
    public var a: ExpertSum
    /// c_k.
    public var c: ExpertSum
    /// All experts' A2, one below the other: (E·r,F); of no rows without a branch.
    public var a2: Matrix
    /// m: (M,F).
    public var mask: Matrix

    /// The hidden rows of these sums.
    public init(activation: Activation, a: ExpertSum, c: ExpertSum, a2: Matrix, mask: Matrix) {
      self.activation = activation
      self.a = a
      self.c = c
      self.a2 = a2
      self.mask = mask
    }
  }

  /// The gradients of `expertHidden`, those of B1, B3 and A2 included.
  public struct ExpertHiddenGradient: Equatable, Sendable {
    /// ⟨q_k, h_k⟩: (M).
    public var dw: [Double]
    /// Σ_k da_k and Σ_k dc_k: (N,F).
    public var bases: (a: Matrix, c: Matrix)
    /// s B_kᵀ da_k and s B_kᵀ dc_k: (M,r).
    public var ts: (a: Matrix, c: Matrix)
    /// dB1, dB3 (F,E·r) and dA2 (E·r,F).
    public var factors: (b1: Matrix, b3: Matrix, a2: Matrix)

    /// Element by element.
    public static func == (x: Self, y: Self) -> Bool {
      x.dw == y.dw && x.bases == y.bases && x.ts == y.ts && x.factors == y.factors
    }
  }

  /// base_n + s B_k t_k of every row: (M,F).
  public static func rows(of sum: ExpertSum, _ plan: Plan) -> Matrix {
    groupedGemm(
      sum.scale, sum.t, { block($0, of: plan.experts, in: sum.b, sideBySide: true).transposed }, 1, dispatch(sum.base, plan), plan)
  }

  /// v = Σ_k w_k h_k (N,F) and t2_k = A2_k (m_k ⊙ h_k) (M,r) of h_k = act(a_k) ⊙ c_k.
  public static func expertHidden(_ hidden: ExpertHidden, _ plan: Plan) -> (v: Matrix, t2: Matrix) {
    let h = gated(hidden.activation, rows(of: hidden.a, plan), rows(of: hidden.c, plan))
    let rank = hidden.a2.rows / plan.experts
    let t2 = groupedGemm(
      1, dropout(h, mask: hidden.mask), { block($0, of: plan.experts, in: hidden.a2, sideBySide: false).transposed }, 0,
      Matrix(plan.rows, rank), plan)
    return (combine(h, weights: plan.weights, plan), t2)
  }

  /// Backward from q (N,F) and z (M,r):
  ///
  ///     q_k = q + m_k ⊙ A2_kᵀ z_k      dh_k = w_k q_k      dA2_k = Σ w_k z_k (m_k ⊙ h_k)ᵀ      dB1_k = s Σ da_k t1_kᵀ
  public static func expertHiddenBackward(_ q: Matrix, z: Matrix, _ hidden: ExpertHidden, _ plan: Plan) -> ExpertHiddenGradient {
    let (a, c) = (rows(of: hidden.a, plan), rows(of: hidden.c, plan))
    let h = gated(hidden.activation, a, c)
    let weights = plan.weights + [Double](repeating: 0, count: plan.spareRows)
    let back = groupedGemm(
      1, z, { block($0, of: plan.experts, in: hidden.a2, sideBySide: false) }, 0, Matrix(plan.rows, h.columns), plan)
    let qk = add(1, dropout(back, mask: hidden.mask), to: dispatch(q, plan))
    let (da, dc) = gatedBackward(hidden.activation, scaleRows(weights, qk), a, c)
    func t(_ sum: ExpertSum, _ d: Matrix) -> Matrix {
      groupedGemm(
        sum.scale, d, { block($0, of: plan.experts, in: sum.b, sideBySide: true) }, 0, Matrix(plan.rows, sum.t.columns), plan)
    }
    func b(_ sum: ExpertSum, _ d: Matrix) -> Matrix {
      groupedOuter(sum.scale, d, sum.t, to: Matrix(sum.b.rows, sum.b.columns), sideBySide: true, plan)
    }
    let a2 = groupedOuter(
      1, scaleRows(weights, z), dropout(h, mask: hidden.mask), to: Matrix(hidden.a2.rows, hidden.a2.columns), sideBySide: false, plan)
    return ExpertHiddenGradient(
      dw: rowDots(qk, h), bases: (combine(da, weights: nil, plan), combine(dc, weights: nil, plan)), ts: (t(hidden.a, da), t(hidden.c, dc)),
      factors: (b(hidden.a, da), b(hidden.c, dc), a2))
  }
}
