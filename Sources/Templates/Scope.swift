/// Variables of a frame; what it does not have it takes from the frame around it.
final class Scope {
  private let parent: Scope?
  private var variables: [String: Value] = [:]

  init(parent: Scope?) { self.parent = parent }

  /// Gives a variable of this frame a value.
  func set(_ name: String, _ value: Value) { variables[name] = value }

  /// A variable of this frame or one around it.
  func value(_ name: String) -> Value? {
    var scope: Scope? = self
    while let current = scope {
      if let value = current.variables[name] { return value }
      scope = current.parent
    }
    return nil
  }

  /// Lets go of all variables, so that a macro and the frame that it stands in are freed.
  func clear() { variables = [:] }
}
