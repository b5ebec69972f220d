import Conformance
import Tensors
import Traces

// What follows from the runs: budgets, verdicts, the order of the run.
extension OracleComparison {
  /// What rounding explains of ‖candidate − reference‖₂ of a tensor.
  ///
  ///     budget = 4 (1 + 8/√(m S)) · root mean square over S rounded runs of ‖rounded − exact‖₂ + 2 u ‖reference‖₂
  ///
  /// m elements, u the candidate's unit roundoff. Errors of another kernel have the size of ours, not our values; the root mean square
  /// of few numbers is uncertain by about 1/√(m S), which the parenthesis covers generously, and 4 leaves room for kernels
  /// that round more often than ours. The last term is an ulp of the result as it is stored.
  static func budget(_ rounding: MeanSquare, norm: Double, count: Int, roundoff: Double) -> Double {
    let elements = Double(max(1, count) * max(1, rounding.samples))
    return 4 * (1 + 8 / elements.squareRoot()) * rounding.root + 2 * roundoff * norm
  }

  /// The report of all runs.
  func report(reference: String) -> ComparisonReport {
    let routing = routingAgreement()
    var judgements: [(key: (Double, Int), judgement: TensorJudgement)] = []
    let backwardOrder = Dictionary(
      records.filter { $0.value.phase == "backward" && $0.key.hasSuffix(".output") }.map { ($0.key, $0.value.order) }) { first, _ in first }
    for (name, record) in records {
      guard let judgement = judgement(name, record, routing) else { continue }
      judgements.append((orderKey(name, record, backwardOrder), judgement))
    }
    judgements += choiceJudgements(routing).enumerated().map { number, judgement in
      ((0.999 * position(choiceOrder["\(gate(judgement.name)).choice"] ?? 0), number), judgement)
    }
    judgements.sort { $0.key < $1.key }
    var report = ComparisonReport(
      tensors: judgements.map(\.judgement), reference: reference, candidate: candidate.path, precision: precision)
    settlePropagation(&report)
    report.routing = routing
    return report
  }

  private func gate(_ name: String) -> String {
    if name.hasSuffix(".choice") { return String(name.dropLast(".choice".count)) }
    return name.firstRange(of: ".experts.").map { "\(name[..<$0.lowerBound]).moe_gate" } ?? name
  }

  private func judgement(_ name: String, _ record: Record, _ routing: RoutingAgreement?) -> TensorJudgement? {
    guard let local = record.local ?? record.whole ?? record.replayed else { return incomparable(name, record) }
    let roundoff = candidate.tensors[name]?.precision?.unitRoundoff ?? precision.unitRoundoff
    let whole = record.whole ?? record.replayed ?? local
    func relative(_ absolute: Double, _ norm: Double) -> Double { absolute == 0 ? 0 : norm > 0 ? absolute / norm : .infinity }
    let localBudget = Self.budget(record.localRounding, norm: local.norm, count: local.count, roundoff: roundoff)
    let wholeBudget = max(Self.budget(record.wholeRounding, norm: whole.norm, count: whole.count, roundoff: roundoff), localBudget)
    var judgement = TensorJudgement(
      name: name, phase: record.phase, kind: Self.kind(name), equation: record.equation, shape: record.shape, error: whole.relative,
      budget: relative(wholeBudget, whole.norm), metrics: record.metrics, verdict: .ok)
    judgement.localError = local.relative
    judgement.localBudget = relative(localBudget, local.norm)
    let isLocallyRight: Bool
    var isWhollyRight = whole.difference <= wholeBudget
    switch request.mode {
    case .budget: isLocallyRight = local.difference <= localBudget
    case .referenceRatio:
      let ratio = request.relative ?? 2
      isLocallyRight = local.difference <= ratio * record.localRounding.root + 2 * roundoff * local.norm
      isWhollyRight = whole.difference <= ratio * record.wholeRounding.root + 2 * roundoff * whole.norm
    case .ulp:
      isLocallyRight = record.metrics.maxULP <= request.relative ?? 4
      isWhollyRight = isLocallyRight
    case .allclose:
      isLocallyRight = record.isUnderAllclose
      isWhollyRight = isLocallyRight
    case .exact:
      isLocallyRight = whole.difference == 0
      isWhollyRight = isLocallyRight
    }
    if record.metrics.nonfinite > 0 || !local.difference.isFinite || !isLocallyRight {
      judgement.verdict = .mismatch
    } else if !isWhollyRight {
      let replayed = record.replayed.map { $0.difference <= max(wholeBudget, Self.budget(record.wholeRounding, norm: $0.norm, count: $0.count, roundoff: roundoff)) }
      judgement.verdict = replayed == true ? .routing : .propagated
    }
    return judgement
  }

  /// Rows of an expert that serves other tokens than ours would, even with the candidate's decisions.
  private func incomparable(_ name: String, _ record: Record) -> TensorJudgement? {
    var metrics = TensorMetrics()
    metrics.count = 0
    var judgement = TensorJudgement(
      name: name, phase: record.phase, kind: Self.kind(name), equation: record.equation, shape: record.shape, error: .infinity, budget: 0,
      metrics: metrics, verdict: .mismatch)
    judgement.localError = .infinity
    judgement.localBudget = 0
    return judgement
  }

  /// Errors that came from before need something that they came from: after a flipped decision they are the routing's.
  private func settlePropagation(_ report: inout ComparisonReport) {
    let firstFlip = report.tensors.firstIndex { $0.verdict == .routing && $0.name.hasSuffix(".choice") }
    let firstMismatch = report.tensors.firstIndex { $0.verdict == .mismatch }
    for i in report.tensors.indices where report.tensors[i].verdict == .propagated {
      let isAfterMismatch = firstMismatch.map { $0 < i } ?? false
      if !isAfterMismatch, let firstFlip, firstFlip < i { report.tensors[i].verdict = .routing }
    }
  }

  // MARK: The order of the run

  /// Where a tensor stands in the order of the run.
  private func orderKey(_ name: String, _ record: Record?, _ backwardOrder: [String: Int]) -> (Double, Int) {
    let order = record?.order ?? 0
    let plain = name.hasPrefix("adapter.") ? name.split(separator: ".", maxSplits: 2).last.map(String.init) ?? name : name
    switch Self.phase(name) {
    case "forward":
      if plain == "router_logits" { return (1, 0) }
      if plain == "logits" || plain == "lm_head.output" { return (2, order) }
      if plain == "loss" { return (3, 0) }
      if plain == "aux_loss" { return (3, 1) }
      return (position(order), order)
    case "backward":
      if name.hasSuffix(".output") || name.hasSuffix(".hidden") || name.hasSuffix(".input") { return (4, order * 2) }
      return (4, parameterOrder(name, order, backwardOrder))
    default: return plain == "loss_curve" ? (5, 0) : (6, order)
    }
  }

  /// Forward values in the order in which they were met, all before 1.
  private func position(_ order: Int) -> Double { Double(order) / Double(records.count + 1) }

  /// A parameter's gradient is formed right behind the gradient of its module's output.
  private func parameterOrder(_ name: String, _ order: Int, _ backwardOrder: [String: Int]) -> Int {
    let parts = name.split(separator: ".").map(String.init)
    guard let layers = parts.firstIndex(of: "layers"), parts.indices.contains(layers + 1) else { return order * 2 + 1 }
    let layer = parts[layers + 1]
    var tail = parts[(layers + 2)...].filter { !["lora_A", "lora_B", "weight", "bias", "default"].contains($0) }
    var expert: String?
    if let experts = tail.firstIndex(of: "experts"), tail.indices.contains(experts + 1) {
      expert = tail[experts + 1]
      tail.removeSubrange(experts...experts + 1)
    }
    let (module, linear) = ("grad.model.layers.\(layer)", tail.last ?? "")
    let candidates =
      (expert.map { ["\(module).mlp.experts.\($0).\(linear).output", "\(module).mlp.experts.\($0).hidden", "\(module).mlp.\(linear).base.output"] } ?? [])
      + ["\(module).\(tail.joined(separator: ".")).output", "\(module).mlp.output"]
    if let found = candidates.lazy.compactMap({ backwardOrder[$0] }).first { return found * 2 + 1 }
    return order * 2 + 1
  }

  // MARK: Kinds

  /// The kind of a tensor's operation, by its name.
  static func kind(_ name: String) -> String {
    let phase = phase(name)
    let parts = name.split(separator: ".").map(String.init)
    if phase == "optimizer" { return parts.contains("loss_curve") ? "loss" : "optimizer" }
    let isGradient = phase == "backward"
    func kind(_ text: String) -> String { isGradient ? "\(text) gradient" : text }
    if parts.contains("lora_A") || parts.contains("lora_B") { return "LoRA gradient" }
    guard let last = parts.last else { return "tensor" }
    if last == "weight" || last == "bias" { return name.contains("moe_gate") ? "router gradient" : "weight gradient" }
    if name.contains("moe_gate") || last == "router_logits" { return kind("router") }
    if name.contains(".experts.") { return last == "tokens" ? "choice" : kind(last == "hidden" ? "gated" : "experts") }
    if last == "logits" || name.contains("lm_head") { return kind("logits") }
    if last == "loss" || last == "aux_loss" { return "loss" }
    if name.contains("norm") { return kind("norm") }
    if name.contains(".rotated") { return kind("rotary") }
    if name.contains("_proj.output") || name.contains(".base.output") { return kind("linear") }
    if name.contains("o_proj.input") { return kind("attention") }
    if last == "hidden" || name.contains("down_proj.input") { return kind("gated") }
    if name.contains("self_attn.output") { return kind("linear") }
    if name.contains("mlp.output") { return kind("experts") }
    if name.contains("embed_tokens") { return kind("embedding") }
    return kind("residual")
  }
}
