import Tensors

@testable import Conformance

extension FaultyBackend {
  // MARK: Routing

  func softmax(_ logits: T) -> T { from(base.softmax(to(logits)), "softmax") }

  func choose(_ p: T, _ policy: RoutingPolicy) -> I {
    let m = base.matrix(to(p))
    var choice = Naive.choose(m, policy)
    if fault == .tiesToTheHigherIndex {
      let mirrored = Matrix(m.rows, m.columns) { n, e in m[n, m.columns - 1 - e] }
      choice = Naive.choose(mirrored, policy).map { $0 < 0 ? -1 : m.columns - 1 - $0 }
    }
    if fault == .topPWithoutTheLast, case .topP = policy {  // what stays below the threshold, without the one that exceeds it
      let s = m.columns
      for slot in choice.indices where slot % s > 0 && choice[slot] >= 0 && (slot % s == s - 1 || choice[slot + 1] < 0) {
        choice[slot] = -1
      }
    }
    if fault == .topPReachesInsteadOfExceeding, case .topP(let threshold, let temperature) = policy {
      choice = Naive.choose(m, .topP(threshold: threshold.nextDown, temperature: temperature))
    }
    if fault == .temperatureForgotten, case .topP(let threshold, _) = policy {
      choice = Naive.choose(m, .topP(threshold: threshold, temperature: 0))
    }
    return from(base.indices(choice), "choose")
  }

  func route(_ p: T, choice: I, _ policy: RoutingPolicy) -> R {
    let m = base.matrix(to(p))
    var plan = Naive.route(m, choice: base.list(to(choice)), policy)
    let p = (0..<plan.pairs).map { m[plan.tokenOfRow[$0], plan.expert(ofRow: $0)] }
    if fault == .weightsNotRenormalized { plan.weights = p }
    if fault == .topPRenormalizes, case .topP = policy {
      plan.weights = (0..<plan.pairs).map { row in
        p[row] / plan.rows(ofToken: plan.tokenOfRow[row]).reduce(0) { $0 + p[$1] }
      }
    }
    if fault == .temperatureForgotten, case .topP = policy { plan.weights = p }
    var firsts = plan.firstCounts
    if fault == .noneCountsForTheLastExpert, plan.slots > 0 {  // as an index −1 does in Python
      firsts[plan.experts - 1] += Double((0..<plan.tokens).filter { plan.choice[$0 * plan.slots] < 0 }.count)
    }
    return R(
      policy: policy, tokens: plan.tokens, experts: plan.experts, rows: plan.rows, choice: choice,
      rowOfSlot: from(base.indices(plan.rowOfSlot), ""), tokenOfRow: from(base.indices(plan.tokenOfRow), ""),
      slotOfRow: from(base.indices(plan.slotOfRow), ""), offsets: from(base.indices(plan.offsets), ""),
      weights: from(base.tensor(plan.weights), "route"),
      counts: from(base.tensor((0..<plan.experts).map { Double(plan.rows(of: $0).count) }), ""),
      firstCounts: from(base.tensor(firsts), ""))
  }

  func routerBackward(_ dw: T, _ p: T, _ routing: R, balance: T) -> T {
    var balance = to(balance)
    if fault == .routerIgnoresBalance { balance = base.tensor([Double](repeating: 0, count: balance.columnCount)) }
    var found = base.routerBackward(to(dw), to(p), to(routing), balance: balance)
    if fault == .routerWithoutMean {
      let (dw, m, plan, b) = (base.list(to(dw)), base.matrix(to(p)), base.plan(to(routing)), base.list(balance))
      found = base.tensor(
        Matrix(m.rows, m.columns) { n, j in
          let mean = (0..<m.columns).reduce(0) { $0 + b[$1] * m[n, $1] }
          let own = plan.rows(ofToken: n).filter { plan.expert(ofRow: $0) == j }
          return m[n, j] * (b[j] - mean) + own.reduce(0) { $0 + plan.weights[$1] * dw[$1] }
        })
    }
    return from(found, "routerBackward")
  }

  func dispatch(_ x: T, _ routing: R) -> T {
    let found = base.matrix(base.dispatch(to(x), to(routing)))
    let pairs = base.plan(to(routing)).pairs
    let isFaulty = fault == .spareRowsStayUnwritten
    return from(base.tensor(Matrix(found.rows, found.columns) { m, j in isFaulty && m >= pairs ? .nan : found[m, j] }), "dispatch")
  }

  /// The rows of x with those that a slot without an expert would read as row 0 added to its token.
  private func readingNone(_ y: Matrix, _ plan: Naive.Plan, _ add: (_ y: inout Matrix, _ n: Int) -> Void) -> Matrix {
    var y = y
    if fault == .noneIsRowZero, plan.pairs > 0 {
      for slot in plan.rowOfSlot.indices where plan.rowOfSlot[slot] < 0 { add(&y, slot / plan.slots) }
    }
    return y
  }

  func combine(_ x: T, weights: T?, _ routing: R) -> T {
    let weights = fault == .combineIgnoresWeights ? nil : weights.map { to($0) }
    let found = base.matrix(base.combine(to(x), weights: weights, to(routing)))
    let m = base.matrix(to(x))
    return from(
      base.tensor(readingNone(found, base.plan(to(routing))) { y, n in for j in 0..<m.columns { y[n, j] += m[0, j] } }), "combine")
  }

  func dispatchBlocks(_ x: T, _ routing: R) -> T {
    let experts = routing.experts
    let mirrored = base.indices(base.list(to(routing.choice)).map { $0 < 0 ? -1 : experts - 1 - $0 })
    let choice = fault == .blocksOfAnotherExpert ? mirrored : nil
    return from(base.dispatchBlocks(to(x), to(routing, choice: choice)), "dispatchBlocks")
  }

  func combineBlocks(_ x: T, weights: T?, _ routing: R) -> T {
    var result = base.matrix(base.combineBlocks(to(x), weights: weights.map { to($0) }, to(routing)))
    if fault == .combineBlocksLeavesGarbage { result = result.map { $0 == 0 ? .nan : $0 } }
    let m = base.matrix(to(x))
    result = readingNone(result, base.plan(to(routing))) { y, n in for j in 0..<m.columns { y[n, y.columns - m.columns + j] = m[0, j] } }
    return from(base.tensor(result), "combineBlocks")
  }

  func groupedGemm(_ alpha: Double, _ a: T, _ b: ExpertStack<FaultyBackend>, _ beta: Double, into c: inout T, _ routing: R) {
    let (a, routing) = (to(a), to(routing))
    var stack = base.matrix(to(b.matrices))
    if fault == .groupedGemmSwapsExperts {
      let (whole, experts, sideBySide) = (stack, b.experts, b.axis == .columns)
      let (height, width) = sideBySide ? (whole.rows, whole.columns / experts) : (whole.rows / experts, whole.columns)
      stack = Matrix(whole.rows, whole.columns) { i, j in
        let block = Naive.block(experts - 1 - (sideBySide ? j / width : i / height), of: experts, in: whole, sideBySide: sideBySide)
        return block[i % height, j % width]
      }
    }
    let experts = ExpertStack(base.tensor(stack), experts: b.experts, along: b.axis, isTransposed: b.isTransposed)
    writing(&c, "groupedGemm") { base.groupedGemm(alpha, a, experts, beta, into: &$0, routing) }
  }

  func groupedOuter(_ alpha: Double, _ a: T, _ b: T, into g: inout T, stackedAlong axis: StackAxis, _ routing: R) {
    let (a, b, plan) = (base.matrix(to(a)), base.matrix(to(b)), base.plan(to(routing)))
    let alpha = fault == .groupedOuterIgnoresAlpha ? 1 : alpha
    replacing(&g, "groupedOuter") { old in
      var result = Naive.groupedOuter(alpha, a, b, to: old, sideBySide: axis == .columns, plan)
      if fault == .spareRowsBelongToTheLast {
        for m in plan.pairs..<plan.rows {
          for i in 0..<a.columns { result[result.rows - a.columns + i, result.columns - 1] += a[m, i] * b[m, b.columns - 1] }
        }
      }
      return result
    }
  }

  func expertProduct(_ alpha: Double, _ x: T, _ s: ExpertStack<FaultyBackend>, _ routing: R) -> T {
    from(base.expertProduct(alpha, to(x), to(s), to(routing)), "expertProduct")
  }

  func addExpertProducts(
    _ alpha: Double, _ t: T, weights: T?, _ s: ExpertStack<FaultyBackend>, into y: inout T, rows: Range<Int>, _ routing: R
  ) {
    let (t, s, routing) = (to(t), to(s), to(routing))
    let weights = fault == .expertProductsIgnoreWeights ? nil : weights.map { to($0) }
    writing(&y, "addExpertProducts") { base.addExpertProducts(alpha, t, weights: weights, s, into: &$0, rows: rows, routing) }
  }

  func addExpertOuter(_ alpha: Double, _ t: T, weights: T?, _ x: T, into g: inout T, stackedAlong axis: StackAxis, _ routing: R) {
    let (t, x, weights, routing) = (to(t), to(x), weights.map { to($0) }, to(routing))
    writing(&g, "addExpertOuter") {
      base.addExpertOuter(alpha, t, weights: weights, x, into: &$0, stackedAlong: axis, routing)
    }
  }

  func addExpertGradients(_ dt: T, _ x: T, _ s: ExpertStack<FaultyBackend>, into g: inout T, _ dx: inout T?, _ routing: R) {
    let (dt, x, s, routing) = (to(dt), to(x), to(s), to(routing))
    var sum = dx.take().map { to($0) }
    writing(&g, "addExpertGradients") { base.addExpertGradients(dt, x, s, into: &$0, &sum, routing) }
    dx = sum.map { from($0, "addExpertGradients") }
  }

  private func to(_ stack: ExpertStack<FaultyBackend>) -> ExpertStack<Base> {
    ExpertStack(to(stack.matrices), experts: stack.experts, along: stack.axis, isTransposed: stack.isTransposed)
  }

  // MARK: Optimizers

  func clipFactor(_ squaredNorm: T, loss: T, maximum: Double) -> (factor: T, norm: T) {
    let found = base.clipFactor(to(squaredNorm), loss: to(loss), maximum: maximum)
    return (from(found.factor, "clipFactor"), from(found.norm, "clipFactor"))
  }

  func decoded(_ x: ByteBlocks<FaultyBackend>) -> T { from(base.decoded(to(x)), "decoded") }

  func encode(_ x: T, into y: inout ByteBlocks<FaultyBackend>, factor: T?) {
    var inner = to(y)
    base.encode(to(x), into: &inner, factor: factor.map { to($0) })
    (y.codes, y.scales) = (from(inner.codes, "codes"), from(inner.scales, "encode"))
  }

  private func to(_ x: ByteBlocks<FaultyBackend>) -> ByteBlocks<Base> {
    ByteBlocks(x.shape, codes: to(x.codes), scales: to(x.scales), map: to(x.map), isSigned: x.isSigned)
  }

  func adamW(_ x: inout T, gradient: T, factor: T?, _ m: inout T, _ v: inout T, _ settings: AdamWSettings, range: Range<Int>?) {
    var (settings, gradient) = (settings, to(gradient))
    let (factor, range) = (factor.map { to($0) }, fault == .optimizerIgnoresRange ? nil : range)
    if fault == .adamWWithoutBiasCorrection { settings.step = 100_000 }
    if fault == .adamWDecaysTheGradient {
      let (g, x) = (base.list(gradient), base.list(to(x)))
      gradient = base.tensor(g.indices.map { g[$0] + settings.weightDecay * x[$0] })
      settings.weightDecay = 0
    }
    writing(&x, "adamW") { x in
      writing(&m, "adamW") { m in
        writing(&v, "adamW") { v in base.adamW(&x, gradient: gradient, factor: factor, &m, &v, settings, range: range) }
      }
    }
  }

  func sgd(_ x: inout T, gradient: T, factor: T?, momentum b: inout T, _ settings: SGDSettings, range: Range<Int>?) {
    let (gradient, factor) = (to(gradient), factor.map { to($0) })
    let range = fault == .optimizerIgnoresRange ? nil : range
    writing(&x, "sgd") { x in
      writing(&b, "sgd") { b in base.sgd(&x, gradient: gradient, factor: factor, momentum: &b, settings, range: range) }
    }
  }
}
