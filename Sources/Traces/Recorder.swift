import Tensors

/// A hook that keeps the values of the points it listens to, on the host.
public final class Recorder<B: Backend>: Hook {
  /// A recorded value.
  public struct Record {
    /// Where it was met.
    public let point: HookPoint
    /// Number of rows and columns.
    public let shape: Shape
    /// Row-major values.
    public let values: [B.Scalar]
  }

  /// What was recorded, in the order in which the run met it.
  public private(set) var visits: [Record] = []
  /// The same by the point's description (`grad.` in front of a gradient's path).
  public var records: [String: Record] { Dictionary(visits.map { ($0.point.description, $0) }) { _, last in last } }
  /// What was chosen at the points of routing decisions, by path.
  public private(set) var choices: [String: [Int32]] = [:]
  private let backend: B
  private let isWanted: (String) -> Bool

  /// Records the points whose path satisfies `isWanted`.
  public init(on backend: B, _ isWanted: @escaping (String) -> Bool) {
    self.backend = backend
    self.isWanted = isWanted
  }

  /// True for the wanted paths.
  public func listens(to path: String) -> Bool { isWanted(path) }

  /// Downloads the value.
  public func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {
    visits.append(Record(point: point, shape: value.shape, values: try backend.download(value)))
  }

  /// Downloads the decision.
  public func visit(choice: inout Indices<B>, at point: HookPoint) throws {
    choices[point.path] = try backend.download(choice)
  }
}
