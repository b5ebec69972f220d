/// One pass forward and backward: the backend, the random key and who listens.
///
/// Every forward and backward takes the run as its last argument. A layer passes each activation, gradient and
/// routing decision through a hook point without knowing what listens; without hooks a point costs one test, and
/// its path is built for listeners only.
///
/// Layers know their module path themselves (it also names their parameters and keys their masks), which leaves
/// no stack of names here to be kept in step by hand.
public final class Run<B: Backend> {
  /// Where everything is computed.
  public let backend: B
  /// True while training: dropout is on, caches are kept for backward.
  public let isTraining: Bool
  /// The root of all random numbers of the run.
  public let key: RandomKey
  /// The rows of the current batch, which random masks depend on.
  public var rows: RowIdentity<B>?

  private let hooks: [any Hook<B>]
  private var phase = Phase.forward
  private var replacedValues: [String: Tensor<B>] = [:]
  private var replacedChoices: [String: Indices<B>] = [:]
  /// The first error that a hook threw in this pass; `finish` throws it.
  public private(set) var firstError: (any Error)?

  private enum Phase { case forward, backward, recompute }

  /// A run on `backend`. Hooks are visited in order.
  public init(_ backend: B, isTraining: Bool = false, key: RandomKey = RandomKey(seed: 0), hooks: [any Hook<B>] = []) {
    self.backend = backend
    self.isTraining = isTraining
    self.key = key
    self.hooks = hooks
  }

  // MARK: Phases

  /// Turns around: from here on, hook points see gradients. The model calls this at the head of its backward.
  public func beginBackward() { phase = .backward }

  /// Runs `body`, which forms activations again during backward: replaced values are put in again, nobody is called.
  public func recomputing<R>(_ body: () -> R) -> R {
    let outer = phase
    phase = .recompute
    defer { phase = outer }
    return body()
  }

  /// Ends the pass: forgets replacements and throws the first error that a hook threw, if any.
  public func finish() throws {
    phase = .forward
    replacedValues = [:]
    replacedChoices = [:]
    if let error = firstError {
      firstError = nil
      throw error
    }
  }

  // MARK: Hook points

  /// True if there is any hook at all.
  public var isObserved: Bool { !hooks.isEmpty }

  /// True if somebody looks inside `path`; a fused operation then takes its readable form.
  ///
  /// While values are formed again, nobody looks: there it says whether the value was replaced.
  public func listens(to path: @autoclosure () -> String) -> Bool {
    if hooks.isEmpty { return false }
    let path = path()
    if phase == .recompute { return replacedValues[path] != nil }
    return hooks.contains { $0.listens(to: path) }
  }

  /// A point that an activation (or, in backward, its gradient) passes: listeners look at `value` or replace it.
  public func hook(_ value: inout Tensor<B>, _ module: @autoclosure () -> String, _ name: @autoclosure () -> String) {
    if hooks.isEmpty { return }
    let path = "\(module()).\(name())"
    if phase == .recompute {
      if let replaced = replacedValues[path] { value = replaced }
      return
    }
    if firstError != nil { return }
    let before = value  // keeps the storage shared, so that a change in place shows as another storage
    visit(path) { try $0.visit(&value, at: $1) }
    let isReplaced = value.storage !== before.storage || value.offset != before.offset
    if isReplaced { requireShapes("hook", ("the replacement", value.shape, before.shape)) }
    if phase == .forward { replacedValues[path] = isReplaced ? value : nil }
  }

  /// A point that a routing decision passes: the experts that each token chose, (N·K).
  public func hook(choice: inout Indices<B>, _ module: @autoclosure () -> String, _ name: @autoclosure () -> String) {
    if hooks.isEmpty { return }
    let path = "\(module()).\(name())"
    if phase == .recompute {
      if let replaced = replacedChoices[path] { choice = replaced }
      return
    }
    if firstError != nil { return }
    let before = choice
    visit(path) { try $0.visit(choice: &choice, at: $1) }
    guard choice.count == before.count else { trap("hook: the replaced choice has \(choice.count) entries, expected \(before.count)") }
    if phase == .forward { replacedChoices[path] = choice.storage !== before.storage ? choice : nil }
  }

  /// Does what a listener needs and may fail at; the first error is kept for `finish`.
  public func attempt<R>(_ body: () throws -> R) -> R? {
    do { return try body() } catch {
      if firstError == nil { firstError = error }
      return nil
    }
  }

  private func visit(_ path: String, _ call: (any Hook<B>, HookPoint) throws -> Void) {
    let point = HookPoint(path: path, phase: phase == .backward ? .backward : .forward)
    for hook in hooks where hook.listens(to: path) {
      do { try call(hook, point) } catch {
        firstError = error
        return
      }
    }
  }

  // MARK: Products as layers write them

  /// a b: (m,k) (k,n) → (m,n).
  public func matmul(_ a: some OperandConvertible<B>, _ b: some OperandConvertible<B>) -> Tensor<B> {
    scaledMatmul(1, a, b)
  }

  /// α a b: (m,k) (k,n) → (m,n).
  public func scaledMatmul(_ alpha: Double, _ a: some OperandConvertible<B>, _ b: some OperandConvertible<B>) -> Tensor<B> {
    var c = backend.empty(Shape(a.operand.shape.rows, b.operand.shape.columns))
    backend.gemm(alpha, a.operand, b.operand, 0, into: &c, rows: nil)
    return c
  }

  /// c += α a b.
  public func addProduct(
    _ alpha: Double, _ a: some OperandConvertible<B>, _ b: some OperandConvertible<B>, into c: inout Tensor<B>, rows: Range<Int>? = nil
  ) {
    backend.gemm(alpha, a.operand, b.operand, 1, into: &c, rows: rows)
  }

  /// c += α a b, where nil counts as zero: the first contribution to a gradient writes it, later ones add.
  public func addProduct(
    _ alpha: Double, _ a: some OperandConvertible<B>, _ b: some OperandConvertible<B>, into c: inout Tensor<B>?
  ) {
    guard var sum = c.take() else {
      c = scaledMatmul(alpha, a, b)
      return
    }
    addProduct(alpha, a, b, into: &sum)
    c = sum
  }

  /// α a_e b_e for every expert's rows: (M,k), E × (k,n) → (M,n).
  public func groupedMatmul(_ alpha: Double, _ a: Tensor<B>, _ b: ExpertStack<B>, _ routing: Routing<B>) -> Tensor<B> {
    var c = backend.empty(Shape(a.rowCount, b.columnCount(experts: routing.experts)))
    backend.groupedGemm(alpha, a, b, 0, into: &c, routing)
    return c
  }

  /// c_e += α a_e b_e for every expert's rows.
  public func addGroupedProduct(
    _ alpha: Double, _ a: Tensor<B>, _ b: ExpertStack<B>, into c: inout Tensor<B>, _ routing: Routing<B>
  ) {
    backend.groupedGemm(alpha, a, b, 1, into: &c, routing)
  }

  /// A weight that is one vector, as a tensor (C).
  public func vector(_ weight: Weight<B>) -> Tensor<B> {
    switch weight {
    case .frozen(let frozen): backend.vector(frozen)
    case .trained(let parameter): parameter.value
    }
  }
}

extension ExpertStack {
  /// Rows and columns of one expert's matrix as a product reads it.
  public func matrixShape(experts: Int) -> Shape {
    let stored =
      axis == .rows
      ? Shape(matrices.rowCount / experts, matrices.columnCount) : Shape(matrices.rowCount, matrices.columnCount / experts)
    return isTransposed ? Shape(stored.columns, stored.rows) : stored
  }

  /// Columns of one expert's matrix as a product reads it.
  func columnCount(experts: Int) -> Int { matrixShape(experts: experts).columns }
}
