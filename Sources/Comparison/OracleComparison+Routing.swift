import Conformance
import Layers
import Tensors
import Traces

// The decisions: whose agree, and which flips rounding explains.
extension OracleComparison {
  /// Our decisions beside the candidate's: those of the oracle by itself, and on the candidate's own input to each router.
  ///
  /// A decision that differs is a flip. It is explained if the oracle decides as the candidate did once it has the candidate's input (the
  /// error came from before), or if the margin between the experts that changed places, in logits on that input, is at most
  /// four times what rounding makes of a logit (COMPARE.md: at the first layer that flips, margin / largest error is at most 2 in theory
  /// and 1.82 measured).
  func routingAgreement() -> RoutingAgreement? {
    var layers: [RoutingAgreement.Layer] = []
    for owner in model.layout.owners {
      let experts = owner.mixture.experts
      let slots = owner.mixture.policy.slots(of: experts)
      let places = Array(model.layout.places(of: owner))
      for gate in model.layout.gates(of: owner) {
        guard let logits = gates[gate], let theirs = rows.choices[gate + ".choice"], logits.local.count == places.count * experts,
          logits.whole.count == logits.local.count, theirs.count == places.count * slots
        else { continue }
        var layer = RoutingAgreement.Layer(path: gate)
        layer.decisions = places.count
        layer.matrix = [[Int]](repeating: [Int](repeating: 0, count: experts), count: experts)
        for n in places.indices {
          let other = theirs[n * slots..<(n + 1) * slots].filter { $0 >= 0 }.map { Int($0) }
          func flip(_ all: [Double], _ noise: Double) -> Flip {
            Flip(Array(all[n * experts..<(n + 1) * experts]), other, owner.mixture.policy, noise: noise, roundoff: precision.unitRoundoff)
          }
          let (whole, local) = (flip(logits.whole, logits.wholeNoise), flip(logits.local, logits.localNoise))
          let shown = local.isFlip ? local : whole
          for e in shown.own where other.contains(e) { layer.matrix[e][e] += 1 }
          for (r, c) in zip(shown.lost, shown.gained) { layer.matrix[r][c] += 1 }
          guard shown.isFlip else { continue }
          layer.flips += 1
          let isExplained = !local.isFlip || local.margin <= local.budget
          let isFirstUnexplained = !isExplained && layer.explained == layer.flips - 1
          if isExplained { layer.explained += 1 }
          // What is not explained is shown first, then the widest margin.
          let isShown = !isExplained || layer.flips == layer.explained
          if isFirstUnexplained || isShown && shown.margin > (layer.widest?.margin ?? -1) {
            layer.widest = (
              places[n] / model.batch.columns, places[n] % model.batch.columns, shown.lost.first ?? -1, shown.gained.first ?? -1,
              shown.margin,
              shown.budget
            )
          }
        }
        layers.append(layer)
      }
    }
    return layers.isEmpty ? nil : RoutingAgreement(layers: layers)
  }

  /// A token's decision beside the candidate's.
  private struct Flip {
    let own: [Int]
    /// Experts that the candidate dropped, and those that it took instead.
    let lost: [Int], gained: [Int]
    /// How far the logits are from the candidate's decision, and what rounding explains of that.
    let margin: Double, budget: Double
    var isFlip: Bool { !lost.isEmpty || !gained.isEmpty }

    init(_ z: [Double], _ other: [Int], _ policy: RoutingPolicy, noise: Double, roundoff: Double) {
      let own = OracleComparison.chosen(z, policy)
      let (lost, gained) = (own.filter { !other.contains($0) }, other.filter { !own.contains($0) })
      (self.own, self.lost, self.gained) = (own, lost, gained)
      budget = 4 * max(noise, roundoff * (z.map { abs($0) }.max() ?? 0))
      margin = lost.isEmpty && gained.isEmpty ? 0 : OracleComparison.margin(z, lost, gained, policy, own)
    }
  }

  /// The experts that a policy picks, largest first, ties to the lower index.
  static func chosen(_ z: [Double], _ policy: RoutingPolicy) -> [Int] {
    let order = z.indices.sorted { (z[$1], $0) < (z[$0], $1) }
    switch policy {
    case .topK(let k): return Array(order.prefix(k))
    case .topP(let threshold, let temperature):
      let p = probabilities(z)
      let t = temperature > 0 ? temperature : 1
      var (sum, count) = (0.0, 0)
      for e in order {
        sum += p[e] / t
        count += 1
        if sum > threshold { break }
      }
      return Array(order.prefix(count))
    }
  }

  static func probabilities(_ z: [Double]) -> [Double] {
    let largest = z.max() ?? 0
    let e = z.map { Double.exp($0 - largest) }
    let sum = e.reduce(0, +)
    return e.map { $0 / sum }
  }

  /// How far the logits are from the candidate's decision: the widest gap between an expert that was dropped and one that was taken; with
  /// top-p, where the candidate stopped earlier or later in the same order, the distance of that sum from the threshold, in logits.
  fileprivate static func margin(_ z: [Double], _ lost: [Int], _ gained: [Int], _ policy: RoutingPolicy, _ own: [Int]) -> Double {
    if !lost.isEmpty, !gained.isEmpty {
      return max(0, (lost.map { z[$0] }.max() ?? 0) - (gained.map { z[$0] }.min() ?? 0))
    }
    guard case .topP(let threshold, let temperature) = policy else { return .infinity }
    let t = temperature > 0 ? temperature : 1
    let order = z.indices.sorted { (z[$1], $0) < (z[$0], $1) }
    let count = own.count - lost.count + gained.count
    guard count > 0, Set(order.prefix(count)) == Set(own).subtracting(lost).union(gained) else { return .infinity }
    // The sum that the candidate stopped at, or the last one that it went on from.
    let p = probabilities(z)
    let sums = lost.isEmpty ? own.count..<count : count..<own.count
    let farthest = sums.map { n in abs(order.prefix(n).reduce(0) { $0 + p[$1] / t } - threshold) }.max() ?? 0
    return 2 * t * farthest  // ∂Σp/∂z is at most 1/2: an error δ of every logit moves the sum of p/t by δ/(2t) at most
  }

  /// Judgements of what the candidate has of decisions: `choice` and the experts' `tokens`.
  func choiceJudgements(_ routing: RoutingAgreement?) -> [TensorJudgement] {
    var judgements: [TensorJudgement] = []
    for owner in model.layout.owners {
      for gate in model.layout.gates(of: owner) {
        let module = String(gate.dropLast(".moe_gate".count))
        let layer = routing?.layers.first { $0.path == gate }
        let names = ["\(gate).choice"] + (0..<owner.mixture.experts).map { "\(module).experts.\($0).tokens" }
        for name in names where candidate.tensors[name] != nil && request.isIncluded(name) {
          judgements.append(choiceJudgement(name, gate, owner, layer))
        }
      }
    }
    return judgements
  }

  private func choiceJudgement(
    _ name: String, _ gate: String, _ owner: TraceLayout<B>.Owner, _ layer: RoutingAgreement.Layer?
  ) -> TensorJudgement {
    let decisions = Double(max(1, layer?.decisions ?? 1))
    let flips = Double(layer?.flips ?? 0)
    var metrics = TensorMetrics()
    metrics.count = layer?.decisions ?? 0
    if let widest = layer?.widest {
      metrics.worstIndex = [widest.row, widest.column]
      metrics.worstValues = (Double(widest.candidate), Double(widest.reference))
    }
    var judgement = TensorJudgement(
      name: name, phase: "forward", kind: order[name]?.operation.rawValue ?? "choice", equation: order[name]?.equation ?? "",
      shape: candidate.tensors[name]?.entry.shape ?? [], error: flips / decisions, budget: Double(layer?.explained ?? 0) / decisions,
      metrics: metrics, verdict: .ok)
    judgement.localError = judgement.error
    judgement.localBudget = judgement.budget
    let isOfAnother = name.hasSuffix(".tokens") && !tokensFollowChoice(name, gate, owner)
    if rows.wrongChoices["\(gate).choice"] != nil || isOfAnother {
      judgement.verdict = .mismatch
      judgement.error = max(judgement.error, 1)
      judgement.localError = judgement.error
    } else if let layer, layer.flips > 0 {
      // A flip that the candidate's own input explains is the routing's, or what an error before it led to.
      judgement.verdict = layer.flips == layer.explained ? .routing : logitsAreWrong(gate) ? .propagated : .mismatch
    }
    return judgement
  }

  /// Whether the router's own logits are wrong on their input, which then explains the decisions.
  private func logitsAreWrong(_ gate: String) -> Bool {
    let name = "\(gate).output"
    return records[name].map { judgement(name, $0) }?.verdict == .mismatch
  }

  private func tokensFollowChoice(_ name: String, _ gate: String, _ owner: TraceLayout<B>.Owner) -> Bool {
    let module = String(gate.dropLast(".moe_gate".count))
    guard let expert = Int(name.dropFirst("\(module).experts.".count).prefix { $0 != "." }),
      let tokens = try? rows.tokens(module, expert)
    else { return false }
    guard let choice = rows.choices["\(gate).choice"] else { return true }  // nothing to follow
    let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
    let places = Array(model.layout.places(of: owner))
    let own = CandidateRows<B>.tokens(of: expert, in: choice, slots: slots).map { places[$0] }
    return Set(own) == Set(tokens) && own.count == tokens.count
  }
}
