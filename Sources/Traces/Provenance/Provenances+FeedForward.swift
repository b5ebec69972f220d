import Decoders
import Layers
import Tensors

/// The feed-forward of a block, forward: the base's products, then what each adapter makes of them on its rows.
extension Provenances {
  /// Rows that one adapter serves, or none.
  enum FeedForwardPart {
    case dense(DenseBranches<B>)
    case mixture(ExpertMixture<B>)

    var adapter: Int? {
      switch self {
      case .dense(let branches): branches.adapter
      case .mixture(let mixture): mixture.router.adapter
      }
    }
    /// Its tokens, where there are others beside them.
    func rows(among parts: [FeedForwardPart]) -> Provenance.Rows {
      parts.count == 1 ? .all : adapter.map { .adapter($0) } ?? .base
    }
    /// The path of what belongs to the part alone.
    var path: String {
      switch self {
      case .dense(let branches): branches.path
      case .mixture(let mixture): mixture.experts.path
      }
    }
  }

  /// Who serves rows of a feed-forward.
  func parts(of layer: FeedForward<B>) -> [FeedForwardPart] {
    let plain = FeedForwardPart.dense(DenseBranches(path: layer.adapters.isEmpty ? layer.path : "base." + layer.path))
    let adapted = layer.adapters.map { adapter in
      switch adapter {
      case .dense(let branches): FeedForwardPart.dense(branches)
      case .mixture(let mixture): FeedForwardPart.mixture(mixture)
      }
    }
    return adapted + (adapted.isEmpty || hasBaseRows ? [plain] : [])
  }

  /// Where a part's W1 x + b1 and W3 x + b3 are points: of all rows, of the adapter's, or nowhere.
  func basePath(of part: FeedForwardPart, _ layer: FeedForward<B>) -> String? {
    guard case .mixture(let mixture) = part else { return nil }
    switch layer.evaluation {
    case .sharedBase: return layer.path
    case .sharedGateUp: return mixture.experts.path
    case .perExpert: return nil
    }
  }

  mutating func addFeedForward(_ layer: FeedForward<B>, of x: String) {
    let parts = parts(of: layer)
    var bases: Set<String> = []
    for part in parts {
      guard let path = basePath(of: part, layer), bases.insert(path).inserted else { continue }
      rows = layer.evaluation == .sharedBase ? .all : part.rows(among: parts)
      for (linear, name) in [(layer.frozen.gate, "gate_proj"), (layer.frozen.up, "up_proj")] {
        forward("\(path).\(name).base.output", .linear(formula(linear, "\(layer.path).\(name)", of: x, [])))
      }
    }
    let outputs = parts.map { part in
      rows = part.rows(among: parts)
      return switch part {
      case .dense(let branches): Formula.Part(adapter: part.adapter, formula: addDense(branches, layer, of: x))
      case .mixture(let mixture): Formula.Part(adapter: part.adapter, formula: addMixture(mixture, part, layer, of: x))
      }
    }
    rows = .all
    forward(layer.path + ".output", outputs.count == 1 ? outputs[0].formula : .parts(outputs))
  }

  /// W1, W3, act and W2 with an adapter's branches; how the part's rows of the output are formed.
  private mutating func addDense(_ branches: DenseBranches<B>, _ layer: FeedForward<B>, of x: String) -> Formula {
    let (path, frozen) = (branches.path, layer.frozen)
    for (linear, branch, name) in [(frozen.gate, branches.gate, "gate_proj"), (frozen.up, branches.up, "up_proj")] {
      let terms = branch.map { [formula($0)] } ?? []
      forward("\(path).\(name).output", .linear(formula(linear, "\(layer.path).\(name)", of: x, terms)))
    }
    forward(path + ".hidden", .gated(a: path + ".gate_proj.output", c: path + ".up_proj.output", frozen.activation))
    forward(path + ".down_proj.input", .same(path + ".hidden"))
    let terms = branches.down.map { [formula($0)] } ?? []
    forward(
      path + ".down_proj.output", .linear(formula(frozen.down, layer.path + ".down_proj", of: path + ".down_proj.input", terms)))
    return .same(path + ".down_proj.output")
  }

  /// The router and its experts; how the part's rows of the output are formed.
  private mutating func addMixture(_ mixture: ExpertMixture<B>, _ part: FeedForwardPart, _ layer: FeedForward<B>, of x: String) -> Formula {
    let (router, experts, frozen) = (mixture.router, mixture.experts, layer.frozen)
    let gate = formula(router)
    forward(
      gate.logits,
      .linear(
        Formula.Linear(operation: .router, x: x, weight: name(router.gate), bias: nil, base: nil, branches: [], rows: nil)))
    forward(gate.probabilities, .softmax(gate.logits))
    forward(gate.choice, .choice(p: gate.probabilities, router.policy))
    for e in 0..<experts.experts { forward(gate.rows(of: e).tokens, .tokens(choice: gate.choice, expert: e)) }
    forward(gate.weights, .weights(p: gate.probabilities, choice: gate.choice, router.policy))

    let base = basePath(of: part, layer)
    for (linear, lora, name) in [(frozen.gate, experts.lora1, "gate_proj"), (frozen.up, experts.lora3, "up_proj")] {
      for e in 0..<experts.experts {
        let branch = formula(lora, expert: e).map { [$0] } ?? []
        let path = "\(layer.path).\(name)"
        let whole = formula(linear, path, of: x, branch, .experts, rows: gate.rows(of: e))
        let onBase = Formula.Linear(
          operation: .experts, x: x, weight: nil, bias: nil, base: base.map { "\($0).\(name).base.output" }, branches: branch,
          rows: gate.rows(of: e))
        forward(expert(experts, e, name + ".output"), .linear(base == nil ? whole : onBase))
      }
    }
    for e in 0..<experts.experts {
      forward(
        expert(experts, e, "hidden"),
        .gated(a: expert(experts, e, "gate_proj.output"), c: expert(experts, e, "up_proj.output"), experts.activation))
    }
    let hidden = (0..<experts.experts).map { expert(experts, $0, "hidden") }
    if layer.evaluation == .sharedBase {
      forward(experts.path + ".down_proj.input", .combine(gate, values: hidden))
      return .sharedOutput(
        Formula.SharedOutput(
          v: experts.path + ".down_proj.input", weight: weight(frozen.down.weight, layer.path + ".down_proj.weight"),
          bias: frozen.down.bias.map { weight($0, layer.path + ".down_proj.bias") }, gate: gate, hidden: terms(experts, gate, "hidden"),
          branches: (0..<experts.experts).compactMap { formula(experts.lora2, expert: $0) }))
    }
    for e in 0..<experts.experts {
      let branch = formula(experts.lora2, expert: e).map { [$0] } ?? []
      forward(
        expert(experts, e, "down_proj.output"),
        .linear(formula(frozen.down, layer.path + ".down_proj", of: hidden[e], branch, .experts, rows: gate.rows(of: e))))
    }
    return .combine(gate, values: (0..<experts.experts).map { expert(experts, $0, "down_proj.output") })
  }

  func expert(_ experts: LoRAExperts<B>, _ e: Int, _ name: String) -> String { "\(experts.path).experts.\(e).\(name)" }

  /// A value of every expert with its rows.
  func terms(_ experts: LoRAExperts<B>, _ gate: Formula.Gate, _ name: String, isGradient: Bool = false) -> [Formula.ExpertTerm] {
    (0..<experts.experts).map { e in
      let path = expert(experts, e, name)
      return Formula.ExpertTerm(value: isGradient ? gradient(path) : path, rows: gate.rows(of: e))
    }
  }
}
