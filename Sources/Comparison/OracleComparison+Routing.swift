import Conformance
import Decoders
import Layers
import Tensors
import Traces

// The decisions: whose agree, and which flips rounding explains.
extension OracleComparison {
  /// Our decisions beside the candidate's: those of the oracle by itself, and on the candidate's own input to each router.
  ///
  /// A decision that differs is a flip. It is explained if the oracle decides as the candidate did once it has the candidate's input (the
  /// error came from before), or if the margin between the experts that changed places, in logits on that input, is within rounding.
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
        layer.matrix = [[Int]](repeating: [Int](repeating: 0, count: experts), count: experts)
        for n in places.indices {
          let other = theirs[n * slots..<(n + 1) * slots].filter { $0 >= 0 }.map { Int($0) }
          func flip(_ all: [Double], _ noise: Double) -> RoutingFlip {
            let z = Array(all[n * experts..<(n + 1) * experts])
            return RoutingFlip(
              own: RoutingFlip.chosen(z, owner.mixture.policy), other: other, logits: z, policy: owner.mixture.policy, noise: noise,
              roundoff: precision.unitRoundoff)
          }
          let (whole, local) = (flip(logits.whole, logits.wholeNoise), flip(logits.local, logits.localNoise))
          layer.add(
            local.isFlip ? local : whole, isExplained: !local.isFlip || local.isWithin, row: places[n] / model.batch.columns,
            column: places[n] % model.batch.columns)
        }
        layers.append(layer)
      }
    }
    return layers.isEmpty ? nil : RoutingAgreement(layers: layers)
  }

  /// Replays the candidate's decisions in the passes behind the first step, of which no file has any.
  ///
  /// A decision that the candidate made otherwise it makes otherwise again as long as it stays as close: its margin at most four times the
  /// widest of its router's flips in the first pass. Every other one is ours.
  func laterHook(_ isFollowed: Bool) -> OracleHook<B> {
    var logits: [String: [Double]] = [:]
    let paths = isFollowed ? routerPaths : []
    return OracleHook(
      on: model.backend, paths.contains,
      see: { if $0.phase == .forward { logits[$0.path] = $0.values } },
      decide: { path, own in
        let output = path.dropLast(".choice".count) + ".output"
        guard let owner = self.model.layout.owner(ofPath: path), let theirs = self.rows.choices[path],
          let first = self.firstLogits[String(output)], let later = logits[String(output)], theirs.count == own.count,
          first.count == later.count
        else { return nil }
        return self.replayed(own, theirs, first: first, later: later, owner.mixture)
      })
  }

  private func replayed(
    _ own: [Int32], _ theirs: [Int32], first: [Double], later: [Double], _ mixture: AdapterConfiguration.Mixture
  ) -> [Int32] {
    let (experts, slots) = (mixture.experts, mixture.policy.slots(of: mixture.experts))
    func flip(_ n: Int, _ all: [Double], noise: Double) -> RoutingFlip {
      let z = Array(all[n * experts..<(n + 1) * experts])
      return RoutingFlip(
        own: RoutingFlip.chosen(z, mixture.policy), other: theirs[n * slots..<(n + 1) * slots].filter { $0 >= 0 }.map { Int($0) },
        logits: z,
        policy: mixture.policy, noise: noise, roundoff: precision.unitRoundoff)
    }
    let flips = (0..<own.count / slots).map { flip($0, first, noise: 0) }
    let widest = flips.lazy.filter(\.isFlip).map(\.margin).max() ?? 0
    var choice = own
    for n in flips.indices where flips[n].isFlip && flip(n, later, noise: widest).isWithin {
      choice.replaceSubrange(n * slots..<(n + 1) * slots, with: theirs[n * slots..<(n + 1) * slots])
    }
    return choice
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
    var judgement = TensorJudgement(
      name: name, phase: "forward", kind: order[name]?.operation.rawValue ?? "choice", equation: order[name]?.equation ?? "",
      shape: candidate.tensors[name]?.entry.shape ?? [], error: 0, budget: 0, metrics: TensorMetrics(), verdict: .ok)
    judgement.takeDecisions(layer)
    (judgement.localError, judgement.localBudget) = (judgement.error, judgement.budget)
    let expert = name.hasSuffix(".tokens") ? Int(name.split(separator: ".").dropLast().last ?? "") : nil
    let isOfAnother = expert.map { fault(inTokensOf: $0, gate, owner) != nil } ?? false
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

  /// What is wrong with the candidate's decisions, in words that name the row.
  var decisionFaults: [String] {
    let expertsTokens = model.layout.owners.flatMap { owner in
      model.layout.gates(of: owner).flatMap { gate in
        (0..<owner.mixture.experts).compactMap { fault(inTokensOf: $0, gate, owner) }
      }
    }
    return rows.wrongChoices.sorted { $0.key < $1.key }.map(\.value) + expertsTokens
  }

  /// What is wrong with the tokens that the candidate gives an expert: tokens are of the batch, and those that its choice gives it.
  private func fault(inTokensOf expert: Int, _ gate: String, _ owner: TraceLayout<B>.Owner) -> String? {
    let module = String(gate.dropLast(".moe_gate".count))
    guard let choice = rows.choices["\(gate).choice"], let tokens = (try? rows.recordedTokens(module, expert)) ?? nil else { return nil }
    let places = Array(model.layout.places(of: owner))
    let isToken = Set(places)
    let name = "\(module).experts.\(expert).tokens"
    if let fault = RecordedDecision.fault(inTokens: tokens, columns: model.batch.columns, isToken: isToken.contains) {
      return "\(name): \(fault)"
    }
    let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
    let own = Set(CandidateRows<B>.tokens(of: expert, in: choice, slots: slots).map { places[$0] })
    guard let other = own.symmetricDifference(tokens.map { Int($0) }).min() else { return nil }
    let place = RecordedDecision.place(other, model.batch.columns)
    return
      "\(name): the token in \(place) \(own.contains(other) ? "is missing, though the candidate's own choice gives it" : "is there, though the candidate's own choice does not give it")"
  }
}
