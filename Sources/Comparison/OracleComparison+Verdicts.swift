import Conformance
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

  /// The report of all runs.
  func report(reference: String) -> ComparisonReport {
    let routing = routingAgreement()
    var judgements = records.map { name, record in judgement(name, record) } + choiceJudgements(routing)
    judgements.sort { (order.position($0.name), $0.name) < (order.position($1.name), $1.name) }
    var report = ComparisonReport(tensors: judgements, reference: reference, candidate: candidate.path, precision: precision)
    settlePropagation(&report)
    report.routing = routing
    return report
  }

  func judgement(_ name: String, _ record: Record) -> TensorJudgement {
    guard let local = record.local ?? record.whole ?? record.replayed else { return incomparable(name, record) }
    let roundoff = candidate.tensors[name]?.precision?.unitRoundoff ?? precision.unitRoundoff
    let whole = (request.replaysRouting ? record.replayed ?? record.whole : record.whole ?? record.replayed) ?? local
    func relative(_ absolute: Double, _ norm: Double) -> Double { absolute == 0 ? 0 : norm > 0 ? absolute / norm : .infinity }
    let localRounding = isFineLoss(name) ? record.fineRounding : record.localRounding
    let localBudget = Self.budget(localRounding, norm: local.norm, count: local.count, roundoff: roundoff)
    let wholeBudget = max(Self.budget(record.wholeRounding, norm: whole.norm, count: whole.count, roundoff: roundoff), localBudget)
    var judgement = TensorJudgement(
      name: name, phase: record.phase, kind: order[name]?.operation.rawValue ?? "tensor", equation: order[name]?.equation ?? "",
      shape: record.shape, error: whole.relative, budget: relative(wholeBudget, whole.norm), metrics: record.metrics, verdict: .ok)
    judgement.localError = local.relative
    judgement.localBudget = relative(localBudget, local.norm)
    /// Only a finite error within a finite budget passes.
    func isWithin(_ error: Double, _ budget: Double) -> Bool { error.isFinite && budget.isFinite && error <= budget }
    let isLocallyRight: Bool
    var isWhollyRight = isWithin(whole.difference, wholeBudget)
    switch request.mode {
    case .budget: isLocallyRight = isWithin(local.difference, localBudget) && !hasWrongRow(record, local, roundoff)
    case .referenceRatio:
      let ratio = request.relative ?? 2
      isLocallyRight = isWithin(local.difference, ratio * record.localRounding.root + 2 * roundoff * local.norm)
      isWhollyRight = isWithin(whole.difference, ratio * record.wholeRounding.root + 2 * roundoff * whole.norm)
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
    if record.metrics.nonfinite > 0 || !isLocallyRight {
      judgement.verdict = .mismatch
    } else if !isWhollyRight {
      let replayed = record.replayed.map {
        isWithin($0.difference, max(wholeBudget, Self.budget(record.wholeRounding, norm: $0.norm, count: $0.count, roundoff: roundoff)))
      }
      judgement.verdict = replayed == true ? .routing : .propagated
    }
    return judgement
  }

  /// Whether a single row is off by more than rounding makes of the worst one: a token among many hides in the norm of all.
  private func hasWrongRow(_ record: Record, _ local: Distance, _ roundoff: Double) -> Bool {
    guard let width = record.shape.last, width >= 8, local.count >= 4 * width, record.localRounding.samples > 0 else { return false }
    let elements = Double(width * record.localRounding.samples)
    return local.largestRow > 4 * (1 + 8 / elements.squareRoot()) * record.largestRounding + 4 * roundoff * local.largestRowNorm
  }

  /// Rows of an expert that serves other tokens than ours would, even with the candidate's decisions.
  private func incomparable(_ name: String, _ record: Record) -> TensorJudgement {
    var judgement = TensorJudgement(
      name: name, phase: record.phase, kind: order[name]?.operation.rawValue ?? "tensor", equation: order[name]?.equation ?? "",
      shape: record.shape, error: .infinity, budget: 0,
      metrics: TensorMetrics(), verdict: .mismatch)
    judgement.localError = .infinity
    judgement.localBudget = 0
    return judgement
  }

  /// Errors that came from before need something that they came from: a wrong operation, or a decision that flipped. Where there is
  /// neither, every operation up to here is right on its own inputs, so the error is rounding that has grown further than in our few
  /// rounded runs (a gradient that nearly cancels, a step of AdamW from a gradient that is nearly zero).
  private func settlePropagation(_ report: inout ComparisonReport) {
    let firstFlip = report.tensors.firstIndex { $0.verdict == .routing && $0.name.hasSuffix(".choice") }
    let firstMismatch = report.tensors.firstIndex { $0.verdict == .mismatch }
    var grown: [String] = []
    for i in report.tensors.indices {
      let isAfterMismatch = firstMismatch.map { $0 < i } ?? false
      switch report.tensors[i].verdict {
      case .propagated where !isAfterMismatch:
        let isAfterFlip = firstFlip.map { $0 < i } ?? false
        report.tensors[i].verdict = isAfterFlip ? .routing : .ok
        if !isAfterFlip { grown.append(report.tensors[i].name) }
      case .routing where isAfterMismatch: report.tensors[i].verdict = .propagated
      default: break
      }
    }
    if let first = grown.first {
      report.notes.append(
        "rounding grew beyond our own runs' in \(grown.count) tensors, \(first) first, although each operation up to there is right by itself"
      )
    }
  }
}
