import Checkpoints
import Conformance
import Traces

extension Comparison {
  /// Judges a candidate by another file: a trace, or anything that has tensors of the same names.
  ///
  /// Nothing runs: a tensor's budget is four times the largest error that a right candidate was seen to have in a tensor of its kind
  /// (``Budget/figure(_:in:)``), and an operation cannot be judged by itself. One tensor at a time is in memory.
  ///
  /// - Throws: `CheckpointError` for files that are none, for a wrong shape, and where they have nothing in common.
  public static func report(
    of path: String, reference: String, rules: [CandidateNames.Rule] = [], request: ComparisonRequest = ComparisonRequest(),
    progress: (_ done: Int, _ of: Int) -> Void = { _, _ in }
  ) throws -> ComparisonReport {
    let golden = try Candidate(reference, names: CandidateNames())
    var candidate = try Candidate(path, names: CandidateNames(golden.tensors.keys, rules: rules))
    let precision = request.precision ?? max(candidate.precision, golden.precision)
    candidate.filter(request.isIncluded)
    let order = try TraceOrder.names(of: reference, among: golden)
    let common = order.filter { candidate.tensors[$0] != nil }
    guard !common.isEmpty else {
      throw CheckpointError(
        file: path, found: "nothing in common with \(reference)", expected: "tensors of the same names; --map translates")
    }
    var report = ComparisonReport(tensors: [], reference: reference, candidate: path, precision: precision)
    for (number, name) in common.enumerated() {
      progress(number, common.count)
      guard let theirs = candidate.tensors[name], let ours = golden.tensors[name] else { continue }
      report.tensors.append(try judgement(name, theirs, ours, precision, request))
    }
    report.missing = order.filter { candidate.tensors[$0] == nil && request.isIncluded($0) }
    report.unknown = candidate.unknown
    report.notes.append(
      "without a model each budget is four times the largest error seen in right candidates in \(precision.rawValue); with --model the oracle judges every operation by itself"
    )
    return report
  }

  private static func judgement(
    _ name: String, _ theirs: Candidate.Tensor, _ ours: Candidate.Tensor, _ precision: Precision, _ request: ComparisonRequest
  ) throws -> TensorJudgement {
    let (found, expected) = (theirs.entry.shape.filter { $0 != 1 }, ours.entry.shape.filter { $0 != 1 })
    guard found == expected else {
      throw CheckpointError(
        file: theirs.source.file, place: .tensor(theirs.entry.name), found: "shape \(theirs.entry.shape)",
        expected: "\(ours.entry.shape), as the reference has")
    }
    let (x, y) = (try theirs.values(), try ours.values())
    let roundoff = theirs.precision?.unitRoundoff ?? precision.unitRoundoff
    let metrics = TensorMetrics(x, y, shape: ours.entry.shape, roundoff: roundoff, isLogits: name == "logits")
    let distance = Distance(of: x, from: y)
    let budget = 4 * Budget.figure(of: name, in: precision)
    var judgement = TensorJudgement(
      name: name, phase: RunPhase.of(name), kind: Budget.Kind(ofTensor: name).rawValue, equation: "", shape: ours.entry.shape,
      error: distance.relative, budget: budget, metrics: metrics, verdict: .ok)
    let isRight: Bool
    switch request.mode {
    case .budget: isRight = distance.relative <= budget
    case .referenceRatio: isRight = distance.relative <= budget / 4 * (request.relative ?? 2)
    case .ulp: isRight = metrics.maxULP <= request.relative ?? 4
    case .allclose:
      let (relative, absolute) = (request.relative ?? 1e-5, request.absolute ?? 1e-8)
      isRight = zip(x, y).allSatisfy { $0 == $1 || abs($0 - $1) <= absolute + relative * abs($1) }
    case .exact: isRight = distance.difference == 0
    }
    if metrics.nonfinite > 0 || !isRight { judgement.verdict = .mismatch }
    return judgement
  }
}

/// The order in which a reference file says that its tensors were formed.
enum TraceOrder {
  static func names(of path: String, among golden: Candidate) throws -> [String] {
    let all = golden.tensors.keys.sorted()
    guard golden.metadata["order"] != nil, let trace = try? TraceFile(path: path) else {
      return all.sorted { (RunPhase.place($0), $0) < (RunPhase.place($1), $1) }
    }
    let known = Set(trace.names)
    return trace.names.filter { golden.tensors[$0] != nil } + all.filter { !known.contains($0) }
  }
}

/// When a tensor is formed, by its name.
enum RunPhase {
  static func of(_ name: String) -> String {
    let parts = name.split(separator: ".")
    let first = parts.first == "adapter" && parts.count > 2 ? parts[2] : parts.first ?? ""
    switch first {
    case "grad": return "backward"
    case "after", "loss_curve", "exp_avg", "exp_avg_sq": return "optimizer"
    default: return "forward"
    }
  }

  /// Roughly where a tensor stands in a run, where no file says it: phase, layer, module.
  static func place(_ name: String) -> Double {
    let phase = of(name)
    let rank = Double(["forward", "backward", "optimizer"].firstIndex(of: phase) ?? 0)
    let modules = [
      "input_layernorm", "q_proj", "k_proj", "v_proj", "rotated", "o_proj.input", "o_proj", "self_attn", "residual",
      "post_attention_layernorm",
      "moe_gate", "gate_proj", "up_proj", "hidden", "down_proj", "mlp",
    ]
    let layer = name.firstRange(of: "layers.").flatMap { Double(name[$0.upperBound...].prefix { $0 != "." }) }
    let module = Double(modules.firstIndex { name.contains($0) } ?? modules.count) / Double(modules.count + 1)
    let ends = ["embed_tokens", "model.norm", "lm_head", "router_logits", "logits", "loss", "aux_loss"]
    let end = Double(ends.lastIndex { name.hasSuffix($0) || name.contains("\($0).") } ?? 0)
    let forward = layer.map { 1 + $0 + module } ?? (name.contains("embed_tokens") ? 0 : 1e6 + end)
    return rank * 1e8 + (phase == "backward" ? 1e7 - forward : forward)
  }
}

private func max(_ a: Precision, _ b: Precision) -> Precision { a.unitRoundoff >= b.unitRoundoff ? a : b }
