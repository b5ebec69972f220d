import Checkpoints
import Conformance
import Platform
import Traces

extension Comparison {
  /// Judges a candidate by another file: a trace, or anything that has tensors of the same names.
  ///
  /// Nothing runs: a tensor's budget is four times the largest error that a right candidate was seen to have in a tensor of its kind
  /// (``/Conformance/Budget/figure(_:in:)``), and an operation cannot be judged by itself. One tensor at a time is in memory.
  ///
  /// Decisions are compared as both files recorded them. An expert's rows are laid side by side token by token, and what a decision
  /// within rounding reaches is not judged: it may be anything.
  ///
  /// - Throws: `CheckpointError` for files that are none, for a wrong shape, and where they have nothing in common.
  public static func report(
    of path: String, reference: String, rules: [CandidateNames.Rule] = [], request: ComparisonRequest = ComparisonRequest(),
    progress: (_ done: Int, _ of: Int) -> Void = { _, _ in }
  ) throws -> ComparisonReport {
    let golden = try Candidate(reference, names: CandidateNames())
    let candidate = try Candidate(path, names: CandidateNames(golden.tensors.keys, rules: rules))
    let precision = request.precision ?? max(candidate.precision, golden.precision)
    let order = RunOrder(of: golden).names
    let common = order.filter { candidate.tensors[$0] != nil }
    guard !common.isEmpty else { throw candidate.nothingInCommon(with: reference, expected: "tensors of the same names") }
    let routing = try FileRouting(golden, candidate, order, precision)
    let judged = try request.included(common, of: path)
    let sides = FileComparison(routing: routing, precision: precision, request: request)
    var report = ComparisonReport(tensors: [], reference: reference, candidate: path, precision: precision)
    for (number, name) in judged.enumerated() {
      progress(number, judged.count)
      guard let theirs = candidate.tensors[name], let ours = golden.tensors[name] else { continue }
      report.tensors.append(try sides.judgement(name, theirs, ours))
    }
    report.routing = routing.agreement
    report.settleOptimizer(steps: golden.tensors["loss_curve"]?.entry.shape.last ?? 1)
    report.missing = order.filter { candidate.tensors[$0] == nil && request.isIncluded($0) }
    report.unknown = candidate.unknown
    report.notes = sides.notes(on: report)
    return report
  }
}

/// Two files' tensors side by side.
private struct FileComparison {
  let routing: FileRouting
  let precision: Precision
  let request: ComparisonRequest

  func judgement(_ name: String, _ theirs: Candidate.Tensor, _ ours: Candidate.Tensor) throws -> TensorJudgement {
    if let (layer, verdict) = routing.verdict(of: name) { return decision(name, ours, layer, verdict) }
    var (shape, pairing) = (ours.entry.shape, routing.pairing(of: name))
    if let rows = pairing {
      for (tensor, count) in [(ours, rows.counts.ours), (theirs, rows.counts.theirs)]
      where tensor.entry.shape.count != 2 || tensor.entry.shape[0] != count || tensor.entry.shape[1] != shape.last {
        throw wrongShape(tensor, "(\(count), \(shape.last ?? 0)), as many rows as its file gives the expert tokens")
      }
      shape[0] = rows.ours.count
    } else if theirs.entry.shape.filter({ $0 != 1 }) != shape.filter({ $0 != 1 }) {
      let isOfExpert = name.contains(".experts.") && !name.hasSuffix(".weight")
      throw wrongShape(theirs, "\(shape), as the reference has\(isOfExpert ? ", or the expert's tokens in both files" : "")")
    }
    let width = shape.count > 1 ? max(1, shape.last ?? 1) : 1
    func values(_ tensor: Candidate.Tensor, _ rows: [Int]?) throws -> [Double] {
      let all = try tensor.values()
      return rows.map { Self.rows($0, of: all, width) } ?? all
    }
    let (x, y) = (routing.inOrder(try values(theirs, pairing?.theirs), of: name), try values(ours, pairing?.ours))
    let roundoff = theirs.precision?.unitRoundoff ?? precision.unitRoundoff
    var metrics = TensorMetrics(x, y, shape: shape, roundoff: roundoff, isLogits: name == "logits")
    if let rows = pairing?.ours {
      for index in [\TensorMetrics.worstIndex, \.firstIndex] where !metrics[keyPath: index].isEmpty {
        metrics[keyPath: index][0] = rows[metrics[keyPath: index][0]]
      }
    }
    let rule = ElementRule(request)
    let budget = Budget.figure(of: name, in: precision) * (request.mode == .referenceRatio ? request.relative ?? 2 : 4)
    func distance(_ x: [Double], _ y: [Double]) -> Distance {
      var distance = Distance(of: x, from: y)
      distance.agrees = rule?.agrees(x, y, roundoff: roundoff)
      return distance
    }
    let whole = distance(x, y)
    var judgement = TensorJudgement(
      name: name, phase: RunOrder.phase(of: name).rawValue, kind: Budget.Kind(ofTensor: name).rawValue, equation: "",
      shape: ours.entry.shape,
      error: whole.relative, budget: budget, metrics: metrics, verdict: .ok)
    judgement.rule = rule
    if metrics.nonfinite > 0 {
      judgement.verdict = .mismatch
    } else if whole.isWithin(budget * whole.norm) {
      if let pairing, !pairing.isComplete { judgement.verdict = pairing.isExplained ? .routing : .propagated }
    } else if let rows = routing.unreached(name, rows: y.count / width, tokens: pairing?.tokens) {
      let kept = distance(Self.rows(rows, of: x, width), Self.rows(rows, of: y, width))
      judgement.verdict = kept.isWithin(budget * kept.norm) ? .routing : .mismatch
    } else {
      judgement.verdict = .mismatch
    }
    return judgement
  }

  private func decision(
    _ name: String, _ ours: Candidate.Tensor, _ layer: RoutingAgreement.Layer, _ verdict: TensorJudgement.Verdict
  ) -> TensorJudgement {
    var judgement = TensorJudgement(
      name: name, phase: "forward", kind: Budget.Kind(ofTensor: name).rawValue, equation: "", shape: ours.entry.shape, error: 0, budget: 0,
      metrics: TensorMetrics(), verdict: verdict)
    judgement.takeDecisions(layer)
    if verdict == .mismatch { judgement.error = max(judgement.error, 1) }
    return judgement
  }

  private static func rows(_ rows: [Int], of values: [Double], _ width: Int) -> [Double] {
    rows.flatMap { values[$0 * width..<($0 + 1) * width] }
  }

  private func wrongShape(_ tensor: Candidate.Tensor, _ expected: String) -> CheckpointError {
    CheckpointError(
      file: tensor.source.file, place: .tensor(tensor.entry.name), found: "shape \(tensor.entry.shape)", expected: expected)
  }

  func notes(on report: ComparisonReport) -> [String] {
    var notes = routing.faults
    let figures = "the largest error seen in right candidates of tiny models in \(precision.rawValue)"
    let rule = ElementRule(request).map { "each element is held against \($0.text)" }
    notes.append(
      (rule ?? (request.mode == .budget ? "each budget is 4 × \(figures)" : "each budget is \(plain(request.relative ?? 2)) × \(figures)"))
        + ": without a model nobody sees how rounding grows in this run, and in many layers it grows further; with --model and --batch budgets are derived from the run itself, and every operation is judged alone"
    )
    let unjudged = report.tensors.filter { $0.verdict == .routing && !$0.name.hasSuffix(".choice") && !$0.name.hasSuffix(".tokens") }
    if let first = unjudged.first {
      notes.append(
        "\(counted(unjudged.count, "tensor")), \(first.name) first, not judged where a decision that fell the other way within rounding reaches; --model judges them with the candidate's decisions"
      )
    }
    let both = report.tensors.filter { $0.metrics.nonfiniteOnBothSides > 0 }
    if let first = both.first {
      notes.append(
        "\(counted(first.metrics.nonfiniteOnBothSides, "value")) of \(first.name) not finite on both sides\(both.count > 1 ? ", and values of \(both.count - 1) more" : ""): taken for no difference"
      )
    }
    return notes
  }
}

private func max(_ a: Precision, _ b: Precision) -> Precision { a.unitRoundoff >= b.unitRoundoff ? a : b }
