/// One pass forward and backward: the backend, what is random in it, and who listens.
///
/// Every forward and backward takes the run behind what it reads; only what decoding or a call of the whole model may ask for comes
/// after it. A layer passes the values that its equations name through `hook`, their gradients through `hook(gradient:)` and routing
/// decisions through `hook(choice:)` without knowing what listens (masked inputs and the rank-r values inside branches are no points);
/// without hooks a point costs one test, and its path is built only where there is a hook.
///
/// Layers know their module path themselves (it also names their parameters and keys their masks), which leaves
/// no stack of names here to be kept in step by hand.
public final class Run<B: Backend> {
  /// Where everything is computed.
  public let backend: B
  /// What is random in a training pass; nil outside training, where dropout is off.
  public let training: TrainingPass?
  /// How busy the experts were, router by router in the order of the pass.
  public private(set) var loads: [RouterLoad<B>] = []
  /// The gradient of the balance loss with respect to each row of a router's p (E), by the router's path: what the model sets
  /// between forward and backward.
  public var balances: [String: Tensor<B>] = [:]

  private let hooks: [any Hook<B>]
  private var isRecomputing = false
  private var replacedValues: [String: Tensor<B>] = [:]
  private var replacedChoices: [String: Indices<B>] = [:]
  private var firstError: (any Error)?

  /// A run on `backend`. Hooks are visited in order; until the first error of one, then no more.
  public init(_ backend: B, training: TrainingPass? = nil, hooks: [any Hook<B>] = []) {
    self.backend = backend
    self.training = training
    self.hooks = hooks
  }

  // MARK: The pass

  /// Runs `body`, which forms activations again during backward: replaced values are put in again, nobody is called.
  public func recomputing<R>(_ body: () -> R) -> R {
    let outer = isRecomputing
    isRecomputing = true
    defer { isRecomputing = outer }
    return body()
  }

  /// Keeps a router's load for the balance loss; while values are formed again it is known already.
  public func report(_ load: RouterLoad<B>) { if !isRecomputing { loads.append(load) } }

  /// Ends the pass: forgets replacements, loads and balances, and throws the first error that a hook threw, if any.
  public func finish() throws {
    replacedValues = [:]
    replacedChoices = [:]
    loads = []
    balances = [:]
    if let error = firstError {
      firstError = nil
      throw error
    }
  }

  // MARK: Hook points

  /// True if there is any hook at all.
  public var isObserved: Bool { !hooks.isEmpty }

  /// True if somebody looks at `path` now; while values are formed again nobody does, but a value may have been replaced.
  public func listens(to path: @autoclosure () -> String) -> Bool {
    if hooks.isEmpty { return false }
    let path = path()
    return isRecomputing ? replacedValues[path] != nil : hooks.contains { $0.listens(to: path) }
  }

  /// True if somebody looks at one of the points, or replaced what passed it: an operation that fuses what lies between them is then
  /// taken apart into the lines that one reads. Asked in forward and in backward alike, since a hook may stop listening between.
  public func observes(_ paths: @autoclosure () -> [String]) -> Bool {
    if hooks.isEmpty { return false }
    return paths().contains { path in replacedValues[path] != nil || hooks.contains { $0.listens(to: path) } }
  }

  /// A point that an activation passes: listeners look at `value` or replace it. `equation` says how it is formed.
  ///
  /// - Precondition: a replacement has the shape of the value.
  public func hook(
    _ value: inout Tensor<B>, _ module: @autoclosure () -> String, _ name: @autoclosure () -> String, _ equation: StaticString
  ) {
    if hooks.isEmpty { return }
    let path = "\(module()).\(name())"
    if isRecomputing {
      if let replaced = replacedValues[path] { value = replaced }
      return
    }
    let isReplaced = visit(&value, HookPoint(path: path, phase: .forward, equation: equation))
    replacedValues[path] = isReplaced ? value : nil
  }

  /// A point that the gradient of an activation passes.
  ///
  /// - Precondition: a replacement has the shape of the gradient.
  public func hook(gradient: inout Tensor<B>, _ module: @autoclosure () -> String, _ name: @autoclosure () -> String) {
    if hooks.isEmpty || isRecomputing { return }
    _ = visit(&gradient, HookPoint(path: "\(module()).\(name())", phase: .backward))
  }

  /// A point that a routing decision passes: the experts that each token chose, S slots a token, −1 in a slot that chose none.
  ///
  /// - Precondition: a replacement has as many entries, and names an expert at most once a token.
  public func hook(
    choice: inout Indices<B>, _ module: @autoclosure () -> String, _ name: @autoclosure () -> String, _ equation: StaticString
  ) {
    if hooks.isEmpty { return }
    let path = "\(module()).\(name())"
    if isRecomputing {
      if let replaced = replacedChoices[path] { choice = replaced }
      return
    }
    if firstError != nil { return }
    let before = choice
    call(HookPoint(path: path, phase: .forward, equation: equation)) { try $0.visit(choice: &choice, at: $1) }
    guard choice.count == before.count else { trap("hook: the replaced choice has \(choice.count) entries, expected \(before.count)") }
    replacedChoices[path] = choice.storage !== before.storage || choice.offset != before.offset ? choice : nil
  }

  /// Does what a listener needs and may fail at; the first error is kept for `finish`.
  public func attempt<R>(_ body: () throws -> R) -> R? {
    do { return try body() } catch {
      if firstError == nil { firstError = error }
      return nil
    }
  }

  /// Throws the first error that a hook threw so far.
  public func throwFirstError() throws {
    if let firstError { throw firstError }
  }

  /// Lets listeners see a value; true if one replaced it.
  private func visit(_ value: inout Tensor<B>, _ point: HookPoint) -> Bool {
    if firstError != nil { return false }
    let before = value  // keeps the storage shared, so that a change in place shows as another storage
    call(point) { try $0.visit(&value, at: $1) }
    let isReplaced = value.storage !== before.storage || value.offset != before.offset
    if isReplaced { requireShapes("hook", ("the replacement", value.shape, before.shape)) }
    return isReplaced
  }

  private func call(_ point: HookPoint, _ visit: (any Hook<B>, HookPoint) throws -> Void) {
    for hook in hooks where hook.listens(to: point.path) {
      do { try visit(hook, point) } catch {
        firstError = error
        return
      }
    }
  }
}

/// What random masks depend on in one training pass.
public struct TrainingPass: Sendable {
  /// The root of an adapter's random numbers; one for all, or one an adapter.
  private let keys: [RandomKey]
  /// The optimizer step, counted from 1.
  public let step: Int

  /// A pass of step `step` under one key.
  public init(key: RandomKey, step: Int) { self.init(keys: [key], step: step) }

  /// A pass in which every adapter has a key of its own, so that its masks are those that it would have alone.
  ///
  /// - Precondition: there is a key for every adapter; a single one serves all.
  public init(keys: [RandomKey], step: Int) {
    self.keys = keys
    self.step = step
  }

  /// The key of an adapter.
  public func key(ofAdapter adapter: Int) -> RandomKey { keys.count == 1 ? keys[0] : keys[adapter] }
}
