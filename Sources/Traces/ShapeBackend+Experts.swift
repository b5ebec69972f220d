import Tensors

// What the operations of the experts take while they run, and the masks that are kept.
extension ShapeBackend {
  /// Bits of a mask, and the integers that it was formed of, which it holds.
  struct KeptMask {
    let bits: Block
    let origin: [Block]
  }

  /// A mask whose key is asked for other rows takes the place of the one before.
  func keepMask(_ key: RandomKey, _ rows: RowIdentity<ShapeBackend>, _ routing: R?, columns: Int) {
    let bytes = (routing?.rows ?? rows.samples.count) * use.maskBytes(columns)
    let origin = [rows.samples.storage, rows.positions.storage] + (routing.map { [$0.choice.storage] } ?? [])
    if let kept = masks[key], kept.origin.elementsEqual(origin, by: ===) { return }
    masks[key] = nil
    if bytes > 0 { masks[key] = KeptMask(bits: Block(bytes, pool), origin: origin) }
  }

  /// The operation's own buffers; nil without such an operation.
  private func buffers(_ kind: ExpertOperation.Kind, _ routing: R, width: Int) -> [Block]? {
    use.scratch(ExpertOperation(kind, routing, width: width))?.map { Block($0, pool) }
  }

  /// A tensor of the result's shape.
  public func expertProduct(_ alpha: Double, _ x: T, _ s: ExpertStack<ShapeBackend>, _ routing: R) -> T {
    let rank = s.matrixShape.columns
    return withExtendedLifetime(buffers(.product(rank: rank), routing, width: x.columnCount)) { empty(Shape(routing.rows, rank)) }
  }
  /// Counts y as written.
  public func addExpertProducts(
    _ alpha: Double, _ t: T, weights: T?, _ s: ExpertStack<ShapeBackend>, into y: inout T, rows: Range<Int>, _ routing: R
  ) { withExtendedLifetime(buffers(.addition(rank: t.columnCount), routing, width: y.columnCount)) { write(y) } }
  /// Counts g as written.
  public func addExpertOuter(
    _ alpha: Double, _ t: T, weights: T?, _ x: T, into g: inout T, stackedAlong axis: StackAxis, _ routing: R
  ) { withExtendedLifetime(buffers(.addition(rank: t.columnCount), routing, width: x.columnCount)) { write(g) } }
  /// Counts g as written, and a dx of nil becomes a tensor.
  public func addExpertGradients(
    _ dt: T, _ x: T, _ s: ExpertStack<ShapeBackend>, into g: inout T, _ dx: inout T?, _ routing: R
  ) {
    if dx == nil { dx = zeros(x.shape) }
    withExtendedLifetime(buffers(.addition(rank: dt.columnCount), routing, width: x.columnCount)) { write(g) }
  }
  /// Tensors of the results' shapes; nil where the other backend has no such pass.
  public func expertHidden(_ hidden: ExpertHidden<ShapeBackend>, _ routing: R) -> ExpertHidden<ShapeBackend>.Result? {
    let (base, rank2) = (hidden.a.base.shape, hidden.a2.map { $0.shape.rows / routing.experts } ?? 0)
    guard let buffers = buffers(.hidden(rank2: rank2), routing, width: base.columns) else { return nil }
    return withExtendedLifetime(buffers) {
      keepMask(of: hidden, routing)
      return .init(v: empty(base), t2: hidden.a2.map { _ in empty(Shape(routing.rows, rank2)) })
    }
  }
  /// Tensors of the results' shapes, and the parameters' gradients count as written; nil where `expertHidden` gives nil.
  public func expertHiddenBackward(_ q: T, z: T?, _ hidden: ExpertHidden<ShapeBackend>, _ routing: R)
    -> ExpertHidden<ShapeBackend>.Gradient?
  {
    func rank(_ sum: ExpertSum<ShapeBackend>) -> Int { sum.branch?.t.columnCount ?? 0 }
    let kind = ExpertOperation.Kind.hiddenBackward(rank1: rank(hidden.a), rank2: z?.columnCount ?? 0, rank3: rank(hidden.c))
    guard let buffers = buffers(kind, routing, width: q.columnCount) else { return nil }
    return withExtendedLifetime(buffers) {
      keepMask(of: hidden, routing)
      let (da, dc, dw) = (empty(q.shape), empty(q.shape), empty(Shape(routing.rows)))
      for written in [hidden.a.branch?.b, hidden.c.branch?.b, hidden.a2] { if let written { write(written.gradient) } }
      func dt(_ sum: ExpertSum<ShapeBackend>) -> T? { sum.branch.map { empty($0.t.shape) } }
      return .init(dw: dw, a: (da, dt(hidden.a)), c: (dc, dt(hidden.c)))
    }
  }

  private func keepMask(of hidden: ExpertHidden<ShapeBackend>, _ routing: R) {
    if let mask = hidden.mask { keepMask(mask.key, mask.rows, routing, columns: hidden.a.base.columnCount) }
  }
}
