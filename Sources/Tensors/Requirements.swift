// What operations ask of their inputs, whatever backend runs them; a breach is the caller's bug and traps with names and shapes.

extension Backend {
  /// Shapes of attention's inputs, and a plan and a form that fit them.
  package func requireAttention(
    _ operation: StaticString, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ plan: SequencePlan<Self>, _ form: AttentionForm
  ) {
    let (n, h, g, d) = (plan.rows, form.heads, form.keyValueHeads, form.headWidth)
    let p = plan.keyRows == nil ? n : k.rowCount
    guard g > 0, h % g == 0 else { trap("\(operation): \(h) query heads over \(g) key and value heads") }
    requireShapes(operation, ("q", q.shape, Shape(n, h * d)), ("k", k.shape, Shape(p, g * d)), ("v", v.shape, Shape(p, g * d)))
    if let window = form.window, window < 1 { trap("\(operation): a window of \(window) rows") }
    if let cap = form.softcap, !(cap > 0) { trap("\(operation): a soft cap of \(cap)") }
    if let keys = plan.keyRows, !keys.allSatisfy({ $0.lowerBound >= 0 && $0.upperBound <= p }) {
      trap("\(operation): keys in rows \(keys) of \(p)")
    }
  }

  /// A sample and a position for every row.
  package func requireIdentity(_ identity: RowIdentity<Self>, _ rows: Int) {
    guard identity.samples.count == rows, identity.positions.count == rows else {
      trap("dropout: \(identity.samples.count) samples and \(identity.positions.count) positions for \(rows) rows")
    }
  }

  /// Rows in expert order, and weights of as many.
  package func requireRows(_ operation: StaticString, _ x: Tensor<Self>, _ weights: Tensor<Self>?, _ routing: Routing<Self>) {
    requireShapes(operation, ("x", x.shape, Shape(routing.rows, x.columnCount)))
    if let weights { requireShapes(operation, ("weights", weights.shape, Shape(routing.rows))) }
  }

  /// The elements of `range`, which a vector must have; all of them without one.
  package func part(_ operation: StaticString, _ x: Tensor<Self>, _ range: Range<Int>?) -> Range<Int> {
    guard let range else { return 0..<x.columnCount }
    guard x.shape.isVector, range.lowerBound >= 0, range.upperBound <= x.columnCount else {
      trap("\(operation): elements \(range) of x \(x.shape)")
    }
    return range
  }
}

/// What a probability of dropout is in the units in which it is drawn.
package struct DropoutMask<Scalar: BinaryFloatingPoint> {
  /// A 16-bit number below it drops its element.
  package let threshold: UInt32
  /// What is kept is multiplied with it.
  package let factor: Scalar

  /// Nil if nothing is dropped.
  package init?(_ probability: Double) {
    guard probability >= 0, probability < 1 else { trap("dropout: probability \(probability), expected 0 ..< 1") }
    threshold = UInt32((probability * 0x1p16).rounded())
    if threshold == 0 { return nil }
    factor = Scalar(1 / (1 - Double(threshold) * 0x1p-16))
  }
}
