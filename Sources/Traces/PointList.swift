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
    let lister = PointLister(adapters.map(\.configuration.mixture))
    let backend = ShapeBackend()
    // Two tokens for each adapter, of which one is labeled, and beside several two that the base alone serves.
    let owners = (0..<max(1, adapters.count)).map { Optional($0) } + (adapters.count > 1 ? [nil] : [])
    let sequences = owners.map { PackedSequence(ids: [0, 0], labels: [0, nil], adapter: $0) }
    _ = try gradients(of: PackedBatch(sequences, on: backend), Run(backend, hooks: [lister]))
    return lister.points
  }
}

/// Notes every point that it is shown.
private final class PointLister: Hook {
  typealias B = ShapeBackend
  private(set) var points: [ListedPoint] = []
  private let mixtures: [AdapterConfiguration.Mixture?]
  private var equations: [String: String] = [:]

  init(_ mixtures: [AdapterConfiguration.Mixture?]) { self.mixtures = mixtures }

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
    guard let mixture = parts.first == "adapter" ? Int(parts[1]).flatMap({ mixtures[$0] }) : mixtures.lazy.compactMap({ $0 }).first else {
      return
    }
    let slots = mixture.policy.slots(of: mixture.experts)
    points.append(ListedPoint(name: point.path, phase: "forward", shape: ["B", "T", "\(slots)"], equation: "\(point.equation)"))
    let module = point.path.dropLast(".moe_gate.choice".count)
    for e in 0..<mixture.experts {
      points.append(
        ListedPoint(name: "\(module).experts.\(e).tokens", phase: "forward", shape: ["rows"], equation: "b·T + t of each row's token"))
    }
  }
}
