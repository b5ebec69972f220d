import Tensors

// Points that only some rows of a tensor pass: those of an adapter, or of an expert. Without a listener nothing is formed; a replaced
// block of rows is written back.
extension Run {
  /// A point that the rows `range` of an activation pass.
  func hook(
    rows range: Range<Int>, of x: inout Tensor<B>, _ module: @autoclosure () -> String, _ name: StaticString, _ equation: StaticString
  ) {
    guard isObserved else { return }
    if range == 0..<x.rowCount { return hook(&x, module(), "\(name)", equation) }
    guard listens(to: "\(module()).\(name)") else { return }
    var rows = backend.copy(x.rows(range))
    let before = rows
    hook(&rows, module(), "\(name)", equation)
    if rows.storage !== before.storage { backend.copy(rows, into: &x, rows: range) }
  }

  /// A point that the rows `range` of a gradient pass.
  func hook(rows range: Range<Int>, ofGradient dx: inout Tensor<B>, _ module: @autoclosure () -> String, _ name: StaticString) {
    guard isObserved else { return }
    if range == 0..<dx.rowCount { return hook(gradient: &dx, module(), "\(name)") }
    guard listens(to: "\(module()).\(name)") else { return }
    var rows = backend.copy(dx.rows(range))
    let before = rows
    hook(gradient: &rows, module(), "\(name)")
    if rows.storage !== before.storage { backend.copy(rows, into: &dx, rows: range) }
  }

  /// The points of rows ordered by expert (M,W): expert e's pass as `<module>.experts.<e>.<name>`.
  func hook(
    experts routing: Routing<B>, _ x: inout Tensor<B>, _ module: @autoclosure () -> String, _ name: StaticString, _ equation: StaticString
  ) {
    forEachObservedExpert(routing, module(), name) { e, range in
      hook(rows: range, of: &x, "\(module()).experts.\(e)", name, equation)
    }
  }

  /// The points of gradients of rows ordered by expert.
  func hook(experts routing: Routing<B>, gradient dx: inout Tensor<B>, _ module: @autoclosure () -> String, _ name: StaticString) {
    forEachObservedExpert(routing, module(), name) { e, range in
      hook(rows: range, ofGradient: &dx, "\(module()).experts.\(e)", name)
    }
  }

  /// The rows of every expert that somebody listens to.
  private func forEachObservedExpert(
    _ routing: Routing<B>, _ module: @autoclosure () -> String, _ name: StaticString, _ body: (_ expert: Int, _ rows: Range<Int>) -> Void
  ) {
    guard isObserved else { return }
    let observed = (0..<routing.experts).filter { e in listens(to: "\(module()).experts.\(e).\(name)") }
    guard !observed.isEmpty, let offsets = attempt({ try backend.download(routing.offsets) }) else { return }
    for e in observed { body(e, Int(offsets[e])..<Int(offsets[e + 1])) }
  }
}
