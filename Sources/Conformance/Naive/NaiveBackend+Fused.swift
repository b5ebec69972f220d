import Tensors

/// The hidden rows of the experts in one pass.
extension NaiveBackend {
  public func expertHidden(_ hidden: ExpertHidden<NaiveBackend>, _ routing: Routing<NaiveBackend>) -> ExpertHidden<NaiveBackend>.Result? {
    operation {
      let plan = plan(routing)
      let found = Naive.expertHidden(list(hidden, plan), plan)
      return ExpertHidden.Result(v: tensor(found.v), t2: hidden.a2.map { _ in tensor(found.t2) })
    }
  }

  public func expertHiddenBackward(
    _ q: Tensor<NaiveBackend>, z: Tensor<NaiveBackend>?, _ hidden: ExpertHidden<NaiveBackend>, _ routing: Routing<NaiveBackend>
  ) -> ExpertHidden<NaiveBackend>.Gradient? {
    operation {
      let plan = plan(routing)
      var plain = list(hidden, plan)
      if z == nil { plain.a2 = Matrix(0, plain.mask.columns) }
      let z = plain.a2.rows == 0 ? Matrix(plan.rows, 0) : z.map { matrix($0) } ?? Matrix(plan.rows, 0)
      let found = Naive.expertHiddenBackward(matrix(q), z: z, plain, plan)
      func add(_ gradient: Matrix, to parameter: Parameter<NaiveBackend>?) {
        guard let parameter, gradient.values.count > 0 else { return }
        write(Naive.add(1, gradient, to: matrix(parameter.gradient)).values, &parameter.gradient)
      }
      add(found.factors.b1, to: hidden.a.branch?.b)
      add(found.factors.b3, to: hidden.c.branch?.b)
      add(found.factors.a2, to: hidden.a2)
      return ExpertHidden.Gradient(
        dw: tensor(found.dw), a: (tensor(found.bases.a), hidden.a.branch.map { _ in tensor(found.ts.a) }),
        c: (tensor(found.bases.c), hidden.c.branch.map { _ in tensor(found.ts.c) }))
    }
  }

  private func list(_ hidden: ExpertHidden<NaiveBackend>, _ plan: Naive.Plan) -> Naive.ExpertHidden {
    func list(_ sum: ExpertSum<NaiveBackend>) -> Naive.ExpertSum {
      let base = matrix(sum.base)
      guard let (t, b, scale) = sum.branch else {
        return Naive.ExpertSum(base: base, t: Matrix(plan.rows, 0), b: Matrix(base.columns, 0), scale: 0)
      }
      return Naive.ExpertSum(base: base, t: matrix(t), b: matrix(b.value), scale: scale)
    }
    let width = hidden.a.base.columnCount
    var mask = Matrix(plan.rows, width, repeating: 1)
    if let (probability, key, rows) = hidden.mask {
      mask = Naive.dropoutMask(
        width, probability, key, samples: self.list(rows.samples), positions: self.list(rows.positions), step: rows.step, plan)
    }
    return Naive.ExpertHidden(
      activation: hidden.activation, a: list(hidden.a), c: list(hidden.c), a2: hidden.a2.map { matrix($0.value) } ?? Matrix(0, width),
      mask: mask)
  }
}
