import Tensors
import Traces

extension Formula {
  /// The numbers that the equation takes beside tensors, under the names that attributes have in Fixtures/cases.
  var numbers: [(name: String, value: Double)] {
    switch self {
    case .embedding(_, let scale), .embeddingGradient(_, let scale, _): return [("scale", scale)]
    case .norm(let norm), .normGradient(let norm, _, _), .gainGradient(let norm, _):
      return [("epsilon", norm.epsilon), ("offset", norm.offset)]
    case .linear(let linear): return Self.scales(linear.branches)
    case .rotary(_, let width), .rotaryGradient(_, let width): return [("head_width", Double(width))]
    case .attention(let inputs), .attentionGradient(_, let inputs, _, _): return Self.numbers(inputs.form)
    case .choice(_, let policy), .weights(_, _, let policy): return Self.numbers(policy)
    case .combine(let gate, _): return [("experts", Double(gate.experts))]
    case .sharedOutput(let output): return [("experts", Double(output.gate.experts))] + Self.scales(output.branches)
    case .parts(let parts): return parts.flatMap(\.formula.numbers)
    case .logits(_, let softcap), .lossGradient(_, let softcap): return softcap.map { [("softcap", $0)] } ?? []
    case .balance(let balance): return Self.numbers(balance)
    case .inputGradient(let gradient): return Self.scales(gradient.readers.flatMap(\.branches))
    case .sharedHiddenGradient(_, _, _, let branch): return Self.scales(branch.map { [$0] } ?? [])
    case .weightsGradient(let gradient): return [("experts", Double(gradient.gate.experts))] + Self.scales(gradient.branches)
    case .routerGradient(let gradient):
      return Self.numbers(gradient.policy) + (gradient.balance.coefficient == 0 ? [] : Self.numbers(gradient.balance))
    case .branchGradient(_, let branch, _): return [("scale", branch.scale)]
    case .moment(let order, _): return order == 1 ? [("beta1", 0.9)] : [("beta2", 0.999)]
    case .update: return [("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-8)]
    default: return []
    }
  }

  /// s of all branches, or where they differ of each.
  private static func scales(_ branches: [Branch]) -> [(name: String, value: Double)] {
    guard let first = branches.first else { return [] }
    if branches.allSatisfy({ $0.scale == first.scale }) { return [("scale", first.scale)] }
    return branches.map { ("scale of \($0.b)", $0.scale) }
  }

  private static func numbers(_ form: AttentionForm) -> [(name: String, value: Double)] {
    let optional = [("window", form.window.map { Double($0) }), ("softcap", form.softcap)]
    return [
      ("heads", Double(form.heads)), ("key_value_heads", Double(form.keyValueHeads)), ("head_width", Double(form.headWidth)),
      ("scale", form.scale),
    ] + optional.compactMap { name, value in value.map { (name, $0) } }
  }

  private static func numbers(_ policy: RoutingPolicy) -> [(name: String, value: Double)] {
    switch policy {
    case .topK(let k): [("k", Double(k))]
    case .topP(let threshold, let temperature): [("threshold", threshold), ("temperature", temperature)]
    }
  }

  private static func numbers(_ balance: Balance) -> [(name: String, value: Double)] {
    [("coefficient", balance.coefficient), ("experts", Double(balance.gates.first?.experts ?? 0))]
  }
}
