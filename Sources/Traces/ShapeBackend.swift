import Tensors

/// A backend that computes nothing: every operation gives a tensor of the right shape and no numbers.
///
/// A pass over it visits every hook point of a model in order, which is how points are listed without reading a weight. Its pool has
/// blocks without memory, by the rules of every pool: their bytes are what the pass would need.
public final class ShapeBackend: Backend, MatrixFactorizing {
  /// A block of the pool, which comes back when nobody holds it any more.
  public final class Block {
    fileprivate let bytes: Int
    private var unwrittenBytes: Int
    private let sizeClass: Int
    private let pool: Pool

    init(_ bytes: Int, isZero: Bool = false, _ pool: Pool) {
      (self.bytes, self.pool, unwrittenBytes) = (bytes, pool, isZero ? bytes : 0)
      sizeClass = pool.free.take(bytes, isUnwritten: isZero) { _ in }.sizeClass
    }

    deinit { pool.free.put((), sizeClass, unwritten: unwrittenBytes) }

    fileprivate func clear() {
      pool.free.shrink(by: bytes - unwrittenBytes)
      unwrittenBytes = bytes
    }

    fileprivate func write(_ count: Int) {
      let written = min(count, unwrittenBytes)
      unwrittenBytes -= written
      pool.free.refill(written) { _, _ in }
    }
  }

  final class Pool {
    var free = FreeBlocks<Void>()
  }

  /// The shape of a weight is all that is kept of it.
  public struct Frozen: FrozenMatrixShape {
    /// Rows and columns.
    public let shape: Shape
  }

  /// Element type in name only.
  public typealias Scalar = Float
  /// No numbers.
  public typealias Storage = Block
  /// No numbers.
  public typealias IndexStorage = Block
  /// A shape.
  public typealias FrozenMatrix = Frozen
  /// A tensor without numbers.
  public typealias T = Tensor<ShapeBackend>
  /// Whole numbers that are not there.
  public typealias I = Indices<ShapeBackend>
  /// A plan without rows.
  public typealias R = Routing<ShapeBackend>
  let pool = Pool()
  private let scalarBytes: Int
  private let rowsOfHead: Int
  let use: MemoryUse
  var masks: [RandomKey: KeptMask] = [:]

  /// A backend without a device.
  public convenience init() { self.init(scalarBytes: 4, headRows: 128, MemoryUse(scalarBytes: 4)) }

  /// A backend without a device, which counts the bytes that another would need.
  ///
  /// - Parameter head: the head's matrix there.
  public convenience init<B: Backend>(like backend: B, head: Weight<B>) {
    self.init(scalarBytes: MemoryLayout<B.Scalar>.size, headRows: backend.headRows(head), backend.memoryUse)
  }

  private init(scalarBytes: Int, headRows: Int, _ use: MemoryUse) {
    (self.scalarBytes, rowsOfHead, self.use) = (scalarBytes, headRows, use)
  }

  /// The pool's bytes; nothing else is counted.
  public var counters: Counters {
    var counters = Counters()
    (counters.poolMisses, counters.poolBytes) = (pool.free.misses, pool.free.peakBytes)
    return counters
  }
  public func headRows(_ weight: Weight<ShapeBackend>) -> Int { rowsOfHead }
  /// That of the other.
  public var memoryUse: MemoryUse { use }

  private func indices(_ count: Int) -> I { Indices(storage: Block(4 * count, pool), count: count) }

  public func empty(_ shape: Shape) -> T { Tensor(storage: Block(scalarBytes * shape.count, pool), shape: shape) }
  public func zeros(_ shape: Shape) -> T {
    isLazy(shape) ? Tensor(storage: Block(scalarBytes * shape.count, isZero: true, pool), shape: shape) : empty(shape)
  }
  public func fill(_ value: Double, _ x: inout T) {
    if value == 0, isLazy(x.shape), x.storage.bytes == scalarBytes * x.shape.count { x.storage.clear() } else { write(x) }
  }
  private func isLazy(_ shape: Shape) -> Bool { shape.isVector && shape.count >= use.lazyCount }
  /// What writes a tensor calls this; only vectors of zeros can tell.
  func write(_ x: T) { x.storage.write(scalarBytes * x.shape.count) }
  public func copy(_ x: T) -> T { empty(x.shape) }
  public func copy(_ x: T, into y: inout T, rows: Range<Int>?, columns: Range<Int>?) { write(y) }
  public func copy(_ x: T, into y: inout T, rows: I) { write(y) }
  /// Zeros: there are no values to factorize.
  public func factors(_ kind: Factorization, of w: [Double], rows: Int, columns: Int, rank: Int) -> (l: [Double], r: [Double])? {
    (Array(repeating: 0, count: rows * rank), Array(repeating: 0, count: rank * columns))
  }
  public func upload(_ values: [Float], _ shape: Shape) -> T { empty(shape) }
  public func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> T { empty(shape) }
  public func upload(_ values: [Int32]) -> I { indices(values.count) }
  public func download(_ tensors: [T]) -> [[Float]] { tensors.map { Array(repeating: 0, count: $0.shape.count) } }
  public func download(_ indices: I) -> [Int32] { Array(repeating: 0, count: indices.count) }
  public func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Frozen { Frozen(shape: shape) }
  public func freeze(_ tensor: T) -> Frozen { Frozen(shape: tensor.shape) }
  public func vector(_ frozen: Frozen) -> T { empty(frozen.shape) }
  public func synchronize() {}
  public func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> T { empty(shape) }

  public func add(_ alpha: Double, _ x: T, into y: inout T, rows: Range<Int>?) { write(y) }
  public func scale(_ alpha: Double, _ x: inout T) { write(x) }
  public func addBias(_ bias: T, into y: inout T) {}
  public func addColumnSums(_ x: T, weights: T?, into sums: inout T) { write(sums) }
  public func sum(_ x: T) -> T { empty(Shape(1)) }
  public func dot(_ x: T, _ y: T) -> T { empty(Shape(1)) }
  public func rowDots(_ x: T, _ y: T) -> T { empty(Shape(x.rowCount)) }
  public func scaleRows(_ weights: T, _ x: inout T) {}
  public func gemm(
    _ alpha: Double, _ a: Operand<ShapeBackend>, _ b: Operand<ShapeBackend>, _ beta: Double, into c: inout T,
    rows: Range<Int>?
  ) { write(c) }

  public func rmsNorm(_ x: T, _ weight: T, offset: Double, epsilon: Double)
    -> (y: T, rho: T)
  { (empty(x.shape), empty(Shape(x.rowCount))) }
  public func rmsNormBackward(
    _ dy: T, _ x: T, _ weight: T, offset: Double, rho: T,
    into dx: inout T
  ) {}
  public func rmsNormWeightGradient(
    _ dy: T, _ x: T, rho: T, into dweight: inout T
  ) { write(dweight) }
  public func rope(
    _ x: inout T, positions: I, table: T, inverse: Bool
  ) {}
  public func attention(
    _ q: T, _ k: T, _ v: T, _ plan: SequencePlan<ShapeBackend>,
    _ form: AttentionForm
  ) -> (output: T, logSumExp: T) { (empty(q.shape), empty(Shape(q.rowCount, form.heads))) }
  public func attentionBackward(
    _ dy: T, _ q: T, _ k: T, _ v: T,
    output: T, logSumExp: T, _ plan: SequencePlan<ShapeBackend>, _ form: AttentionForm
  ) -> (dq: T, dk: T, dv: T) { (empty(q.shape), empty(k.shape), empty(v.shape)) }
  public func gated(_ activation: Activation, _ a: T, _ c: T) -> T {
    empty(a.shape)
  }
  public func gatedBackward(
    _ activation: Activation, _ dh: T, _ a: T, _ c: T
  ) -> (da: T, dc: T) { (empty(a.shape), empty(c.shape)) }

  public func embedding(_ ids: I, _ table: Operand<ShapeBackend>) -> T {
    empty(Shape(ids.count, table.shape.columns))
  }
  public func addEmbeddingGradient(
    _ alpha: Double, _ dy: T, _ ids: I, into dtable: inout T
  ) { write(dtable) }
  public func softcap(_ cap: Double, _ z: inout T) {}
  public func crossEntropy(
    _ z: inout T, labels: I, scale: Double, softcap: Double?
  ) -> T { empty(Shape(z.rowCount)) }
  public func gather(_ x: T, rows: I) -> T {
    empty(Shape(rows.count, x.columnCount))
  }
  public func addScattered(_ x: T, rows: I, into y: inout T) {}
  public func dropout(_ x: T, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<ShapeBackend>) -> T {
    keepMask(key, rows, nil, columns: x.columnCount)
    return empty(x.shape)
  }
  public func dropout(
    _ x: T, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<ShapeBackend>, _ routing: R
  ) -> T {
    keepMask(key, rows, routing, columns: x.columnCount)
    return empty(x.shape)
  }

  public func softmax(_ logits: T) -> T { empty(logits.shape) }
  public func choose(_ p: T, _ policy: RoutingPolicy) -> I {
    indices(p.rowCount * policy.slots(of: p.columnCount))
  }
  public func route(_ p: T, choice: I, _ policy: RoutingPolicy) -> R {
    let (m, e) = (choice.count, p.columnCount)
    return Routing(
      policy: policy, tokens: p.rowCount, experts: e, rows: m, choice: choice, rowOfSlot: indices(m), tokenOfRow: indices(m),
      slotOfRow: indices(m), offsets: indices(e + 1), weights: empty(Shape(m)), counts: empty(Shape(e)), firstCounts: empty(Shape(e)))
  }
  public func routerBackward(
    _ dw: T, _ p: T, _ routing: R, balance: T
  ) -> T { empty(p.shape) }
  public func dispatch(_ x: T, _ routing: R) -> T {
    empty(Shape(routing.rows, x.columnCount))
  }
  public func combine(_ x: T, weights: T?, _ routing: R) -> T {
    empty(Shape(routing.tokens, x.columnCount))
  }
  public func dispatchBlocks(_ x: T, _ routing: R) -> T {
    empty(Shape(routing.rows, x.columnCount / routing.experts))
  }
  public func combineBlocks(_ x: T, weights: T?, _ routing: R)
    -> T
  { empty(Shape(routing.tokens, x.columnCount * routing.experts)) }
  public func groupedGemm(
    _ alpha: Double, _ a: T, _ b: ExpertStack<ShapeBackend>, _ beta: Double, into c: inout T,
    _ routing: R
  ) {}
  public func groupedOuter(
    _ alpha: Double, _ a: T, _ b: T, into g: inout T,
    stackedAlong axis: StackAxis, _ routing: R
  ) { write(g) }

  public func decoded(_ x: ByteBlocks<ShapeBackend>) -> T { empty(x.shape) }
  public func encode(_ x: T, into y: inout ByteBlocks<ShapeBackend>, factor: T?) { for written in [y.codes, y.scales] { write(written) } }
  public func clipFactor(_ squaredNorm: T, loss: T, maximum: Double)
    -> (factor: T, norm: T)
  { (empty(Shape(1)), empty(Shape(1))) }
  public func adamW(
    _ x: inout T, gradient: T, factor: T?, _ m: inout T,
    _ v: inout T, _ settings: AdamWSettings, range: Range<Int>?
  ) { for written in [x, m, v] { write(written) } }
  public func sgd(
    _ x: inout T, gradient: T, factor: T?,
    momentum b: inout T, _ settings: SGDSettings, range: Range<Int>?
  ) { for written in [x, b] { write(written) } }
}
