import Checkpoints
import Conformance

extension ComparisonReport {
  /// The report for programs: an object a tensor in the order of the run, at the end one for the whole, each without line breaks.
  ///
  /// Figures that are not finite are `null`, and so is what is not known.
  public var jsonLines: [String] { tensors.map { $0.json.serialized() } + [summary.serialized()] }

  private var summary: JSON {
    let counts = TensorJudgement.Verdict.allCases.map { verdict in
      (verdict.rawValue, JSON(tensors.count { $0.verdict == verdict }))
    }
    return .members([
      ("verdict", JSON(matches ? "match" : "mismatch")), ("compared", JSON(tensors.count)),
      ("first", .optional(first.map { JSON($0.name) })), ("operation", .optional(first.map { JSON($0.module) })),
      ("phase", .optional(first.map { JSON($0.phase) })), ("equation", .optional(first.map { JSON($0.equation) })),
      ("causes", .array(causes.map { JSON($0.text) })), ("missing", .array(missing.map { JSON($0) })),
      ("unknown", .array(unknown.map { JSON($0) })), ("routing", .optional(routing?.json)),
      // beyond the contract
      ("counts", .members(counts)),
      (
        "cause_details",
        .array(causes.map { ["name": JSON($0.name), "text": JSON($0.text), "remaining": .optional($0.remaining.map { JSON($0) })] })
      ),
      ("notes", .array(notes.map { JSON($0) })), ("reference", JSON(reference)), ("candidate", JSON(candidate)),
      ("precision", JSON(precision.rawValue)),
    ])
  }
}

extension TensorJudgement {
  fileprivate var json: JSON {
    let (m, worst) = (metrics, metrics.worstValues)
    return .members([
      ("tensor", JSON(name)), ("phase", JSON(phase)), ("shape", .integers(shape)), ("error", JSON(error)), ("max_abs", JSON(m.maxAbsolute)),
      ("worst_index", .integers(m.worstIndex)), ("budget", JSON(budget)), ("ratio", JSON(ratio)),
      ("local_error", .optional(localError.map { JSON($0) })), ("local_budget", .optional(localBudget.map { JSON($0) })),
      ("nonfinite", JSON(m.nonfinite)), ("verdict", JSON(verdict.rawValue)),
      // beyond the contract
      ("local_ratio", .optional(localRatio.map { JSON($0) })), ("operation", JSON(operation)), ("kind", JSON(kind)),
      ("equation", JSON(equation)), ("first_index", .integers(m.firstIndex)), ("worst_candidate", JSON(worst.candidate)),
      ("worst_reference", JSON(worst.reference)), ("mean_abs", JSON(m.meanAbsolute)), ("p99_abs", JSON(m.p99Absolute)),
      ("max_rel", JSON(m.maxRelative)), ("max_ulp", JSON(m.maxULP)), ("p99_ulp", JSON(m.p99ULP)), ("cosine", JSON(m.cosine)),
      ("norm", JSON(m.norm)), ("top1_agreement", .optional(m.logits.map { JSON($0.agreement) })),
      ("kl_divergence", .optional(m.logits.map { JSON($0.divergence) })),
    ])
  }
}

extension RoutingAgreement {
  fileprivate var json: JSON {
    [
      "decisions": JSON(decisions), "flips": JSON(flips), "explained": JSON(explained),
      "layers": .array(
        layers.map { layer in
          [
            "path": JSON(layer.path), "decisions": JSON(layer.decisions), "flips": JSON(layer.flips), "explained": JSON(layer.explained),
            "matrix": .array(layer.matrix.map { .integers($0) }),
            "widest": .optional(
              layer.widest.map { w in
                [
                  "row": JSON(w.row), "column": JSON(w.column), "reference": JSON(w.reference), "candidate": JSON(w.candidate),
                  "margin": JSON(w.margin), "budget": JSON(w.budget),
                ]
              }),
          ]
        }),
    ]
  }
}

extension JSON {
  fileprivate static func optional(_ value: JSON?) -> JSON { value ?? .null }
  fileprivate static func integers(_ values: [Int]) -> JSON { .array(values.map { JSON($0) }) }
  fileprivate static func members(_ members: [(key: String, value: JSON)]) -> JSON {
    var object = Object()
    for (key, value) in members { object[key] = value }
    return .object(object)
  }
}
