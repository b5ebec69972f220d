/// What a formula reads, in the order of its equation.
extension Formula {
  /// A name may stand more than once.
  public var inputs: [Provenance.Input] {
    typealias Input = Provenance.Input
    func point(_ letter: String, _ name: Point?) -> [Input] { name.map { [Input(letter, .point($0))] } ?? [] }
    func weight(_ letter: String, _ name: WeightName?) -> [Input] { name.map { [Input(letter, .weight($0))] } ?? [] }
    func batch(_ name: String) -> [Input] { [Input(name, .batch(name))] }
    func norm(_ norm: Norm) -> [Input] { point("x", norm.x) + weight("w", norm.weight) }
    func branch(_ branch: Branch) -> [Input] { weight("A", branch.a) + weight("B", branch.b) + rows(of: branch.adapter) }
    func rows(of adapter: Int?) -> [Input] { adapter.map { $0 > 0 ? batch("adapter") : [] } ?? [] }
    func rows(_ rows: ExpertRows?) -> [Input] { point("tokens", rows?.tokens) }
    func chosen(_ gate: Gate) -> [Input] { point("w", gate.weights) + point("choice", gate.choice) }
    func terms(_ letter: String, _ terms: [ExpertTerm]) -> [Input] { terms.flatMap { point(letter, $0.value) + rows($0.rows) } }
    func reading(_ reading: Reading) -> [Input] {
      point("dy", reading.dy) + point("x", reading.x) + rows(reading.rows) + rows(of: reading.adapter)
        + (reading.isWeighted ? reading.rows.map { chosen($0.gate) } ?? [] : [])
    }
    func balance(_ balance: Balance) -> [Input] {
      balance.gates.flatMap { point("p", $0.probabilities) + point("choice", $0.choice) }
    }

    switch self {
    case .embedding(let name, _): return weight("W", name) + batch("input_ids")
    case .norm(let inputs): return norm(inputs)
    case .linear(let linear):
      return point("base", linear.base) + point("x", linear.x) + weight("W", linear.weight) + weight("b", linear.bias)
        + linear.branches.flatMap(branch) + rows(linear.rows)
    case .rotary(let x, _): return point("x", x)
    case .attention(let inputs): return point("q", inputs.q) + point("k", inputs.k) + point("v", inputs.v) + batch("attention_mask")
    case .same(let x): return point("x", x)
    case .sum(let parts): return zip(["x", "z"], parts).flatMap { point($0, $1) }
    case .gated(let a, let c, _): return point("a", a) + point("c", c)
    case .softmax(let z): return point("z", z)
    case .choice(let p, _): return point("p", p)
    case .tokens(let choice, _): return point("choice", choice)
    case .weights(let p, let choice, _): return point("p", p) + point("choice", choice)
    case .combine(let gate, let values):
      return chosen(gate) + values.enumerated().flatMap { point("e", $1) + rows(gate.rows(of: $0)) }
    case .sharedOutput(let output):
      return point("v", output.v) + weight("W2", output.weight) + (output.bias == nil ? [] : weight("b2", output.bias))
        + (output.bias == nil && output.branches.isEmpty ? [] : chosen(output.gate))
        + (output.branches.isEmpty ? [] : terms("h", output.hidden)) + output.branches.flatMap(branch)
    case .parts(let parts): return parts.flatMap(\.formula.inputs) + batch("adapter")
    case .logits(let z, _): return point("z", z)
    case .routerLogits(let gates): return gates.flatMap { point("z", $0) }
    case .loss(let logits): return point("logits", logits) + batch("labels")
    case .balance(let inputs): return balance(inputs)
    case .lossCurve(let loss, let aux): return point("loss", loss) + point("aux_loss", aux)

    case .lossGradient(let z, _): return point("z", z) + batch("labels")
    case .inputGradient(let gradient):
      return gradient.readers.flatMap { point("dy", $0.dy) + weight("W", $0.weight) + $0.branches.flatMap(branch) + rows($0.rows) }
    case .normGradient(let inputs, let dy, let beside): return point("dy", dy) + norm(inputs) + point("dz", beside)
    case .attentionGradient(_, let inputs, let output, let gradient):
      return point("do", gradient) + point("q", inputs.q) + point("k", inputs.k) + point("v", inputs.v) + point("o", output)
        + batch("attention_mask")
    case .rotaryGradient(let dy, _): return point("dy", dy)
    case .gatedGradient(_, let dh, let a, let c, _): return point("dh", dh) + point("a", a) + point("c", c)
    case .sharedHiddenGradient(let expert, let q, let dy, let inside):
      return point("q", q) + (inside == nil ? [] : point("dy", dy)) + chosen(expert.gate) + (inside.map(branch) ?? []) + rows(expert)
    case .expertOutputGradient(let expert, let dy): return point("dy", dy) + chosen(expert.gate) + rows(expert)
    case .expertSum(let experts, let others): return terms("dy", experts) + others.flatMap { point("dy", $0) }
    case .weightsGradient(let gradient):
      let needsOutput = gradient.q == nil || !gradient.branches.isEmpty || gradient.bias != nil
      return point("q", gradient.q) + (needsOutput ? point("dy", gradient.dy) : []) + point("choice", gradient.gate.choice)
        + terms(gradient.q == nil ? "e" : "h", gradient.values) + gradient.branches.flatMap(branch) + weight("b2", gradient.bias)
    case .routerGradient(let gradient):
      return point("dw", gradient.dw) + chosen(gradient.gate) + point("p", gradient.gate.probabilities)
        + (gradient.balance.coefficient == 0 ? [] : balance(gradient.balance))

    case .matrixGradient(let readings): return readings.flatMap(reading)
    case .biasGradient(let readings):
      return readings.flatMap { point("dy", $0.dy) + rows($0.rows) + ($0.gate.map(chosen) ?? []) + rows(of: $0.adapter) }
    case .gainGradient(let inputs, let dy): return point("dy", dy) + point("x", inputs.x)
    case .embeddingGradient(let dy, _, let head): return point("dy", dy) + batch("input_ids") + (head.map(reading) ?? [])
    case .branchGradient(let isA, let inside, let inputs):
      return reading(inputs) + (isA ? weight("B", inside.b) : weight("A", inside.a))
    case .moment(_, let gradient): return point("g", gradient)
    case .update(let name, let first, let second): return weight("w", name) + point("m", first) + point("v", second)
    }
  }
}

extension Formula.Gate {
  /// The rows of an expert.
  public func rows(of expert: Int) -> Formula.ExpertRows {
    let module = path.dropLast(".moe_gate".count)
    return Formula.ExpertRows(gate: self, expert: expert, tokens: "\(module).experts.\(expert).tokens")
  }
}
