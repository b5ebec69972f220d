import Decoders
import Layers
import Tensors

/// The feed-forward of a block, backward.
extension Provenances {
  /// What the readings of W1 and W3 give on the way, until all parts of the rows are known.
  fileprivate struct Collected {
    /// Who read x.
    var readers: [Formula.Reader] = []
    /// The products with W1, W3 and W2, by the layer's name.
    var products: [String: [Formula.Reading]] = [:]
    var sums: [String: [Formula.BiasReading]] = [:]
    /// The gradients of base products: experts' rows, and others'.
    var baseTerms: [String: (experts: [Formula.ExpertTerm], rows: [String])] = [:]
    var bases: [String] = []
  }

  /// Adds the gradients inside; who read x.
  mutating func addFeedForwardBackward(_ layer: FeedForward<B>, of x: String) -> [Formula.Reader] {
    let parts = parts(of: layer)
    let isShared = layer.evaluation == .sharedBase && parts.contains { if case .mixture = $0 { true } else { false } }
    var all = Collected()
    for part in parts {
      rows = part.rows(among: parts)
      switch part {
      case .dense(let branches): addDenseBackward(branches, layer, of: x, base: isShared ? layer.path : nil, &all)
      case .mixture(let mixture): addMixtureBackward(mixture, basePath(of: part, layer), layer, of: x, &all)
      }
    }
    for base in all.bases {
      rows = layer.evaluation == .sharedBase ? .all : parts.first { $0.path == base }?.rows(among: parts) ?? .all
      for (linear, name) in [(layer.frozen.up, "up_proj"), (layer.frozen.gate, "gate_proj")] {
        let path = "\(base).\(name).base.output"
        let terms = all.baseTerms[path] ?? ([], [])
        backward(path, .expertSum(terms.experts, rows: terms.rows))
        all.readers.append(
          Formula.Reader(dy: gradient(path), weight: weight(linear.weight, "\(layer.path).\(name).weight"), branches: [], rows: nil))
        all.products[name, default: []].append(reading(gradient(path), x))
        all.sums[name, default: []].append(bias(gradient(path)))
      }
    }
    for part in parts {
      guard case .mixture(let mixture) = part else { continue }
      rows = part.rows(among: parts)
      all.readers.append(addRouterBackward(mixture, layer, of: x))
    }
    rows = .all
    for (linear, name) in [(layer.frozen.gate, "gate_proj"), (layer.frozen.up, "up_proj"), (layer.frozen.down, "down_proj")] {
      addGradients(of: linear, all.products[name] ?? [], all.sums[name] ?? [])
    }
    return all.readers
  }

  private mutating func addDenseBackward(
    _ branches: DenseBranches<B>, _ layer: FeedForward<B>, of x: String, base: String?, _ all: inout Collected
  ) {
    let path = branches.path
    let (dy, dh) = (gradient(path + ".down_proj.output"), gradient(path + ".hidden"))
    backward(path + ".down_proj.output", .same(gradient(layer.path + ".output")))
    let reader = Formula.Reader(
      dy: dy, weight: weight(layer.frozen.down.weight, layer.path + ".down_proj.weight"),
      branches: branches.down.map { [formula($0)] } ?? [], rows: nil)
    backward(path + ".down_proj.input", .inputGradient(Formula.InputGradient(readers: [reader], rows: nil)))
    backward(path + ".hidden", .same(gradient(path + ".down_proj.input")))
    all.products["down_proj", default: []].append(reading(dy, path + ".down_proj.input"))
    all.sums["down_proj", default: []].append(bias(dy))
    if let branch = branches.down { addGradients(of: branch, reading(dy, path + ".down_proj.input", adapter: branch.adapter)) }
    let (a, c) = (path + ".gate_proj.output", path + ".up_proj.output")
    let sides = [(true, "up_proj", layer.frozen.up, branches.up), (false, "gate_proj", layer.frozen.gate, branches.gate)]
    for (ofUp, name, linear, branch) in sides {
      let path = "\(path).\(name).output"
      backward(path, .gatedGradient(ofUp: ofUp, dh: dh, a: a, c: c, layer.frozen.activation))
      let terms = branch.map { [formula($0)] } ?? []
      if let branch { addGradients(of: branch, reading(gradient(path), x, adapter: branch.adapter)) }
      if let base {
        all.add(base: base, name, rows: gradient(path))
        if !terms.isEmpty { all.readers.append(Formula.Reader(dy: gradient(path), weight: nil, branches: terms, rows: nil)) }
      } else {
        let weight = weight(linear.weight, "\(layer.path).\(name).weight")
        all.readers.append(Formula.Reader(dy: gradient(path), weight: weight, branches: terms, rows: nil))
        all.products[name, default: []].append(reading(gradient(path), x))
        all.sums[name, default: []].append(bias(gradient(path)))
      }
    }
  }

  private mutating func addMixtureBackward(
    _ mixture: ExpertMixture<B>, _ base: String?, _ layer: FeedForward<B>, of x: String, _ all: inout Collected
  ) {
    let (experts, gate, dy) = (mixture.experts, formula(mixture.router), gradient(layer.path + ".output"))
    let w2 = weight(layer.frozen.down.weight, layer.path + ".down_proj.weight")
    if layer.evaluation == .sharedBase {
      let v = experts.path + ".down_proj.input"
      let reader = Formula.Reader(dy: dy, weight: w2, branches: [], rows: nil)
      backward(v, .inputGradient(Formula.InputGradient(readers: [reader], rows: nil)))
      all.products["down_proj", default: []].append(reading(dy, v, adapter: gate.adapter))
      all.sums["down_proj", default: []].append(bias(dy, gate: gate, adapter: gate.adapter))
      for e in 0..<experts.experts {
        let branch = formula(experts.lora2, expert: e)
        backward(
          expert(experts, e, "hidden"), .sharedHiddenGradient(gate.rows(of: e), q: gradient(v), dy: dy, branch: branch))
        addGradients(
          of: experts.lora2, expert: e, reading(dy, expert(experts, e, "hidden"), rows: gate.rows(of: e), isWeighted: true))
      }
    } else {
      for e in 0..<experts.experts {
        let (rows, hidden, output) = (gate.rows(of: e), expert(experts, e, "hidden"), expert(experts, e, "down_proj.output"))
        backward(output, .expertOutputGradient(rows, dy: dy))
        let reader = Formula.Reader(
          dy: gradient(output), weight: w2, branches: formula(experts.lora2, expert: e).map { [$0] } ?? [], rows: rows)
        backward(hidden, .inputGradient(Formula.InputGradient(readers: [reader], rows: rows)))
        all.products["down_proj", default: []].append(reading(gradient(output), hidden, rows: rows))
        all.sums["down_proj", default: []].append(bias(gradient(output), rows: rows))
        addGradients(of: experts.lora2, expert: e, reading(gradient(output), hidden, rows: rows))
      }
    }
    let sides = [(true, "up_proj", layer.frozen.up, experts.lora3), (false, "gate_proj", layer.frozen.gate, experts.lora1)]
    for (ofUp, name, linear, lora) in sides {
      for e in 0..<experts.experts {
        let (path, rows) = (expert(experts, e, name + ".output"), gate.rows(of: e))
        backward(
          path,
          .gatedGradient(
            ofUp: ofUp, dh: gradient(expert(experts, e, "hidden")), a: expert(experts, e, "gate_proj.output"),
            c: expert(experts, e, "up_proj.output"), experts.activation))
        addGradients(of: lora, expert: e, reading(gradient(path), x, rows: rows))
        let branch = formula(lora, expert: e).map { [$0] } ?? []
        if let base {
          all.add(base: base, name, expert: Formula.ExpertTerm(value: gradient(path), rows: rows))
          if !branch.isEmpty { all.readers.append(Formula.Reader(dy: gradient(path), weight: nil, branches: branch, rows: rows)) }
        } else {
          let weight = weight(linear.weight, "\(layer.path).\(name).weight")
          all.readers.append(Formula.Reader(dy: gradient(path), weight: weight, branches: branch, rows: rows))
          all.products[name, default: []].append(reading(gradient(path), x, rows: rows))
          all.sums[name, default: []].append(bias(gradient(path), rows: rows))
        }
      }
    }
  }

  /// The weights of the experts and the router's logits; how the router read x.
  private mutating func addRouterBackward(_ mixture: ExpertMixture<B>, _ layer: FeedForward<B>, of x: String) -> Formula.Reader {
    let (router, experts, gate) = (mixture.router, mixture.experts, formula(mixture.router))
    let isShared = layer.evaluation == .sharedBase
    backward(
      gate.weights,
      .weightsGradient(
        Formula.WeightsGradient(
          gate: gate, dy: gradient(layer.path + ".output"), q: isShared ? gradient(experts.path + ".down_proj.input") : nil,
          values: terms(experts, gate, isShared ? "hidden" : "down_proj.output"),
          branches: isShared ? (0..<experts.experts).compactMap { formula(experts.lora2, expert: $0) } : [],
          bias: isShared ? layer.frozen.down.bias.map { weight($0, layer.path + ".down_proj.bias") } : nil)))
    guard let balance = balance(of: router.adapter) else { trap("\(router.path): its adapter has no balance loss") }
    backward(
      gate.logits,
      .routerGradient(Formula.RouterGradient(gate: gate, dw: gradient(gate.weights), policy: router.policy, balance: balance)))
    gradients[name(router.gate)] = .matrixGradient([reading(gradient(gate.logits), x, adapter: router.adapter)])
    return Formula.Reader(dy: gradient(gate.logits), weight: name(router.gate), branches: [], rows: nil)
  }
}

extension Provenances.Collected {
  /// Rows without experts that share a base product.
  fileprivate mutating func add(base: String, _ name: String, rows: String) {
    note(base)
    baseTerms["\(base).\(name).base.output", default: ([], [])].rows.append(rows)
  }

  /// An expert's rows that share a base product.
  fileprivate mutating func add(base: String, _ name: String, expert: Formula.ExpertTerm) {
    note(base)
    baseTerms["\(base).\(name).base.output", default: ([], [])].experts.append(expert)
  }

  private mutating func note(_ base: String) {
    if !bases.contains(base) { bases.append(base) }
  }
}
