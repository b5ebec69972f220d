import Conformance
import Layers
import Tensors
import Traces

/// What a run passed by, on the host, and where a candidate's values take the place of its own.
///
/// Replacing every value that the candidate has by the candidate's makes each point's own value the result of its operation on the
/// candidate's inputs: one run judges every operation by itself, caches and backward included, and accumulated error hides nothing.
final class OracleHook<B: Backend>: Hook where B.Scalar == Double {
  /// A value at its point.
  struct Value {
    let name: String
    let path: String
    let phase: HookPoint.Phase
    let shape: Shape
    let values: [Double]
  }

  private let backend: B
  private let isWanted: (String) -> Bool
  private let see: (Value) throws -> Void
  private let replacement: (_ name: String, _ path: String, Shape) throws -> [Double]?
  private let decide: (_ path: String, _ own: [Int32]) throws -> [Int32]?

  /// - Parameters:
  ///   - isWanted: which paths are visited.
  ///   - see: hears of every value, before it is replaced.
  ///   - replacement: values of the same shape that take its place; nil leaves it.
  ///   - decide: the same of a routing decision, which it hears of as well.
  init(
    on backend: B, _ isWanted: @escaping (String) -> Bool, see: @escaping (Value) throws -> Void,
    replacement: @escaping (_ name: String, _ path: String, Shape) throws -> [Double]? = { _, _, _ in nil },
    decide: @escaping (_ path: String, _ own: [Int32]) throws -> [Int32]? = { _, _ in nil }
  ) {
    (self.backend, self.isWanted, self.see, self.replacement, self.decide) = (backend, isWanted, see, replacement, decide)
  }

  func listens(to path: String) -> Bool { isWanted(path) }

  func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {
    let name = point.description
    try see(
      Value(
        name: name, path: point.path, phase: point.phase, shape: value.shape,
        values: try backend.download(value)))
    if let values = try replacement(name, point.path, value.shape) { value = backend.upload(values, value.shape) }
  }

  func visit(choice: inout Indices<B>, at point: HookPoint) throws {
    let own = try backend.download(choice)
    if let other = try decide(point.path, own), other != own { choice = backend.upload(other) }
  }
}
