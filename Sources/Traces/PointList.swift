import Decoders
import Layers
import Tensors

/// A point that a run of a model passes, as `mixlora trace --list` prints it.
public struct ListedPoint: Equatable, Sendable {
  /// Its sizes; B, T and the number of rows of an expert are known only when something runs.
  public let shape: [String]
  /// How it is formed and of what.
  public let provenance: Provenance

  /// The point's name in a trace: its path, `grad.` in front of a gradient's.
  public var name: String { provenance.name }
  /// `forward`, `backward` or `optimizer`.
  public var phase: String { provenance.phase.rawValue }
  /// How the value is formed, in the letters of the provenance's inputs.
  public var equation: String { provenance.equation }
}

extension Decoder where B == ShapeBackend {
  /// Every point of a run in its order, forward, then backward, then what a step of AdamW leaves, without computing anything.
  ///
  /// - Throws: `UnknownBlock`.
  public func points() throws -> [ListedPoint] {
    let provenances = try Provenances(self)
    let lister = PointLister(adapters.map(\.configuration.mixture), provenances)
    let backend = ShapeBackend()
    // Two tokens for each adapter, of which one is labeled, and beside several two that the base alone serves.
    let owners = (0..<max(1, adapters.count)).map { Optional($0) } + (adapters.count > 1 ? [nil] : [])
    let sequences = owners.map { PackedSequence(ids: [0, 0], labels: [0, nil], adapter: $0) }
    _ = try gradients(of: PackedBatch(sequences, on: backend), Run(backend, hooks: [lister]))
    for kind in TraceNames.optimizer {
      for (part, prefix) in namedParts {
        for tensor in part.tensors {
          lister.append(prefix + kind + tensor.name, tensor.view(of: tensor.parameter.value).shape.sizes.map { "\($0)" })
        }
      }
    }
    return lister.points
  }
}

/// Notes every point that it is shown.
private final class PointLister: Hook {
  typealias B = ShapeBackend
  private(set) var points: [ListedPoint] = []
  private let mixtures: [AdapterConfiguration.Mixture?]
  private let provenances: Provenances<ShapeBackend>

  init(_ mixtures: [AdapterConfiguration.Mixture?], _ provenances: Provenances<ShapeBackend>) {
    (self.mixtures, self.provenances) = (mixtures, provenances)
  }

  func append(_ name: String, _ shape: [String]) {
    guard let provenance = provenances[name] else { trap("\(name): a point of which nobody knows where it comes from") }
    points.append(ListedPoint(shape: shape, provenance: provenance))
  }

  func listens(to path: String) -> Bool { true }

  func visit(_ value: inout Tensor<ShapeBackend>, at point: HookPoint) {
    append(point.description, (point.path.contains(".experts.") ? ["rows"] : ["B", "T"]) + ["\(value.shape.columns)"])
  }

  func visit(choice: inout Indices<ShapeBackend>, at point: HookPoint) {
    let parts = point.path.split(separator: ".")
    guard let mixture = parts.first == "adapter" ? Int(parts[1]).flatMap({ mixtures[$0] }) : mixtures.lazy.compactMap({ $0 }).first else {
      return
    }
    append(point.path, ["B", "T", "\(mixture.policy.slots(of: mixture.experts))"])
    let module = point.path.dropLast(".moe_gate.choice".count)
    for e in 0..<mixture.experts { append("\(module).experts.\(e).tokens", ["rows"]) }
  }
}
