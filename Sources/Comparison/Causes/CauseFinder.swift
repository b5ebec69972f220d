import Conformance
import Layers
import Platform
import Tensors
import Traces

/// Looks for what the first wrong operation does instead: each idea is tried on the candidate's own inputs, and kept only if the error
/// vanishes.
///
/// Two kinds of ideas. The oracle's operation runs again with a mistake (``Mutation``), and gives the candidate's numbers. Or the
/// candidate's numbers y′ are our y with one of its parts scaled: y = rest + part, y′ = rest + c · part, where a part is what the
/// low-rank branches, a bias, the balance loss, or the gradient through one of several readers adds; c = 0 means that it is missing.
final class CauseFinder<Exact: Backend & MatrixFactorizing> where Exact.Scalar == Double {
  typealias B = RoundingBackend<Exact>

  /// What an idea changes in a run.
  struct Trial {
    var mutation: Mutation?
    /// Gradients that are zero behind their point, by name.
    var silenced: String?
    /// Low-rank branches of modules whose name contains this are zero; nil for none.
    var zeroedBranches: String?
    /// Trained tensors that have the values of others, by name.
    var assignments: [(to: String, from: String)] = []
    /// Roles of trained tensors whose values are rounded to bfloat16.
    var rounded: [Parameter<B>.Role] = []
    /// What every operation rounds to; nil for not at all.
    var precision: Precision?
  }

  let comparison: OracleComparison<Exact>
  let target: TensorJudgement
  /// What else is wrong behind the optimizer's steps, where the target is: one rule forms all of it.
  let companions: [TensorJudgement]
  /// The candidate's values of the tensor in our rows, and ours on its inputs.
  let found: [Double]
  let ours: [Double]
  private let width: Int
  /// What may remain, ‖·‖₂: twice what rounding explains; and what is wrong without any idea.
  private let tolerance: Double, error: Double
  private let deadline = ContinuousClock.now + .seconds(20)
  /// Whether ideas were left untried, because the runs of a large model take long.
  private(set) var isCut = false
  /// What the right rule leaves behind the steps.
  private var right: [String: (ours: [Double], found: [Double]?)]?
  var causes: [(cause: Cause, rank: Int)] = []

  init?(_ comparison: OracleComparison<Exact>, _ target: TensorJudgement, in report: ComparisonReport) throws {
    (self.comparison, self.target) = (comparison, target)
    let isOptimizer = target.phase == "optimizer"
    companions = report.tensors.filter { isOptimizer && $0.phase == "optimizer" && $0.verdict != .ok && $0.name != target.name }
    guard let (ours, theirs) = try comparison.localValues(target.name, Trial()), let found = theirs, ours.count == found.count,
      !ours.isEmpty, found.allSatisfy(\.isFinite)
    else { return nil }
    (self.ours, self.found) = (ours, found)
    width = max(1, target.shape.last ?? 1)
    (tolerance, error) = (Self.tolerance(target, ours), Self.distance(found, ours))
  }

  private static func tolerance(_ target: TensorJudgement, _ ours: [Double]) -> Double {
    let budget = (target.localBudget ?? target.budget) * norm(ours)
    return 2 * (budget.isFinite ? budget : 0) + 1e-300
  }

  static func norm(_ x: [Double]) -> Double { x.reduce(0) { $0 + $1 * $1 }.squareRoot() }

  /// What was found, best first.
  func search() throws -> [Cause] {
    try factors()
    try mutations()
    try parts()
    try otherWeights()
    try likeOthers()
    losses()
    rounding()
    return causes.sorted { ($0.rank, $0.cause.remaining ?? 0) < ($1.rank, $1.cause.remaining ?? 0) }.map(\.cause).reduce(into: []) {
      list, cause in
      if !list.contains(where: { $0.name == cause.name && $0.text == cause.text }) { list.append(cause) }
    }
  }

  // MARK: Trying

  /// Keeps an idea if it gives the candidate's numbers, and ours do not as well. The tolerance grows with numbers that are larger than ours.
  @discardableResult
  func keep(_ values: [Double], _ name: String, rank: Int = 0, _ text: @autoclosure () -> String) -> Bool {
    guard let difference = remaining(values, found, ours, tolerance), difference <= error / 2 else { return false }
    let norm = Self.norm(found)
    causes.append((Cause(name: name, text: text(), remaining: norm > 0 ? difference / norm : 0), rank))
    return true
  }

  /// ‖candidate − values‖₂ if values explain the candidate's numbers.
  private func remaining(_ values: [Double], _ found: [Double], _ ours: [Double], _ tolerance: Double) -> Double? {
    guard values.count == found.count else { return nil }
    let difference = Self.distance(found, values)
    let size = max(1, Self.norm(values) / max(1e-300, Self.norm(ours)))
    return difference <= tolerance * size ? difference : nil
  }

  private static func distance(_ x: [Double], _ y: [Double]) -> Double {
    x.indices.reduce(0) { $0 + (x[$1] - y[$1]) * (x[$1] - y[$1]) }.squareRoot()
  }

  /// Keeps an optimizer's rule that gives the candidate's numbers, those that explain more of what else stands behind the steps first. Large
  /// steps carry rounding far, so not all has to be explained; what explains the target and hardly anything beside it is a coincidence.
  func keepRule(_ trial: Trial, _ name: String, _ text: String) throws {
    if ContinuousClock.now > deadline { isCut = true }
    if isCut { return }
    let names = Set(companions.map(\.name) + [target.name])
    let mistaken = try comparison.localRun(trial) { names.contains($0) }
    guard let values = mistaken[target.name]?.ours, values != ours else { return }
    if right == nil { right = try comparison.localRun(Trial()) { names.contains($0) } }
    let unexplained = companions.filter { companion in
      guard let (ours, found) = right?[companion.name], let found, let values = mistaken[companion.name]?.ours else { return false }
      return remaining(values, found, ours, Self.tolerance(companion, ours)) == nil
    }
    let tenths = 10 * unexplained.count / max(1, companions.count)
    guard tenths < 9 else { return }
    let rest =
      unexplained.isEmpty ? "" : "; \(unexplained.count) of \(counted(companions.count, "other tensor")) behind the steps not explained"
    keep(values, name, rank: tenths, text + rest)
  }

  /// Our values under a trial; nil once the time for it is over.
  func values(_ trial: Trial) throws -> [Double]? {
    if ContinuousClock.now > deadline {
      isCut = true
      return nil
    }
    return try comparison.localValues(target.name, trial)?.ours
  }

  // MARK: One factor, one part

  private func factors() throws {
    let square = ours.reduce(0) { $0 + $1 * $1 }
    guard square > 0 else { return }
    let c = zip(found, ours).reduce(0) { $0 + $1.0 * $1.1 } / square
    if abs(c) < 1e-9 {
      if found.allSatisfy({ $0 == 0 }) { keep(found, "missing-branch", rank: 1, "it is zero: nothing arrives here") }
      return
    }
    let isLoss = target.name.hasSuffix("loss")
    if isLoss { return scalarLoss(c) }
    guard ours.count > 2 || target.phase == "optimizer" else { return }
    guard abs(c - 1) > 1e-4 else { return }
    keep(ours.map { c * $0 }, "scale", rank: 1, "it is \(Self.spelled(c, comparison)) times what it should be")
  }

  /// y = rest + part: how much of the part is in the candidate's numbers.
  private func part(_ rest: [Double]?, _ what: String, missing: String = "missing-branch", rank: Int = 1) {
    guard let rest, rest.count == ours.count, ours.count > 2 else { return }  // one number is always some multiple of another
    let part = zip(ours, rest).map(-)
    let square = part.reduce(0) { $0 + $1 * $1 }
    guard square.squareRoot() > tolerance else { return }
    var dot = 0.0
    for i in part.indices { dot += (found[i] - rest[i]) * part[i] }
    let c = dot / square
    guard abs(c - 1) > 1e-3 else { return }
    let isMissing = abs(c) < 1e-3 || abs(c) * square.squareRoot() < tolerance
    keep(
      zip(rest, part).map { $0 + (isMissing ? 0 : c) * $1 }, isMissing ? missing : "scale", rank: rank,
      isMissing ? "\(what) is missing" : "\(what) counts \(Self.spelled(c, comparison)) times")
  }

  private func parts() throws {
    let whole = try values(Trial(zeroedBranches: ""))
    part(whole, "what the low-rank branch adds")
    part(try values(Trial(mutation: .biasMissing)), "the bias", missing: "missing-bias")
    if target.phase == "backward" {
      part(try values(Trial(mutation: .balanceMissing)), "the balance loss's gradient")
      part(try values(Trial(mutation: .routerWeightGradientMissing)), "the gradient through the routing weights")
      for source in comparison.sources(of: target) {
        guard let without = try values(Trial(silenced: source)) else { continue }
        part(without, "the gradient that comes by \(source)")
        // What of it comes by the branch, and what by the weight of the base.
        let module = source.split(separator: ".").dropLast().last.map(String.init) ?? ""
        guard module.hasSuffix("_proj"), let branchless = try values(Trial(zeroedBranches: module)), branchless != ours else { continue }
        part(branchless, "the gradient that comes by the low-rank branch of \(module)")
        part(ours.indices.map { without[$0] + ours[$0] - branchless[$0] }, "the gradient that comes by the base weight of \(module)")
      }
    }
    for source in comparison.experts(of: target) { part(try values(Trial(silenced: source)), "what \(source) adds") }
    for (name, input) in try comparison.inputs(of: target) where input.count == ours.count {
      part(zip(ours, input).map(-), "\(name)")
    }
  }

  // MARK: The value of another place

  private func likeOthers() throws {
    for (name, other) in try comparison.others(like: target) where name != target.name && other.count == ours.count {
      if keep(
        other, name.contains(".experts.") && target.name.contains(".experts.") ? "experts-swapped" : "swapped", rank: 3,
        "it is what \(name) should be")
      {
        continue
      }
      if other.count > 1, width > 1, other.count / width == width {
        keep(transposed(other), "transposed", rank: 3, "it is \(name) transposed")
      }
    }
    if width > 1, ours.count == width * width { keep(transposed(ours), "transposed", rank: 2, "it is transposed") }
    columns()
    shiftedRows()
    expertsRows()
  }

  private func transposed(_ x: [Double]) -> [Double] {
    let n = width
    return x.indices.map { x[$0 % n * n + $0 / n] }
  }

  /// Whether the candidate's columns are ours in another order, and which one.
  private func columns() {
    let rows = ours.count / width
    guard width >= 2, width <= 4096, rows >= 1, !target.name.contains("lora_") else { return }
    // Columns are told apart by a few of their rows.
    let probes = Array(Set([0, rows / 2, rows - 1]))
    let slack = 4 * tolerance / Double(ours.count).squareRoot() + 1e-12
    var order: [Int] = []
    var isUsed = [Bool](repeating: false, count: width)
    for j in 0..<width {
      let match = (0..<width).filter { !isUsed[$0] }.min { a, b in
        func distance(_ i: Int) -> Double { probes.reduce(0) { max($0, abs(found[$1 * width + j] - ours[$1 * width + i])) } }
        return distance(a) < distance(b)
      }
      guard let match,
        probes.allSatisfy({ abs(found[$0 * width + j] - ours[$0 * width + match]) <= max(slack, 1e-3 * abs(ours[$0 * width + match])) })
      else { return }
      isUsed[match] = true
      order.append(match)
    }
    guard order != Array(0..<width) else { return }
    let moved = ours.indices.map { ours[$0 / width * width + order[$0 % width]] }
    let d = comparison.model.decoder.configuration.attention.headWidth
    let isPairs =
      d > 1 && width % d == 0
      && order.indices.allSatisfy { j in
        let (head, i) = (j / d * d, j % d)
        return order[j] == head + (i % 2) * (d / 2) + i / 2 || order[j] == head + (i % (d / 2)) * 2 + i / (d / 2)
      }
    let isHeads = d > 1 && width % d == 0 && order.indices.allSatisfy { order[$0] % d == $0 % d }
    if isPairs {
      keep(
        moved, "qk-permuted", rank: 1,
        "each head's channels are in the other pairing: rows of q and k as GGUF files hold them, or the reverse")
    } else if isHeads {
      keep(moved, "key-heads-order", rank: 2, "the heads stand in another order")
    } else {
      keep(
        moved, target.name.contains("moe_gate") ? "experts-swapped" : "swapped", rank: 2,
        target.name.contains("moe_gate") ? "the experts stand in another order" : "its columns stand in another order")
    }
  }

  private func shiftedRows() {
    let rows = ours.count / width
    guard rows > 2, target.phase != "optimizer", !target.name.contains("lora_") else { return }
    for by in [1, -1] {
      // A row at the border has no neighbor to come from: it is left out on both sides.
      var (difference, count) = (0.0, 0)
      for r in 0..<rows where (0..<rows).contains(r - by) && !comparison.isBorder(r, by, target) {
        for c in 0..<width {
          difference += (found[r * width + c] - ours[(r - by) * width + c]) * (found[r * width + c] - ours[(r - by) * width + c])
        }
        count += 1
      }
      if count > 1, difference.squareRoot() <= tolerance {
        causes.append(
          (
            Cause(
              name: target.name.contains("lm_head") ? "label-shift" : "shifted",
              text: "each row is that of the token \(by > 0 ? "before" : "after")", remaining: 0), 2
          ))
      }
    }
  }

  private func expertsRows() {
    // A matrix with a row or a column for each expert, in another order.
    let rows = ours.count / width
    guard target.name.contains("moe_gate"), rows >= 2, rows <= 64, target.phase == "backward" else { return }
    var order: [Int] = []
    for r in 0..<rows {
      let match = (0..<rows).min { a, b in rowDistance(r, a) < rowDistance(r, b) }
      order.append(match ?? r)
    }
    guard Set(order).count == rows, order != Array(0..<rows) else { return }
    keep(
      ours.indices.map { ours[order[$0 / width] * width + $0 % width] }, "experts-swapped", rank: 1,
      "the experts' rows stand in another order")
  }

  private func rowDistance(_ r: Int, _ s: Int) -> Double {
    (0..<width).reduce(0) { $0 + (found[r * width + $1] - ours[s * width + $1]) * (found[r * width + $1] - ours[s * width + $1]) }
  }
}
