import Tensors

/// A hook that replaces values: activations or gradients, and routing decisions.
///
/// It patches a number in a lesson, puts a candidate's value in place of ours, and replays another run's routing
/// (`choices` of a ``Recorder``), which keeps a finite difference on one piece of the loss.
public final class Replacement<B: Backend>: Hook {
  private let values: [String: Tensor<B>]
  private let choices: [String: Indices<B>]

  /// Replaces the named points; a gradient's name has `grad.` in front.
  public init(values: [String: Tensor<B>] = [:], choices: [String: Indices<B>] = [:]) {
    self.values = values
    self.choices = choices
  }

  /// True for every path that has a replacement.
  public func listens(to path: String) -> Bool { values[path] != nil || values["grad." + path] != nil || choices[path] != nil }

  /// Puts the replacement in.
  public func visit(_ value: inout Tensor<B>, at point: HookPoint) { if let new = values[point.description] { value = new } }

  /// Puts the replaced decision in.
  public func visit(choice: inout Indices<B>, at point: HookPoint) { if let new = choices[point.path] { choice = new } }
}
