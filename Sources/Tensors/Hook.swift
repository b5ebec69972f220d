/// Where in a run a value is, when a hook sees it.
public struct HookPoint: Sendable, CustomStringConvertible {
  /// Module path and name: `model.layers.3.mlp.output`. What one of several adapters owns begins with `adapter.<number>.`.
  public let path: String
  /// Activations are seen on the way forward, their gradients on the way back.
  public let phase: Phase
  /// How the value is formed, in the letters of its layer's file: `y = x Wᵀ + b + s h Bᵀ`; empty for a gradient, which is that of
  /// the loss with respect to the value of the same path.
  public let equation: StaticString

  /// On which way the value was met.
  public enum Phase: Equatable, Sendable {
    /// An activation or routing decision.
    case forward
    /// The gradient of the activation of that path.
    case backward
  }

  /// A point of a run.
  public init(path: String, phase: Phase, equation: StaticString = "") {
    self.path = path
    self.phase = phase
    self.equation = equation
  }

  /// The point that a trace calls so: the inverse of ``description``.
  public init(named name: String) {
    let parts = name.split(separator: ".", maxSplits: 3)
    if parts.count == 4, parts[0] == "adapter", parts[2] == "grad" {
      self.init(path: "adapter.\(parts[1]).\(parts[3])", phase: .backward)
    } else {
      let isGradient = name.hasPrefix("grad.")
      self.init(path: isGradient ? String(name.dropFirst("grad.".count)) : name, phase: isGradient ? .backward : .forward)
    }
  }

  /// The path, `grad.` in front of a gradient's; of what adapter I owns `adapter.I.grad.…`, as the gradients of its parameters.
  public var description: String {
    guard phase == .backward else { return path }
    let parts = path.split(separator: ".", maxSplits: 2)
    return parts.count == 3 && parts[0] == "adapter" ? "adapter.\(parts[1]).grad.\(parts[2])" : "grad." + path
  }
}

/// Something that looks at the values of a run or replaces them.
///
/// One mechanism serves recording, stepping, patching, comparing with another implementation and replaying its
/// routing. A hook that assigns to `value` replaces it: everything downstream, caches and recomputed values
/// included, follows as if the layer had computed it.
public protocol Hook<B>: AnyObject {
  /// The backend of the values.
  associatedtype B: Backend
  /// True if this hook wants to see points of this path. Called often; be quick.
  func listens(to path: String) -> Bool
  /// An activation or a gradient.
  func visit(_ value: inout Tensor<B>, at point: HookPoint) throws
  /// A routing decision: the experts that each token chose, S slots a token, −1 in a slot that chose none.
  func visit(choice: inout Indices<B>, at point: HookPoint) throws
}

extension Hook {
  /// Ignores activations and gradients.
  public func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {}
  /// Ignores decisions.
  public func visit(choice: inout Indices<B>, at point: HookPoint) throws {}
}
