import Conformance
import Platform
import Tensors
import Traces

// What follows from the runs: budgets and verdicts.
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

  /// What a tensor's error in a run is held against under the mode; an element rule of the user's needs no number.
  private func limit(_ rounding: MeanSquare, _ distance: Distance, _ roundoff: Double) -> Double {
    if request.mode == .referenceRatio { return (request.relative ?? 2) * rounding.root + 2 * roundoff * distance.norm }
    return Self.budget(rounding, norm: distance.norm, count: distance.count, roundoff: roundoff)
  }

  /// The report of all runs.
  func report(reference: String) -> ComparisonReport {
    let routing = routingAgreement()
    var judgements = records.map { name, record in judgement(name, record) } + choiceJudgements(routing)
    judgements.sort { (order.position($0.name), $0.name) < (order.position($1.name), $1.name) }
    var report = ComparisonReport(tensors: judgements, reference: reference, candidate: candidate.path, precision: precision)
    settlePropagation(&report)
    report.settleOptimizer(steps: steps.count)
    report.routing = routing
    report.notes += decisionFaults
    return report
  }

  /// Whose error it is: the operation's own, one that came from before, or a decision's. Whatever the mode, the local run answers the first
  /// question and the run with the candidate's decisions the last; the mode only says what is within.
  func judgement(_ name: String, _ record: Record) -> TensorJudgement {
    guard let local = record.local ?? record.whole ?? record.replayed else { return incomparable(name, record) }
    let roundoff = roundoff(of: name)
    let whole = (request.replaysRouting ? record.replayed ?? record.whole : record.whole ?? record.replayed) ?? local
    func relative(_ absolute: Double, _ norm: Double) -> Double { absolute == 0 ? 0 : norm > 0 ? absolute / norm : .infinity }
    let localLimit = limit(isFineLoss(name) ? record.fineRounding : record.localRounding, local, roundoff)
    let wholeLimit = max(limit(record.wholeRounding, whole, roundoff), localLimit)
    var judgement = empty(name, record)
    (judgement.error, judgement.budget) = (whole.relative, relative(wholeLimit, whole.norm))
    (judgement.localError, judgement.localBudget) = (local.relative, relative(localLimit, local.norm))
    (judgement.metrics, judgement.rule) = (record.metrics, rule)
    let isLocallyRight = local.isWithin(localLimit) && !(request.mode == .budget && hasWrongRow(record, local, roundoff))
    // A rule of the user's is about results; a budget is kept by the operation as well.
    let isWhollyRight = whole.isWithin(wholeLimit) && (rule != nil || isLocallyRight)
    if record.metrics.nonfinite > 0 || !isWhollyRight && !isLocallyRight {
      judgement.verdict = .mismatch
    } else if !isWhollyRight {
      let isRightReplayed = record.replayed.map { $0.isWithin(max(wholeLimit, limit(record.wholeRounding, $0, roundoff))) }
      judgement.verdict = isRightReplayed == true ? .routing : .propagated
    } else if record.whole == nil, record.replayed != nil, !request.replaysRouting {
      judgement.verdict = .routing  // rows of other tokens than the oracle by itself gives the expert
    }
    return judgement
  }

  /// A judgement without figures yet.
  private func empty(_ name: String, _ record: Record) -> TensorJudgement {
    TensorJudgement(
      name: name, phase: record.phase, kind: order[name]?.operation.rawValue ?? "tensor", equation: equation(of: name), shape: record.shape,
      error: 0, budget: 0, metrics: TensorMetrics(), verdict: .ok)
  }

  /// Where a tensor comes from. Losses behind steps come from the steps as well.
  private func equation(of name: String) -> String {
    let own = order[name]?.equation ?? ""
    guard name == "loss_curve", steps.count > 1, let update = order.names.first(where: { $0.contains("after.") }).flatMap({ order[$0] })
    else { return own }
    return "\(own), from the second on behind steps of AdamW: \(update.equation)"
  }

  /// Whether a single row is off by more than rounding makes of the worst one: a token among many hides in the norm of all.
  private func hasWrongRow(_ record: Record, _ local: Distance, _ roundoff: Double) -> Bool {
    rowBudget(record, local, roundoff).map { local.largestRow > $0 } ?? false
  }

  /// What rounding explains of the norm of a single row's difference; nil where rows are too short or too few to tell.
  func rowBudget(_ record: Record, _ local: Distance, _ roundoff: Double) -> Double? {
    guard let width = record.shape.last, width >= 8, local.count >= 4 * width, record.localRounding.samples > 0 else { return nil }
    let elements = Double(width * record.localRounding.samples)
    return 4 * (1 + 8 / elements.squareRoot()) * record.largestRounding + 4 * roundoff * local.largestRowNorm
  }

  /// Rows of an expert that serves other tokens than ours would, even with the candidate's decisions.
  private func incomparable(_ name: String, _ record: Record) -> TensorJudgement {
    var judgement = empty(name, record)
    (judgement.error, judgement.localError, judgement.localBudget, judgement.verdict) = (.infinity, .infinity, 0, .mismatch)
    return judgement
  }

  /// Errors that came from before need something that they came from: a wrong operation, or a decision that flipped. Where there is
  /// neither, every operation up to here is right on its own inputs, so the error is rounding that has grown: beyond our few rounded
  /// runs (a gradient that nearly cancels, a step of AdamW from a gradient that is nearly zero), or beyond the user's rule, which then
  /// is not kept although nothing is wrong.
  private func settlePropagation(_ report: inout ComparisonReport) {
    let firstFlip = report.tensors.firstIndex { $0.verdict == .routing && $0.name.hasSuffix(".choice") }
    let firstMismatch = report.tensors.firstIndex { $0.verdict == .mismatch }
    var grown: [String] = []
    for i in report.tensors.indices {
      let isAfterMismatch = firstMismatch.map { $0 < i } ?? false
      switch report.tensors[i].verdict {
      case .propagated where !isAfterMismatch:
        let isAfterFlip = firstFlip.map { $0 < i } ?? false
        if rule == nil { report.tensors[i].verdict = isAfterFlip ? .routing : .ok }
        if rule != nil || !isAfterFlip { grown.append(report.tensors[i].name) }
      case .routing where isAfterMismatch: report.tensors[i].verdict = .propagated
      default: break
      }
    }
    guard let first = grown.first else { return }
    let tensors = counted(grown.count, "tensor")
    report.notes.append(
      rule.map {
        "\(tensors), \(first) first, not within \($0.text) although each operation up to there is, by itself: rounding adds up; --mode budget says whether it explains all"
      } ?? "rounding grew beyond our own runs' in \(tensors), \(first) first, although each operation up to there is right by itself")
  }
}
