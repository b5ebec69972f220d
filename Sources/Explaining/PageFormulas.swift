import Checkpoints
import Layers
import Tensors
import Traces

/// The numbers that tensors and weights have on a page, and formulas in terms of them: what the page's `why` reads.
///
/// A formula is an array that begins with its kind; a tensor stands as its number, a weight as its number in a list of its own, and what
/// is not there as null. `why.js` and `why-backward.js` destructure these arrays in the same order.
struct PageFormulas {
  /// The tensors of the run in its order.
  let points: [String: Int]
  /// The weights that any formula reads.
  let weights: [String: Int]
  /// The routers, each as adapter, experts, logits, probabilities, choice and weights.
  private(set) var gates: [JSON] = []
  private var gateNumbers: [String: Int] = [:]

  init(points: [String], weights: [String]) {
    func numbered(_ names: [String]) -> [String: Int] { Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) }) }
    (self.points, self.weights) = (numbered(points), numbered(weights))
  }

  // MARK: Their parts

  private func point(_ name: String?) -> JSON { name.flatMap { points[$0] }.map { JSON($0) } ?? .null }
  private func pointList(_ names: [String]) -> JSON { .array(names.map { point($0) }) }
  private func weight(_ name: String?) -> JSON { name.flatMap { weights[$0] }.map { JSON($0) } ?? .null }
  private func number(_ value: Double?) -> JSON { value.map { JSON($0) } ?? .null }
  private func number(_ value: Int?) -> JSON { value.map { JSON($0) } ?? .null }

  private mutating func gate(_ gate: Formula.Gate) -> JSON {
    if let number = gateNumbers[gate.path] { return JSON(number) }
    gateNumbers[gate.path] = gates.count
    gates.append([
      JSON(gate.adapter), JSON(gate.experts), point(gate.logits), point(gate.probabilities), point(gate.choice), point(gate.weights),
    ])
    return JSON(gates.count - 1)
  }

  private mutating func rows(_ rows: Formula.ExpertRows?) -> JSON {
    guard let rows else { return .null }
    return [gate(rows.gate), JSON(rows.expert), point(rows.tokens)]
  }

  private func norm(_ norm: Formula.Norm) -> JSON { [point(norm.x), weight(norm.weight), JSON(norm.offset), JSON(norm.epsilon)] }

  private func branch(_ branch: Formula.Branch?) -> JSON {
    guard let branch else { return .null }
    return [number(branch.adapter), weight(branch.a), weight(branch.b), JSON(branch.scale)]
  }

  private func branches(_ branches: [Formula.Branch]) -> JSON { .array(branches.map { branch($0) }) }

  private func attention(_ inputs: Formula.AttentionInputs) -> JSON {
    let form = inputs.form
    return [
      point(inputs.q), point(inputs.k), point(inputs.v), JSON(form.heads), JSON(form.keyValueHeads), JSON(form.headWidth), JSON(form.scale),
      number(form.window), number(form.softcap),
    ]
  }

  private func policy(_ policy: RoutingPolicy) -> JSON {
    switch policy {
    case .topK(let k): [JSON(k), .null, 1]
    case .topP(let threshold, _): [.null, JSON(threshold), JSON(policy.weightDivisor)]
    }
  }

  private mutating func balance(_ balance: Formula.Balance) -> JSON {
    [JSON(balance.form == .pooledTopK), JSON(balance.coefficient), .array(balance.gates.map { gate($0) })]
  }

  private mutating func terms(_ terms: [Formula.ExpertTerm]) -> JSON { .array(terms.map { [point($0.value), rows($0.rows)] }) }

  private mutating func reading(_ reading: Formula.Reading?) -> JSON {
    guard let reading else { return .null }
    return [point(reading.dy), point(reading.x), rows(reading.rows), JSON(reading.isWeighted), number(reading.adapter)]
  }

  // MARK: Formulas

  /// A formula as the page reads it.
  mutating func json(_ formula: Formula) -> JSON {
    switch formula {
    case .embedding(let name, let scale): ["embedding", weight(name), JSON(scale)]
    case .norm(let inputs): ["norm", norm(inputs)]
    case .linear(let linear):
      [
        "linear", point(linear.x), weight(linear.weight), weight(linear.bias), point(linear.base), branches(linear.branches),
        rows(linear.rows),
      ]
    case .rotary(let x, let width): ["rotary", point(x), JSON(width)]
    case .attention(let inputs): ["attention", attention(inputs)]
    case .same(let x): ["sum", [point(x)]]
    case .sum(let parts): ["sum", pointList(parts)]
    case .gated(let a, let c, let activation): ["gated", point(a), point(c), name(activation)]
    case .softmax(let z): ["softmax", point(z)]
    case .choice(let p, let rule): ["choice", point(p), policy(rule)]
    case .tokens(let choice, let expert): ["tokens", point(choice), JSON(expert)]
    case .weights(let p, let choice, let rule): ["weights", point(p), point(choice), policy(rule)]
    case .combine(let router, let values):
      ["combine", gate(router), .array(values.enumerated().map { [point($1), rows(router.rows(of: $0))] })]
    case .sharedOutput(let output):
      [
        "shared", point(output.v), weight(output.weight), weight(output.bias), gate(output.gate), terms(output.hidden),
        branches(output.branches),
      ]
    case .parts(let parts): ["parts", .array(parts.map { [number($0.adapter), json($0.formula)] })]
    case .logits(let z, let softcap): ["logits", point(z), number(softcap)]
    case .routerLogits(let gates): ["router logits", pointList(gates)]
    case .loss(let logits): ["loss", point(logits)]
    case .balance(let inputs): ["balance", balance(inputs)]
    case .lossCurve(let loss, let aux): ["loss curve", point(loss), point(aux)]
    case .lossGradient, .inputGradient, .normGradient, .attentionGradient, .rotaryGradient, .gatedGradient, .sharedHiddenGradient,
      .expertOutputGradient, .expertSum, .weightsGradient, .routerGradient:
      gradient(formula)
    default: parameter(formula)
    }
  }

  private mutating func gradient(_ formula: Formula) -> JSON {
    switch formula {
    case .lossGradient(let z, let softcap): return ["d loss", point(z), number(softcap)]
    case .inputGradient(let gradient):
      let readers = gradient.readers.map { [point($0.dy), weight($0.weight), branches($0.branches), rows($0.rows)] as JSON }
      return ["d input", .array(readers), rows(gradient.rows)]
    case .normGradient(let inputs, let dy, let beside): return ["d norm", norm(inputs), point(dy), point(beside)]
    case .attentionGradient(let role, let inputs, let output, let gradient):
      return ["d attention", .string(role.rawValue), attention(inputs), point(output), point(gradient)]
    case .rotaryGradient(let dy, let width): return ["d rotary", point(dy), JSON(width)]
    case .gatedGradient(let ofUp, let dh, let a, let c, let activation):
      return ["d gated", JSON(ofUp), point(dh), point(a), point(c), name(activation)]
    case .sharedHiddenGradient(let expert, let q, let dy, let inside):
      return ["d hidden", rows(expert), point(q), point(dy), branch(inside)]
    case .expertOutputGradient(let expert, let dy): return ["d expert", rows(expert), point(dy)]
    case .expertSum(let experts, let others): return ["d sum", terms(experts), pointList(others)]
    case .weightsGradient(let gradient):
      return [
        "d weights", gate(gradient.gate), point(gradient.dy), point(gradient.q), terms(gradient.values), branches(gradient.branches),
        weight(gradient.bias),
      ]
    case .routerGradient(let gradient):
      return ["d router", gate(gradient.gate), point(gradient.dw), policy(gradient.policy), balance(gradient.balance)]
    default: return .null
    }
  }

  private mutating func parameter(_ formula: Formula) -> JSON {
    switch formula {
    case .matrixGradient(let readings): return ["d matrix", .array(readings.map { reading($0) })]
    case .biasGradient(let readings):
      let readings = readings.map { [point($0.dy), rows($0.rows), $0.gate.map { gate($0) } ?? .null, number($0.adapter)] as JSON }
      return ["d bias", .array(readings)]
    case .gainGradient(let inputs, let dy): return ["d gain", norm(inputs), point(dy)]
    case .embeddingGradient(let dy, let scale, let head): return ["d embedding", point(dy), JSON(scale), reading(head)]
    case .branchGradient(let isA, let inside, let inputs): return ["d branch", JSON(isA), branch(inside), reading(inputs)]
    case .moment(let order, let gradient): return ["moment", JSON(order), point(gradient)]
    case .update(let name, let first, let second): return ["update", weight(name), point(first), point(second)]
    default: return .null
    }
  }

  private func name(_ activation: Activation) -> JSON { activation == .silu ? "silu" : "gelu" }
}
