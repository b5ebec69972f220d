import Tensors

/// A token's decision beside the candidate's.
struct RoutingFlip {
  /// The experts of the reference, largest first.
  let own: [Int]
  /// Experts that the candidate dropped, and those that it took instead.
  let lost: [Int], gained: [Int]
  /// How far the reference's logits are from the candidate's decision, and what rounding explains of that.
  let margin: Double, budget: Double
  var isFlip: Bool { !lost.isEmpty || !gained.isEmpty }
  /// Whether rounding explains it.
  var isWithin: Bool { margin <= budget }

  /// What one logit may be off by, at least a rounding of the largest one; four times that explains a margin (COMPARE.md: at the first
  /// layer that flips, margin / largest error is at most 2 in theory and 1.82 measured).
  ///
  /// - Parameters:
  ///   - own: what the reference chose by its logits z, largest first.
  ///   - other: what the candidate chose.
  ///   - policy: nil where nobody knows it: how far top-p is from another number of experts is not known then.
  init(own: [Int], other: [Int], logits z: [Double], policy: RoutingPolicy?, noise: Double, roundoff: Double) {
    let (lost, gained) = (own.filter { !other.contains($0) }, other.filter { !own.contains($0) })
    (self.own, self.lost, self.gained) = (own, lost, gained)
    budget = 4 * max(noise, roundoff * (z.map { abs($0) }.max() ?? 0))
    margin = lost.isEmpty && gained.isEmpty ? 0 : Self.margin(z, lost, gained, policy, own)
  }

  /// The experts that a policy picks, largest first, ties to the lower index.
  static func chosen(_ z: [Double], _ policy: RoutingPolicy) -> [Int] {
    let order = z.indices.sorted { (z[$1], $0) < (z[$0], $1) }
    switch policy {
    case .topK(let k): return Array(order.prefix(k))
    case .topP(let threshold, let temperature):
      let p = probabilities(z)
      let t = temperature > 0 ? temperature : 1
      var (sum, count) = (0.0, 0)
      for e in order {
        sum += p[e] / t
        count += 1
        if sum > threshold { break }
      }
      return Array(order.prefix(count))
    }
  }

  static func probabilities(_ z: [Double]) -> [Double] {
    let largest = z.max() ?? 0
    let e = z.map { Double.exp($0 - largest) }
    let sum = e.reduce(0, +)
    return e.map { $0 / sum }
  }

  /// How far the logits are from the candidate's decision: the widest gap between an expert that was dropped and one that was taken; with
  /// top-p, where the candidate stopped earlier or later in the same order, the distance of that sum from the threshold, in logits.
  private static func margin(_ z: [Double], _ lost: [Int], _ gained: [Int], _ policy: RoutingPolicy?, _ own: [Int]) -> Double {
    guard (lost + gained).allSatisfy(z.indices.contains) else { return .infinity }
    if !lost.isEmpty, !gained.isEmpty {
      return max(0, (lost.map { z[$0] }.max() ?? 0) - (gained.map { z[$0] }.min() ?? 0))
    }
    guard case .topP(let threshold, let temperature)? = policy else { return .infinity }
    let t = temperature > 0 ? temperature : 1
    let order = z.indices.sorted { (z[$1], $0) < (z[$0], $1) }
    let count = own.count - lost.count + gained.count
    guard count > 0, Set(order.prefix(count)) == Set(own).subtracting(lost).union(gained) else { return .infinity }
    // The sum that the candidate stopped at, or the last one that it went on from.
    let p = probabilities(z)
    let sums = lost.isEmpty ? own.count..<count : count..<own.count
    let farthest = sums.map { n in abs(order.prefix(n).reduce(0) { $0 + p[$1] / t } - threshold) }.max() ?? 0
    return 2 * t * farthest  // ∂Σp/∂z is at most 1/2: an error δ of every logit moves the sum of p/t by δ/(2t) at most
  }
}

extension RoutingAgreement.Layer {
  /// Counts a token's decision. What is not explained is shown first, then the widest margin.
  mutating func add(_ flip: RoutingFlip, isExplained: Bool, row: Int, column: Int) {
    decisions += 1
    let all = flip.own + flip.gained
    let experts = max(matrix.count, 1 + (all.max() ?? -1))
    if experts > matrix.count {
      matrix = (0..<experts).map { r in (0..<experts).map { c in r < matrix.count && c < matrix.count ? matrix[r][c] : 0 } }
    }
    for e in flip.own where !flip.lost.contains(e) { matrix[e][e] += 1 }
    for (r, c) in zip(flip.lost, flip.gained) { matrix[r][c] += 1 }
    guard flip.isFlip else { return }
    flips += 1
    let isFirstUnexplained = !isExplained && explained == flips - 1
    if isExplained { explained += 1 }
    let isShown = !isExplained || flips == explained
    if isFirstUnexplained || isShown && flip.margin > (widest?.margin ?? -1) {
      widest = (row, column, flip.lost.first ?? -1, flip.gained.first ?? -1, flip.margin, flip.budget)
    }
  }
}

extension TensorJudgement {
  /// The figures of decisions: the share of them that differs, and the share that does within rounding.
  mutating func takeDecisions(_ layer: RoutingAgreement.Layer?) {
    let decisions = Double(max(1, layer?.decisions ?? 1))
    (error, budget) = (Double(layer?.flips ?? 0) / decisions, Double(layer?.explained ?? 0) / decisions)
    metrics.count = layer?.decisions ?? 0
    guard let widest = layer?.widest else { return }
    metrics.worstIndex = [widest.row, widest.column]
    metrics.worstValues = (Double(widest.candidate), Double(widest.reference))
  }
}
