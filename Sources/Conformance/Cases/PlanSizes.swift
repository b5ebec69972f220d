import Tensors

/// Sizes of a routing plan and how its choices fall.
struct PlanSizes: CustomStringConvertible {
  /// How tokens choose.
  enum Choices {
    /// Any K different experts.
    case random
    /// This expert first of all, the next ones behind it.
    case allOn(Int)
    /// Any experts but the first and the last.
    case withoutEnds
    /// From none to K different experts, in any slots: −1 in the others.
    case some
  }

  let tokens: Int
  let experts: Int
  let k: Int
  let choices: Choices
  /// Rows that are nobody's.
  var spareRows = 0
  /// The threshold of top-P; nil for top-K.
  var threshold: Double?

  var policy: RoutingPolicy { threshold.map { .topP(threshold: $0, temperature: 0.75) } ?? .topK(k) }

  var description: String {
    "N \(tokens) E \(experts) \(threshold.map { "P \($0)" } ?? "K \(k)") \(choices)\(spareRows > 0 ? " spare \(spareRows)" : "")"
  }

  /// None, one and many tokens, an expert with all tokens, experts without any, K = E, E = K = 1; slots without an expert, tokens
  /// without any, rows that are nobody's.
  static let all = [
    PlanSizes(tokens: 0, experts: 4, k: 2, choices: .random), PlanSizes(tokens: 1, experts: 4, k: 2, choices: .random),
    PlanSizes(tokens: 7, experts: 4, k: 2, choices: .random), PlanSizes(tokens: 9, experts: 8, k: 1, choices: .allOn(5)),
    PlanSizes(tokens: 5, experts: 3, k: 3, choices: .random), PlanSizes(tokens: 6, experts: 1, k: 1, choices: .random),
    PlanSizes(tokens: 17, experts: 8, k: 2, choices: .withoutEnds), PlanSizes(tokens: 33, experts: 5, k: 2, choices: .allOn(4)),
    PlanSizes(tokens: 200, experts: 8, k: 2, choices: .random),  // for several threads
    PlanSizes(tokens: 9, experts: 5, k: 3, choices: .some), PlanSizes(tokens: 7, experts: 4, k: 2, choices: .some, spareRows: 5),
    PlanSizes(tokens: 8, experts: 3, k: 3, choices: .some, spareRows: 1, threshold: 0.6),
  ]

  /// The experts of each token: (N·K).
  func choice(_ source: inout RandomSource) -> [Int] {
    (0..<tokens).flatMap { _ -> [Int] in
      switch choices {
      case .random: source.distinct(k, below: experts)
      case .allOn(let first): (0..<k).map { (first + $0) % experts }
      case .withoutEnds: source.distinct(k, below: experts - 2).map { $0 + 1 }
      case .some: source.distinct(k, below: experts).map { source.integer(below: 2) == 0 ? -1 : $0 }
      }
    }
  }

  /// A plan with probabilities of a random softmax; its weights are rounded to float32, so that every backend gets the same.
  func plan(_ source: inout RandomSource) -> Naive.Plan {
    let p = Naive.softmax(source.matrix(tokens, experts, 2))
    var plan = Naive.route(p, choice: choice(&source), policy)
    plan.weights = plan.weights.map { Double(Float($0)) }
    plan.spareRows = spareRows
    return plan
  }
}

extension Trial {
  /// A plan on the device, put together by hand so that operations are judged apart from `route`.
  func routing(_ plan: Naive.Plan) -> Routing<B> {
    let counts = (0..<plan.experts).map { B.Scalar(plan.rows(of: $0).count) }
    let spare = [Int](repeating: -1, count: plan.spareRows)
    return Routing(
      policy: plan.policy, tokens: plan.tokens, experts: plan.experts, rows: plan.rows, choice: device(plan.choice),
      rowOfSlot: device(plan.rowOfSlot), tokenOfRow: device(plan.tokenOfRow + spare), slotOfRow: device(plan.slotOfRow + spare),
      offsets: device(plan.offsets), weights: device(inRows(plan.weights, plan)),
      counts: backend.upload(counts, Shape(plan.experts)),
      firstCounts: backend.upload(plan.firstCounts.map { B.Scalar($0) }, Shape(plan.experts)))
  }

  /// A number of each pair, NaN in the rows that are nobody's.
  func inRows(_ values: [Double], _ plan: Naive.Plan) -> [Double] { values + [Double](repeating: .nan, count: plan.spareRows) }

  /// A row of each pair, NaN in the rows that are nobody's.
  func inRows(_ m: Matrix, _ plan: Naive.Plan) -> Matrix {
    Matrix(plan.rows, m.columns, m.values + [Double](repeating: .nan, count: plan.spareRows * m.columns))
  }
}
