import Tensors

/// The hidden rows of the experts in one pass, line by line as ``ExpertHidden`` writes them.
extension NaiveBackend {
  public func expertHidden(_ hidden: ExpertHidden<NaiveBackend>, _ routing: Routing<NaiveBackend>) -> ExpertHidden<NaiveBackend>.Result? {
    operation {
      let plan = plan(routing)
      let (_, _, h) = rows(of: hidden, plan)
      let g = Naive.dropout(h, mask: mask(of: hidden, h, plan))
      let t2 = hidden.a2.map { a2 in
        let rank = a2.shape.rows / plan.experts
        return Naive.groupedGemm(1, g, { a(a2, of: $0, plan).transposed }, 0, Matrix(plan.rows, rank), plan)
      }
      return ExpertHidden.Result(v: tensor(Naive.combine(h, weights: plan.weights, plan)), t2: t2.map { tensor($0) })
    }
  }

  public func expertHiddenBackward(
    _ q: Tensor<NaiveBackend>, z: Tensor<NaiveBackend>?, _ hidden: ExpertHidden<NaiveBackend>, _ routing: Routing<NaiveBackend>
  ) -> ExpertHidden<NaiveBackend>.Gradient? {
    operation {
      let plan = plan(routing)
      let (a, c, h) = rows(of: hidden, plan)
      let mask = mask(of: hidden, h, plan)
      var qk = Naive.dispatch(matrix(q), plan)  // q_k = q + m_k ⊙ A2_kᵀ z_k
      if let a2 = hidden.a2, let z {
        let z = matrix(z)
        let back = Naive.groupedGemm(1, z, { self.a(a2, of: $0, plan) }, 0, Matrix(plan.rows, h.columns), plan)
        qk = Naive.add(1, Naive.dropout(back, mask: mask), to: qk)
        let weighted = Naive.scaleRows(padded(plan.weights, to: plan.rows), z)
        let gradient = Naive.groupedOuter(
          1, weighted, Naive.dropout(h, mask: mask), to: matrix(a2.gradient), sideBySide: false, plan)  // dA2_k = Σ w_k z_k g_kᵀ
        write(gradient.values, &a2.gradient)
      }
      let dw = Naive.rowDots(qk, h)
      let dh = Naive.scaleRows(padded(plan.weights, to: plan.rows), qk)
      let (da, dc) = Naive.gatedBackward(hidden.activation, dh, a, c)
      return ExpertHidden.Gradient(dw: tensor(dw), a: backward(hidden.a, da, plan), c: backward(hidden.c, dc, plan))
    }
  }

  /// a_k, c_k and h_k: (M,F) each.
  private func rows(of hidden: ExpertHidden<NaiveBackend>, _ plan: Naive.Plan) -> (a: Matrix, c: Matrix, h: Matrix) {
    let (a, c) = (rows(of: hidden.a, plan), rows(of: hidden.c, plan))
    return (a, c, Naive.gated(hidden.activation, a, c))
  }

  /// base_n + s B_k t_k: (M,F).
  private func rows(of sum: ExpertSum<NaiveBackend>, _ plan: Naive.Plan) -> Matrix {
    let base = Naive.dispatch(matrix(sum.base), plan)
    guard let (t, b, scale) = sum.branch else { return base }
    return Naive.groupedGemm(scale, matrix(t), { self.b(b, of: $0, plan).transposed }, 1, base, plan)
  }

  /// Σ_k da_k (N,F) and s B_kᵀ da_k (M,r); adds s Σ da_k t_kᵀ to dB.
  private func backward(_ sum: ExpertSum<NaiveBackend>, _ da: Matrix, _ plan: Naive.Plan) -> (base: T, t: T?) {
    let base = tensor(Naive.combine(da, weights: nil, plan))
    guard let (t, b, scale) = sum.branch else { return (base, nil) }
    let gradient = Naive.groupedOuter(scale, da, matrix(t), to: matrix(b.gradient), sideBySide: true, plan)
    write(gradient.values, &b.gradient)
    let dt = Naive.groupedGemm(scale, da, { self.b(b, of: $0, plan) }, 0, Matrix(plan.rows, t.columnCount), plan)
    return (base, tensor(dt))
  }

  private func mask(of hidden: ExpertHidden<NaiveBackend>, _ h: Matrix, _ plan: Naive.Plan) -> Matrix {
    guard let (probability, key, rows) = hidden.mask else { return Matrix(h.rows, h.columns, repeating: 1) }
    return Naive.dropoutMask(
      h.columns, probability, key, samples: list(rows.samples), positions: list(rows.positions), step: rows.step, plan)
  }

  private func a(_ a: Parameter<NaiveBackend>, of expert: Int, _ plan: Naive.Plan) -> Matrix {
    Naive.block(expert, of: plan.experts, in: matrix(a.value), sideBySide: false)
  }

  private func b(_ b: Parameter<NaiveBackend>, of expert: Int, _ plan: Naive.Plan) -> Matrix {
    Naive.block(expert, of: plan.experts, in: matrix(b.value), sideBySide: true)
  }

  private func padded(_ weights: [Double], to rows: Int) -> [Double] { weights + [Double](repeating: 0, count: rows - weights.count) }
}
