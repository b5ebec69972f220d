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
  }

  let tokens: Int
  let experts: Int
  let k: Int
  let choices: Choices

  var description: String { "N \(tokens) E \(experts) K \(k) \(choices)" }

  /// None, one and many tokens, an expert with all tokens, experts without any, K = E, E = K = 1.
  static let all = [
    PlanSizes(tokens: 0, experts: 4, k: 2, choices: .random), PlanSizes(tokens: 1, experts: 4, k: 2, choices: .random),
    PlanSizes(tokens: 7, experts: 4, k: 2, choices: .random), PlanSizes(tokens: 9, experts: 8, k: 1, choices: .allOn(5)),
    PlanSizes(tokens: 5, experts: 3, k: 3, choices: .random), PlanSizes(tokens: 6, experts: 1, k: 1, choices: .random),
    PlanSizes(tokens: 17, experts: 8, k: 2, choices: .withoutEnds), PlanSizes(tokens: 33, experts: 5, k: 2, choices: .allOn(4)),
    PlanSizes(tokens: 200, experts: 8, k: 2, choices: .random),  // for several threads
  ]

  /// The experts of each token: (N·K).
  func choice(_ source: inout RandomSource) -> [Int] {
    (0..<tokens).flatMap { _ -> [Int] in
      switch choices {
      case .random: source.distinct(k, below: experts)
      case .allOn(let first): (0..<k).map { (first + $0) % experts }
      case .withoutEnds: source.distinct(k, below: experts - 2).map { $0 + 1 }
      }
    }
  }

  /// A plan with probabilities of a random softmax; its weights are rounded to float32, so that every backend gets the same.
  func plan(_ source: inout RandomSource) -> Naive.Plan {
    let p = Naive.softmax(source.matrix(tokens, experts, 2))
    var plan = Naive.route(p, choice: choice(&source), k)
    plan.weights = plan.weights.map { Double(Float($0)) }
    return plan
  }
}

extension Trial {
  /// A plan on the device, put together by hand so that operations are judged apart from `route`.
  func routing(_ plan: Naive.Plan) -> Routing<B> {
    let counts = (0..<plan.experts).map { B.Scalar(plan.rows(of: $0).count) }
    return Routing(
      tokens: plan.tokens, experts: plan.experts, expertsPerToken: plan.expertsPerToken, choice: device(plan.choice),
      rowOfChoice: device(plan.rowOfChoice), tokenOfRow: device(plan.tokenOfRow), choiceOfRow: device(plan.choiceOfRow),
      offsets: device(plan.offsets), weights: backend.upload(plan.weights.map { B.Scalar($0) }, Shape(plan.rows)),
      counts: backend.upload(counts, Shape(plan.experts)),
      firstCounts: backend.upload(plan.firstCounts.map { B.Scalar($0) }, Shape(plan.experts)))
  }
}
