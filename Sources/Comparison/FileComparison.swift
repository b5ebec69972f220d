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
    candidate.filter(request.isIncluded)
    let order = try TraceOrder.names(of: reference, among: golden)
    let common = order.filter { candidate.tensors[$0] != nil }
    guard !common.isEmpty else {
      throw CheckpointError(
        file: path, found: "nothing in common with \(reference)", expected: "tensors of the same names; --map translates")
    }
    let precision = request.precision ?? max(candidate.precision, golden.precision)
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
      return all.sorted { (RunPhase.rank($0), $0) < (RunPhase.rank($1), $1) }
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

  static func rank(_ name: String) -> Int { ["forward", "backward", "optimizer"].firstIndex(of: of(name)) ?? 0 }
}

/// ‖candidate − reference‖₂ and ‖reference‖₂.
struct Distance {
  var difference = 0.0
  var norm = 0.0
  var count = 0

  init(of a: [Double], from b: [Double]) {
    for i in b.indices {
      let (x, y) = (a[i], b[i])
      norm += y * y
      if x == y || (x.isNaN && y.isNaN) { continue }
      difference += (x - y) * (x - y)
    }
    difference = difference.isNaN ? .infinity : difference.squareRoot()
    (norm, count) = (norm.squareRoot(), b.count)
  }

  var relative: Double { difference == 0 ? 0 : norm > 0 ? difference / norm : .infinity }
}

private func max(_ a: Precision, _ b: Precision) -> Precision { a.unitRoundoff >= b.unitRoundoff ? a : b }
