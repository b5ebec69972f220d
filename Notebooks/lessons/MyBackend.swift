// A backend to begin with: every operation is handed to the naive one, so that models run and the conformance suite passes from the
// first minute. Copy it, then replace operation by operation by your device's. The guide: Sources/MixLoRA/MixLoRA.docc/WriteABackend.md
import MixLoRA

final class MyBackend: Backend {
  typealias Base = NaiveBackend<Float>
  typealias Scalar = Float
  typealias Storage = Base.Storage  // your device's buffers, once you have them
  typealias IndexStorage = Base.IndexStorage
  typealias FrozenMatrix = Base.FrozenMatrix
  typealias T = Tensor<MyBackend>
  typealias I = Indices<MyBackend>
  typealias R = Routing<MyBackend>

  let base = Base()
  private let nothing: Storage
  var counters: Counters { base.counters }

  init() { nothing = base.empty(Shape(0)).storage }

  // MARK: To the naive backend and back

  func to(_ x: T) -> Tensor<Base> { Tensor(storage: x.storage, offset: x.offset, shape: x.shape, rowStride: x.rowStride) }
  func to(_ i: I) -> Indices<Base> { Indices(storage: i.storage, offset: i.offset, count: i.count) }
  func to(_ plan: SequencePlan<MyBackend>) -> SequencePlan<Base> {
    SequencePlan(offsets: plan.offsets, keyRows: plan.keyRows, onDevice: to(plan.onDevice))
  }
  func to(_ rows: RowIdentity<MyBackend>) -> RowIdentity<Base> {
    RowIdentity(samples: to(rows.samples), positions: to(rows.positions), step: rows.step)
  }
  func to(_ operand: Operand<MyBackend>) -> Operand<Base> {
    switch operand {
    case .dense(let x, let transposed): .dense(to(x), transposed: transposed)
    case .frozen(let matrix, let transposed): .frozen(matrix, transposed: transposed)
    }
  }
  func to(_ x: ByteBlocks<MyBackend>) -> ByteBlocks<Base> {
    ByteBlocks(x.shape, codes: to(x.codes), scales: to(x.scales), map: to(x.map), isSigned: x.isSigned)
  }
  func to(_ r: R) -> Routing<Base> {
    Routing(
      policy: r.policy, tokens: r.tokens, experts: r.experts, rows: r.rows, choice: to(r.choice), rowOfSlot: to(r.rowOfSlot),
      tokenOfRow: to(r.tokenOfRow), slotOfRow: to(r.slotOfRow), offsets: to(r.offsets), weights: to(r.weights), counts: to(r.counts),
      firstCounts: to(r.firstCounts))
  }

  func from(_ x: Tensor<Base>) -> T { T(storage: x.storage, offset: x.offset, shape: x.shape, rowStride: x.rowStride) }
  func from(_ i: Indices<Base>) -> I { I(storage: i.storage, offset: i.offset, count: i.count) }

  /// Lends a tensor that is written; x holds nothing meanwhile, so that storage which nobody shares is written in place.
  func write(_ x: inout T, _ body: (inout Tensor<Base>) -> Void) {
    var lent = to(x)
    x.storage = nothing
    body(&lent)
    x = from(lent)
  }

  // MARK: Memory

  func empty(_ shape: Shape) -> T { from(base.empty(shape)) }
  func zeros(_ shape: Shape) -> T { from(base.zeros(shape)) }
  func fill(_ value: Double, _ x: inout T) { write(&x) { base.fill(value, &$0) } }
  func copy(_ x: T) -> T { from(base.copy(to(x))) }
  func copy(_ x: T, into y: inout T, rows: Range<Int>?, columns: Range<Int>?) {
    write(&y) { base.copy(to(x), into: &$0, rows: rows, columns: columns) }
  }
  func copy(_ x: T, into y: inout T, rows: I) { write(&y) { base.copy(to(x), into: &$0, rows: to(rows)) } }
  func upload(_ values: [Float], _ shape: Shape) -> T { from(base.upload(values, shape)) }
  func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> T { from(base.upload(bytes, format, shape)) }
  func upload(_ values: [Int32]) -> I { from(base.upload(values)) }
  func download(_ tensors: [T]) throws -> [[Float]] { try base.download(tensors.map { to($0) }) }
  func download(_ indices: I) throws -> [Int32] { try base.download(to(indices)) }
  func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> FrozenMatrix { base.freeze(bytes, format, shape) }
  func freeze(_ tensor: T) -> FrozenMatrix { base.freeze(to(tensor)) }
  func vector(_ frozen: FrozenMatrix) -> T { from(base.vector(frozen)) }
  func synchronize() throws { try base.synchronize() }
  func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> T { from(base.random(shape, distribution, key)) }

  // MARK: Elementwise and sums

  func add(_ alpha: Double, _ x: T, into y: inout T, rows: Range<Int>?) { write(&y) { base.add(alpha, to(x), into: &$0, rows: rows) } }
  func scale(_ alpha: Double, _ x: inout T) { write(&x) { base.scale(alpha, &$0) } }
  func addBias(_ bias: T, into y: inout T) { write(&y) { base.addBias(to(bias), into: &$0) } }
  func addColumnSums(_ x: T, weights: T?, into sums: inout T) {
    write(&sums) { base.addColumnSums(to(x), weights: weights.map { to($0) }, into: &$0) }
  }
  func sum(_ x: T) -> T { from(base.sum(to(x))) }
  func dot(_ x: T, _ y: T) -> T { from(base.dot(to(x), to(y))) }
  func rowDots(_ x: T, _ y: T) -> T { from(base.rowDots(to(x), to(y))) }
  func scaleRows(_ weights: T, _ x: inout T) { write(&x) { base.scaleRows(to(weights), &$0) } }

  // MARK: Products, norms, positions

  func gemm(_ alpha: Double, _ a: Operand<MyBackend>, _ b: Operand<MyBackend>, _ beta: Double, into c: inout T, rows: Range<Int>?) {
    write(&c) { base.gemm(alpha, to(a), to(b), beta, into: &$0, rows: rows) }
  }
  func rmsNorm(_ x: T, _ weight: T, offset: Double, epsilon: Double) -> (y: T, rho: T) {
    let (y, rho) = base.rmsNorm(to(x), to(weight), offset: offset, epsilon: epsilon)
    return (from(y), from(rho))
  }
  func rmsNormBackward(_ dy: T, _ x: T, _ weight: T, offset: Double, rho: T, into dx: inout T) {
    write(&dx) { base.rmsNormBackward(to(dy), to(x), to(weight), offset: offset, rho: to(rho), into: &$0) }
  }
  func rmsNormWeightGradient(_ dy: T, _ x: T, rho: T, into dweight: inout T) {
    write(&dweight) { base.rmsNormWeightGradient(to(dy), to(x), rho: to(rho), into: &$0) }
  }
  func rope(_ x: inout T, positions: I, table: T, inverse: Bool) {
    write(&x) { base.rope(&$0, positions: to(positions), table: to(table), inverse: inverse) }
  }

  // MARK: Attention and gated units

  func attention(_ q: T, _ k: T, _ v: T, _ plan: SequencePlan<MyBackend>, _ form: AttentionForm) -> (output: T, logSumExp: T) {
    let (output, logSumExp) = base.attention(to(q), to(k), to(v), to(plan), form)
    return (from(output), from(logSumExp))
  }
  func attentionBackward(
    _ dy: T, _ q: T, _ k: T, _ v: T, output: T, logSumExp: T, _ plan: SequencePlan<MyBackend>, _ form: AttentionForm
  ) -> (dq: T, dk: T, dv: T) {
    let (dq, dk, dv) = base.attentionBackward(
      to(dy), to(q), to(k), to(v), output: to(output), logSumExp: to(logSumExp), to(plan), form)
    return (from(dq), from(dk), from(dv))
  }
  func gated(_ activation: Activation, _ a: T, _ c: T) -> T { from(base.gated(activation, to(a), to(c))) }
  func gatedBackward(_ activation: Activation, _ dh: T, _ a: T, _ c: T) -> (da: T, dc: T) {
    let (da, dc) = base.gatedBackward(activation, to(dh), to(a), to(c))
    return (from(da), from(dc))
  }

  // MARK: Tokens, losses, dropout

  func embedding(_ ids: I, _ table: Operand<MyBackend>) -> T { from(base.embedding(to(ids), to(table))) }
  func addEmbeddingGradient(_ alpha: Double, _ dy: T, _ ids: I, into dtable: inout T) {
    write(&dtable) { base.addEmbeddingGradient(alpha, to(dy), to(ids), into: &$0) }
  }
  func softcap(_ cap: Double, _ z: inout T) { write(&z) { base.softcap(cap, &$0) } }
  func crossEntropy(_ z: inout T, labels: I, scale: Double, softcap: Double?) -> T {
    var loss: T?
    write(&z) { loss = from(base.crossEntropy(&$0, labels: to(labels), scale: scale, softcap: softcap)) }
    return loss!
  }
  func gather(_ x: T, rows: I) -> T { from(base.gather(to(x), rows: to(rows))) }
  func addScattered(_ x: T, rows: I, into y: inout T) { write(&y) { base.addScattered(to(x), rows: to(rows), into: &$0) } }
  func dropout(_ x: T, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<MyBackend>) -> T {
    from(base.dropout(to(x), probability, key, to(rows)))
  }
  func dropout(_ x: T, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<MyBackend>, _ routing: R) -> T {
    from(base.dropout(to(x), probability, key, to(rows), to(routing)))
  }

  // MARK: Routing

  func softmax(_ logits: T) -> T { from(base.softmax(to(logits))) }
  func choose(_ p: T, _ policy: RoutingPolicy) -> I { from(base.choose(to(p), policy)) }
  func route(_ p: T, choice: I, _ policy: RoutingPolicy) -> R {
    let r = base.route(to(p), choice: to(choice), policy)
    return R(
      policy: policy, tokens: r.tokens, experts: r.experts, rows: r.rows, choice: from(r.choice), rowOfSlot: from(r.rowOfSlot),
      tokenOfRow: from(r.tokenOfRow), slotOfRow: from(r.slotOfRow), offsets: from(r.offsets), weights: from(r.weights),
      counts: from(r.counts), firstCounts: from(r.firstCounts))
  }
  func routerBackward(_ dw: T, _ p: T, _ routing: R, balance: T) -> T {
    from(base.routerBackward(to(dw), to(p), to(routing), balance: to(balance)))
  }
  func dispatch(_ x: T, _ routing: R) -> T { from(base.dispatch(to(x), to(routing))) }
  func combine(_ x: T, weights: T?, _ routing: R) -> T { from(base.combine(to(x), weights: weights.map { to($0) }, to(routing))) }
  func dispatchBlocks(_ x: T, _ routing: R) -> T { from(base.dispatchBlocks(to(x), to(routing))) }
  func combineBlocks(_ x: T, weights: T?, _ routing: R) -> T {
    from(base.combineBlocks(to(x), weights: weights.map { to($0) }, to(routing)))
  }
  func groupedGemm(_ alpha: Double, _ a: T, _ b: ExpertStack<MyBackend>, _ beta: Double, into c: inout T, _ routing: R) {
    let stack = ExpertStack(to(b.matrices), experts: b.experts, along: b.axis, isTransposed: b.isTransposed)
    write(&c) { base.groupedGemm(alpha, to(a), stack, beta, into: &$0, to(routing)) }
  }
  func groupedOuter(_ alpha: Double, _ a: T, _ b: T, into g: inout T, stackedAlong axis: StackAxis, _ routing: R) {
    write(&g) { base.groupedOuter(alpha, to(a), to(b), into: &$0, stackedAlong: axis, to(routing)) }
  }

  // MARK: Optimizers

  func clipFactor(_ squaredNorm: T, loss: T, maximum: Double) -> (factor: T, norm: T) {
    let (factor, norm) = base.clipFactor(to(squaredNorm), loss: to(loss), maximum: maximum)
    return (from(factor), from(norm))
  }
  func decoded(_ x: ByteBlocks<MyBackend>) -> T { from(base.decoded(to(x))) }
  func encode(_ x: T, into y: inout ByteBlocks<MyBackend>, factor: T?) {
    var lent = to(y)
    base.encode(to(x), into: &lent, factor: factor.map { to($0) })
    (y.codes, y.scales) = (from(lent.codes), from(lent.scales))
  }
  func adamW(_ x: inout T, gradient: T, factor: T?, _ m: inout T, _ v: inout T, _ settings: AdamWSettings, range: Range<Int>?) {
    write(&x) { x in
      write(&m) { m in
        write(&v) { v in base.adamW(&x, gradient: to(gradient), factor: factor.map { to($0) }, &m, &v, settings, range: range) }
      }
    }
  }
  func sgd(_ x: inout T, gradient: T, factor: T?, momentum b: inout T, _ settings: SGDSettings, range: Range<Int>?) {
    write(&x) { x in
      write(&b) { b in base.sgd(&x, gradient: to(gradient), factor: factor.map { to($0) }, momentum: &b, settings, range: range) }
    }
  }
}
