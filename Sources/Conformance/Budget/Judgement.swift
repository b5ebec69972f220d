import Platform
import Traces

/// Golden tensors beside those of a candidate, each judged by a budget.
///
/// A tensor's error is ‖candidate − golden‖₂ over ‖golden‖₂, or over 10⁻³ × the median norm of its kind where that is more: what
/// is nearly zero beside its like is judged on their scale.
public struct Judgement: Sendable, CustomStringConvertible {
  /// Of one golden tensor.
  public struct Tensor: Sendable {
    /// Its name.
    public let name: String
    /// Its sizes.
    public let shape: [Int]
    /// The relative error; infinite where there is nothing to compare, or a value is not what it must be.
    public let error: Double
    /// What rounding explains of it.
    public let budget: Double
    /// Why it is wrong, in words; nil if it is right.
    public let problem: String?
  }

  /// Tensor by tensor in the golden order.
  public let tensors: [Tensor]
  /// Tensors that only the candidate has.
  public let unknown: [String]

  /// True if there are tensors and none is wrong.
  public var matches: Bool { !tensors.isEmpty && tensors.allSatisfy { $0.problem == nil } }

  /// Judges a candidate.
  public init(of candidate: NamedTensors, against golden: NamedTensors, within budget: Budget) {
    let table = Dictionary(candidate.elements.map { ($0.name, $0) }) { first, _ in first }
    var norms: [String: [Double]] = [:]
    for tensor in golden.elements { norms[Agreement.kind(tensor.name), default: []].append(Agreement.norm(tensor.values)) }
    let medians = norms.mapValues { $0.sorted()[$0.count / 2] }
    tensors = golden.elements.map { tensor in
      let allowed = budget.relativeError(of: tensor.name, in: table[tensor.name]?.precision ?? tensor.precision)
      func wrong(_ problem: String, _ error: Double = .infinity) -> Tensor {
        Tensor(name: tensor.name, shape: tensor.shape, error: error, budget: allowed, problem: "\(tensor.name): \(problem)")
      }
      guard let found = table[tensor.name] else { return wrong("missing") }
      guard found.shape == tensor.shape, found.values.count == tensor.values.count else {
        return wrong("shape \(found.shape) of \(found.values.count) values, expected \(tensor.shape) of \(tensor.values.count)")
      }
      let scale = max(Agreement.norm(tensor.values), 1e-3 * (medians[Agreement.kind(tensor.name)] ?? 0))
      let places = Places(found.values, tensor.values, tensor.shape)
      if let place = places.notFinite { return wrong("not finite where the golden is: \(place)") }
      let error = places.distance == 0 ? 0 : places.distance / scale
      if error <= allowed { return Tensor(name: tensor.name, shape: tensor.shape, error: error, budget: allowed, problem: nil) }
      return wrong(
        "error \(significant(error)), budget \(significant(allowed)), shape \(tensor.shape); first at \(places.first); worst at \(places.worst)",
        error)
    }
    let expected = Set(golden.elements.map(\.name))
    unknown = candidate.elements.map(\.name).filter { !expected.contains($0) }
  }

  /// The wrong tensors, the first few; of a match how many tensors, and how close the closest came.
  public var description: String {
    if tensors.isEmpty { return "nothing to compare: no golden tensor" }
    let problems = tensors.compactMap(\.problem)
    if problems.isEmpty {
      let worst = tensors.map { $0.error == 0 ? 0 : $0.error / $0.budget }.max() ?? 0
      return "\(tensors.count) tensors within the budget, at most \(significant(worst)) of it"
    }
    let rest = problems.count > 3 ? "; and \(problems.count - 3) more of \(tensors.count) tensors" : ""
    return problems.prefix(3).joined(separator: "; ") + rest
  }
}

/// Where two tensors differ.
private struct Places {
  var distance = 0.0
  var first = "", worst = ""
  var notFinite: String?

  init(_ found: [Double], _ expected: [Double], _ shape: [Int]) {
    func place(_ i: Int) -> String {
      var (rest, index) = (i, [Int]())
      for size in shape.reversed() {
        index.insert(rest % max(size, 1), at: 0)
        rest /= max(size, 1)
      }
      return "\(index): \(found[i]), expected \(expected[i])"
    }
    var (sum, largest, at) = (0.0, -1.0, 0)
    for i in found.indices {
      if found[i] == expected[i] || (found[i].isNaN && expected[i].isNaN) {
        continue
      }
      let difference = abs(found[i] - expected[i])
      guard difference.isFinite else {
        notFinite = notFinite ?? place(i)
        continue
      }
      sum += difference * difference
      if difference > largest { (largest, at) = (difference, i) }
    }
    distance = sum.squareRoot()
    guard largest > 0, notFinite == nil else { return }
    worst = place(at)
    first = place(found.indices.first { abs(found[$0] - expected[$0]) > largest / 10 } ?? at)
  }
}
