import Tensors

extension CaseList {
  /// The hidden rows of the experts in one pass, forward and backward; not run where the backend has none.
  mutating func addFused() {
    let plans = PlanSizes.all.enumerated().map { index, sizes in
      let (width, rank) = [
        (1, 1), (3, 2), (9, 3), (33, 5), (17, 8), (8, 16), (70, 7), (65, 17), (130, 4), (7, 32), (6, 6), (11, 9),
      ][index]
      return (sizes, width, rank)
    }
    let wide = (PlanSizes(tokens: 35, experts: 3, k: 2, choices: .allOn(1)), 67, 70)
    // More pairs and columns than a backend takes at a time.
    let long = (PlanSizes(tokens: 400, experts: 5, k: 2, choices: .random), 1100, 2)
    let all = (plans + [wide]).flatMap { plan in HiddenVariant.allCases.map { (plan, $0) } } + [(long, .masked)]
    for ((sizes, width, rank), variant) in all {
      for operation in ["expertHidden", "expertHiddenBackward"] {
        add(operation, "\(sizes) F \(width) r \(rank) \(variant.rawValue)", isEmpty: sizes.tokens == 0) { trial in
          let plan = sizes.plan(&trial.source)
          let hidden = trial.hidden(plan, width, rank, variant)
          if operation == "expertHidden" {
            try checkForward(&trial, hidden, plan, rank)
          } else {
            try checkBackward(&trial, hidden, plan, rank)
          }
        }
      }
    }
  }
}

/// Which branches there are, and whether there is a mask.
private enum HiddenVariant: String, CaseIterable {
  case all = "all branches"
  case masked = "dropout"
  case none = "no branch"
  case gate = "gate and down alone, dropout"
  case up = "up alone, gelu"
  case gelu = "all branches, gelu"

  var activation: Activation { self == .up || self == .gelu ? .geluTanh : .silu }
  var probability: Double? { self == .masked || self == .gate ? 0.3 : nil }
  var hasGate: Bool { self != .none && self != .up }
  var hasUp: Bool { self != .none && self != .gate }
  var hasDown: Bool { self != .none && self != .up }
}

/// The hidden rows as plain lists and what the device is told.
private struct Hidden<B: Backend> {
  let plain: Naive.ExpertHidden
  let onDevice: ExpertHidden<B>
  let routing: Routing<B>
}

extension Trial {
  /// Ranks r, r + 1 and r − 1 (at least 1) of the three branches; B and A2 are parameters with a gradient already.
  fileprivate mutating func hidden(_ plan: Naive.Plan, _ width: Int, _ rank: Int, _ variant: HiddenVariant) -> Hidden<B> {
    let key = RandomKey(seed: 42).derived("model.layers.3.mlp.experts", "dropout")
    func parameter(_ value: Matrix) -> Parameter<B> { Parameter("w", device(value), on: backend) }
    func sum(_ rank: Int) -> (Naive.ExpertSum, ExpertSum<B>) {
      let base = source.matrix(plan.tokens, width, 2)
      let (t, b) = (source.matrix(plan.pairs, rank), source.matrix(width, plan.experts * rank))
      let plain = Naive.ExpertSum(
        base: base, t: Matrix(plan.rows, rank, t.values + [Double](repeating: 0, count: plan.spareRows * rank)), b: b, scale: 0.75)
      let branch = rank > 0 ? (device(inRows(t, plan)), parameter(b), 0.75) : nil
      return (plain, ExpertSum(base: device(base), branch: branch))
    }
    let (a, c) = (sum(variant.hasGate ? rank : 0), sum(variant.hasUp ? max(1, rank - 1) : 0))
    let a2 = source.matrix(variant.hasDown ? plan.experts * (rank + 1) : 0, width)
    var mask = Matrix(plan.rows, width, repeating: 1)
    var drawn: (Double, RandomKey, RowIdentity<B>)?
    if let probability = variant.probability {
      let samples = (0..<plan.tokens).map { _ in source.integer(below: 70_000) }
      let positions = (0..<plan.tokens).map { _ in source.integer(below: 70_000) }
      mask = Naive.dropoutMask(width, probability, key, samples: samples, positions: positions, step: 3, plan)
      drawn = (probability, key, RowIdentity(samples: device(samples), positions: device(positions), step: 3))
    }
    return Hidden(
      plain: Naive.ExpertHidden(activation: variant.activation, a: a.0, c: c.0, a2: a2, mask: mask),
      onDevice: ExpertHidden(
        activation: variant.activation, a: a.1, c: c.1, a2: variant.hasDown ? parameter(a2) : nil, mask: drawn),
      routing: routing(plan))
  }
}

/// Sizes of what errors are relative to: |a_k| ≤ A, |c_k| ≤ C, |h_k| ≤ A C, |act′(a_k)| and its terms ≤ S.
private struct HiddenSizes {
  let a: Matrix, c: Matrix, h: Matrix
  /// Roundings of a_k relative to A, of c_k to C: a product of r terms, its scale, and the base.
  let sum: Int
  /// Those of h_k relative to A C: act has slopes of at most 1.13.
  var hidden: Int { 3 * sum + Roundings.gated }

  init(_ hidden: Naive.ExpertHidden, _ plan: Naive.Plan, rank: Int) {
    func size(_ sum: Naive.ExpertSum) -> Matrix {
      Naive.rows(of: Naive.ExpertSum(base: sum.base.magnitude, t: sum.t.magnitude, b: sum.b.magnitude, scale: sum.scale), plan)
    }
    (a, c) = (size(hidden.a), size(hidden.c))
    h = Matrix(a.rows, a.columns) { [a, c] i, j in a[i, j] * c[i, j] }
    sum = rank + 5
  }
}

private func checkForward<B: Backend>(_ trial: inout Trial<B>, _ hidden: Hidden<B>, _ plan: Naive.Plan, _ rank: Int) throws {
  guard let found = trial.backend.expertHidden(hidden.onDevice, hidden.routing) else {
    return trial.cannotRun("the backend has no such pass")
  }
  let expected = Naive.expertHidden(hidden.plain, plan)
  let sizes = HiddenSizes(hidden.plain, plan, rank: rank)
  let v = Naive.combine(sizes.h, weights: plan.weights.map(abs), plan)
  try trial.expect("v", found.v, expected.v, sizes.hidden + plan.slots + 1, of: v)
  trial.expect((found.t2 == nil) == (hidden.onDevice.a2 == nil), "t2 is there without A2, or the other way round")
  guard let t2 = found.t2 else { return }
  let size = Naive.groupedGemm(
    1, Naive.dropout(sizes.h, mask: hidden.plain.mask),
    { Naive.block($0, of: plan.experts, in: hidden.plain.a2.magnitude, sideBySide: false).transposed }, 0,
    Matrix(plan.rows, expected.t2.columns), plan)
  try trial.expect(
    "t2", firstRowsOf: t2, expected.t2.rows(0..<plan.pairs), sizes.hidden + v.columns + Roundings.factor,
    of: size.rows(0..<plan.pairs))
}

private func checkBackward<B: Backend>(_ trial: inout Trial<B>, _ hidden: Hidden<B>, _ plan: Naive.Plan, _ rank: Int) throws {
  let (plain, onDevice) = (hidden.plain, hidden.onDevice)
  let q = trial.source.matrix(plan.tokens, plain.mask.columns)
  let z = trial.source.matrix(plan.pairs, plain.a2.rows / plan.experts)
  let parameters = (b1: onDevice.a.branch?.b, b3: onDevice.c.branch?.b, a2: onDevice.a2)
  func begun(_ parameter: Parameter<B>?) -> Matrix {
    guard let parameter else { return Matrix(0, 0) }
    let gradient = trial.source.matrix(parameter.shape.rows, parameter.shape.columns)
    parameter.gradient = trial.device(gradient)
    return gradient
  }
  let before = (b1: begun(parameters.b1), b3: begun(parameters.b3), a2: begun(parameters.a2))
  guard
    let found = trial.backend.expertHiddenBackward(
      trial.device(q), z: onDevice.a2.map { _ in trial.device(trial.inRows(z, plan)) }, onDevice, hidden.routing)
  else {
    trial.expect(trial.backend.expertHidden(onDevice, hidden.routing) == nil, "there is a pass forward and none backward")
    return trial.cannotRun("the backend has no such pass")
  }
  let padded = Matrix(plan.rows, z.columns, z.values + [Double](repeating: 0, count: plan.spareRows * z.columns))
  let expected = Naive.expertHiddenBackward(q, z: padded, plain, plan)
  let sizes = HiddenSizes(plain, plan, rank: rank)
  // Q ≥ |q_k|, W ≥ |w_k q_k|, and S that bounds act′, its slope and the terms it is made of
  let weights = plan.weights.map(abs) + [Double](repeating: 0, count: plan.spareRows)
  let back = Naive.groupedGemm(
    1, padded.magnitude, { Naive.block($0, of: plan.experts, in: plain.a2.magnitude, sideBySide: false) }, 0,
    Matrix(plan.rows, q.columns), plan)
  let qk = Naive.add(1, Naive.dropout(back, mask: plain.mask), to: Naive.dispatch(q.magnitude, plan))
  let w = Naive.scaleRows(weights, qk)
  let da = Matrix(w.rows, w.columns) { m, j in
    w[m, j] * sizes.c[m, j] * (1 + sizes.a[m, j] * (1 + 0.134145 * sizes.a[m, j] * sizes.a[m, j]))
  }
  let dc = Matrix(w.rows, w.columns) { m, j in w[m, j] * sizes.a[m, j] }
  let count = 4 * (sizes.sum + 3) + Roundings.gatedSlope  // q_k, c_k, act′ of a_k, and the product
  let dw = Naive.rowDots(qk, sizes.h)
  try trial.expect(
    "dw", found.dw.columns(0..<plan.pairs), Array(expected.dw[..<plan.pairs]), sizes.hidden + sizes.sum + 3 + q.columns,
    of: Array(dw[..<plan.pairs]))
  func check(_ name: String, _ found: (base: Tensor<B>, t: Tensor<B>?), _ base: Matrix, _ t: Matrix, _ sum: Naive.ExpertSum, _ d: Matrix)
    throws
  {
    try trial.expect("\(name).base", found.base, base, count + plan.slots, of: Naive.combine(d, weights: nil, plan))
    trial.expect((found.t == nil) == (t.columns == 0), "\(name).t is there without a branch, or the other way round")
    guard let foundT = found.t else { return }
    let size = Naive.groupedGemm(
      sum.scale, d, { Naive.block($0, of: plan.experts, in: sum.b.magnitude, sideBySide: true) }, 0, Matrix(plan.rows, t.columns), plan)
    try trial.expect(
      "\(name).t", firstRowsOf: foundT, t.rows(0..<plan.pairs), count + q.columns + Roundings.factor, of: size.rows(0..<plan.pairs))
  }
  try check("a", found.a, expected.bases.a, expected.ts.a, plain.a, da)
  try check("c", found.c, expected.bases.c, expected.ts.c, plain.c, dc)
  func checkFactor(_ name: String, _ parameter: Parameter<B>?, _ before: Matrix, _ gradient: Matrix, _ size: Matrix) throws {
    guard let parameter else { return }
    let sum = Naive.add(1, gradient, to: before)
    let magnitude = Matrix(size.rows, size.columns) { i, j in size[i, j] == 0 ? 0 : size[i, j] + abs(before[i, j]) }
    try trial.expect(name, parameter.gradient, sum, count + plan.pairs + Roundings.factor, of: magnitude)
  }
  func outer(_ sum: Naive.ExpertSum, _ d: Matrix) -> Matrix {
    Naive.groupedOuter(sum.scale, d, sum.t.magnitude, to: Matrix(sum.b.rows, sum.b.columns), sideBySide: true, plan)
  }
  try checkFactor("dB1", parameters.b1, before.b1, expected.factors.b1, outer(plain.a, da))
  try checkFactor("dB3", parameters.b3, before.b3, expected.factors.b3, outer(plain.c, dc))
  let a2 = Naive.groupedOuter(
    1, Naive.scaleRows(weights, padded.magnitude), Naive.dropout(sizes.h, mask: plain.mask), to: Matrix(plain.a2.rows, plain.a2.columns),
    sideBySide: false, plan)
  try checkFactor("dA2", parameters.a2, before.a2, expected.factors.a2, a2)
}
