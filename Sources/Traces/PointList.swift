import Decoders
import Layers
import Tensors

/// A point that a run of a model passes, as `mixlora trace --list` prints it.
public struct ListedPoint: Equatable, Sendable {
  /// The point's name in a trace: its path, `grad.` in front of a gradient's.
  public let name: String
  /// `forward` or `backward`.
  public let phase: String
  /// Its sizes; B, T and the number of rows of an expert are known only when something runs.
  public let shape: [String]
  /// How the value is formed; of a gradient: with respect to what.
  public let equation: String
}

extension Decoder where B == ShapeBackend {
  /// Every point of a run in its order, forward, then backward, without computing anything.
  ///
  /// - Throws: nothing of its own; a hook that fails.
  public func points() throws -> [ListedPoint] {
    let lister = PointLister(
      slots: adapters.map { $0.configuration.mixture?.policy.slots(of: $0.configuration.mixture?.experts ?? 0) ?? 0 })
    let backend = ShapeBackend()
    // Two tokens for each adapter, of which one is labelled.
    let sequences = (0..<max(1, adapters.count)).map { PackedSequence(ids: [0, 0], labels: [0, nil], adapter: $0) }
    _ = try gradients(of: PackedBatch(sequences, on: backend), Run(backend, hooks: [lister]))
    return lister.points.filter { $0.phase == "forward" } + lister.expertTokens + lister.points.filter { $0.phase == "backward" }
  }
}

/// Notes every point that it is shown.
private final class PointLister: Hook {
  typealias B = ShapeBackend
  private(set) var points: [ListedPoint] = []
  private let slots: [Int]
  private var equations: [String: String] = [:]

  init(slots: [Int]) { self.slots = slots }

  /// `experts.E.tokens` of every expert: which token each of its rows is.
  var expertTokens: [ListedPoint] {
    var seen: Set<String> = []
    return points.compactMap { point in
      guard point.phase == "forward", point.shape.first == "rows", let dot = point.name.firstRange(of: ".experts.") else { return nil }
      let expert = point.name[dot.upperBound...].prefix { $0 != "." }
      let name = point.name[..<dot.upperBound] + expert + ".tokens"
      guard seen.insert(String(name)).inserted else { return nil }
      return ListedPoint(name: String(name), phase: "forward", shape: ["rows"], equation: "b·T + t of each row's token")
    }
  }

  func listens(to path: String) -> Bool { true }

  func visit(_ value: inout Tensor<ShapeBackend>, at point: HookPoint) {
    let isExpert = point.path.contains(".experts.")
    let shape = (isExpert ? ["rows"] : ["B", "T"]) + ["\(value.shape.columns)"]
    if point.phase == .forward {
      equations[point.path] = "\(point.equation)"
      points.append(ListedPoint(name: point.description, phase: "forward", shape: shape, equation: "\(point.equation)"))
    } else {
      let equation = "∂loss/∂(\(point.path)),  \(equations[point.path] ?? "")"
      points.append(ListedPoint(name: point.description, phase: "backward", shape: shape, equation: equation))
    }
  }

  func visit(choice: inout Indices<ShapeBackend>, at point: HookPoint) {
    let parts = point.path.split(separator: ".")
    let slots = slots[parts.first == "adapter" ? Int(parts[1]) ?? 0 : slots.firstIndex { $0 > 0 } ?? 0]
    points.append(ListedPoint(name: point.path, phase: "forward", shape: ["B", "T", "\(slots)"], equation: "\(point.equation)"))
  }
}
