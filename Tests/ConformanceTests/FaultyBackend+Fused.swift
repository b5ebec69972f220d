import Tensors

@testable import Conformance

extension FaultyBackend {
  // MARK: The hidden rows of the experts in one pass

  func expertHidden(_ hidden: ExpertHidden<FaultyBackend>, _ routing: R) -> ExpertHidden<FaultyBackend>.Result? {
    guard let found = base.expertHidden(to(hidden).hidden, to(routing)) else { return nil }
    return ExpertHidden.Result(v: from(found.v, "expertHidden"), t2: found.t2.map { from($0, "") })
  }

  func expertHiddenBackward(_ q: T, z: T?, _ hidden: ExpertHidden<FaultyBackend>, _ routing: R)
    -> ExpertHidden<FaultyBackend>.Gradient?
  {
    let (inner, pairs) = to(hidden)
    guard let found = base.expertHiddenBackward(to(q), z: z.map { to($0) }, inner, to(routing)) else { return nil }
    for (own, copy) in pairs {
      replacing(&own.gradient, "expertHiddenBackward") { Naive.add(1, base.matrix(copy.gradient), to: $0) }
    }
    return ExpertHidden.Gradient(
      dw: from(found.dw, "expertHiddenBackward"), a: (from(found.a.base, ""), found.a.t.map { from($0, "") }),
      c: (from(found.c.base, ""), found.c.t.map { from($0, "") }))
  }

  /// The same for the definitions, with parameters of their own whose gradients begin at zero, beside those that they stand for.
  private func to(_ hidden: ExpertHidden<FaultyBackend>) -> (
    hidden: ExpertHidden<Base>, parameters: [(Parameter<FaultyBackend>, Parameter<Base>)]
  ) {
    var parameters: [(Parameter<FaultyBackend>, Parameter<Base>)] = []
    func to(_ parameter: Parameter<FaultyBackend>) -> Parameter<Base> {
      let copy = Parameter(parameter.name, base.copy(self.to(parameter.value)), on: base)
      parameters.append((parameter, copy))
      return copy
    }
    func to(_ sum: ExpertSum<FaultyBackend>) -> ExpertSum<Base> {
      ExpertSum(base: self.to(sum.base), branch: sum.branch.map { (self.to($0.t), to($0.b), $0.scale) })
    }
    let inner = ExpertHidden<Base>(
      activation: hidden.activation, a: to(hidden.a), c: to(hidden.c), a2: hidden.a2.map { to($0) },
      mask: hidden.mask.map { ($0.probability, $0.key, self.to($0.rows)) })
    return (inner, parameters)
  }
}
