import Tensors

/// How far two sets of named tensors are apart, by the rule of this project.
///
/// "Equal to ε" means ‖a − b‖ ≤ ε · max(‖b‖, 10⁻³ × the median norm of its kind): a zero gradient (an expert
/// without a token) then has a scale to be judged on. The norm is Euclidean. Names, shapes and counts must agree,
/// something must have been compared, and a value that is not finite agrees with nothing.
public struct Agreement: Sendable, CustomStringConvertible {
  /// The largest ‖a − b‖ over its scale; infinite where names, shapes or finiteness disagree.
  public let worst: Double
  /// The tensor that it belongs to, or what disagreed.
  public let name: String
  /// Tensors compared.
  public let count: Int

  /// True if everything agrees to ε.
  public func holds(to epsilon: Double) -> Bool { count > 0 && worst <= epsilon }

  /// The worst tensor and its error.
  public var description: String { "worst \(worst) at \(name), \(count) tensors" }

  /// Compares `found` with `expected`, tensor by tensor.
  public init<A, E>(of found: [Trace<A>.NamedTensor], with expected: [Trace<E>.NamedTensor]) {
    let table = Dictionary(found.map { ($0.name, $0) }) { first, _ in first }
    var scales: [String: [Double]] = [:]
    for tensor in expected { scales[Self.kind(tensor.name), default: []].append(Self.norm(tensor.values.map { Double($0) })) }
    let medians = scales.mapValues { $0.sorted()[$0.count / 2] }
    var worst = 0.0
    var name = "nothing"
    func disagree(_ what: String) {
      worst = .infinity
      name = what
    }
    if found.count != expected.count { disagree("\(found.count) tensors, expected \(expected.count)") }
    for tensor in expected where worst.isFinite {
      guard let other = table[tensor.name] else {
        disagree("\(tensor.name), which is missing")
        break
      }
      guard other.shape == tensor.shape, other.values.count == tensor.values.count else {
        disagree("\(tensor.name) of shape \(other.shape), expected \(tensor.shape)")
        break
      }
      let difference = tensor.values.indices.map { Double(other.values[$0]) - Double(tensor.values[$0]) }
      let scale = max(Self.norm(tensor.values.map { Double($0) }), 1e-3 * (medians[Self.kind(tensor.name)] ?? 0))
      let distance = Self.norm(difference)
      let error = distance == 0 ? 0 : distance / scale
      guard error.isFinite else {
        disagree("\(tensor.name), which is not finite")
        break
      }
      if error >= worst { (worst, name) = (error, tensor.name) }
    }
    self.worst = worst
    self.name = name
    count = expected.count
  }

  /// `grad.…lora_A.weight` of any layer and expert is one kind: the name without its numbers.
  package static func kind(_ name: String) -> String {
    name.split(separator: ".").filter { !$0.allSatisfy(\.isNumber) }.joined(separator: ".")
  }

  package static func norm(_ values: [Double]) -> Double { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
}
