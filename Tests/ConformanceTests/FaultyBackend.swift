import Tensors

@testable import Conformance

/// The naive backend with one deliberate mistake, which shows that the suite can fail.
///
/// A named fault stands in the operation that it spoils. Besides, any operation can be told to get the last element of what it gives
/// wrong.
final class FaultyBackend<Scalar: BinaryFloatingPoint & SIMDScalar & Codable & Sendable>: Backend {
  typealias Base = NaiveBackend<Scalar>
  typealias Storage = Base.Storage
  typealias IndexStorage = Base.IndexStorage
  typealias FrozenMatrix = Base.FrozenMatrix
  typealias T = Tensor<FaultyBackend>
  typealias I = Indices<FaultyBackend>
  typealias R = Routing<FaultyBackend>

  let base = Base()
  let fault: Fault?
  let wrongOperation: String?
  var normsComputed = 0
  private var extra = Counters()

  init(_ fault: Fault? = nil, wrongIn operation: String? = nil) {
    self.fault = fault
    wrongOperation = operation
  }

  // MARK: To the definitions and back

  func to(_ x: T) -> Tensor<Base> {
    let stride = fault == .viewsReadAsContiguous ? x.columnCount : x.rowStride
    return Tensor(storage: x.storage, offset: x.offset, shape: x.shape, rowStride: stride)
  }

  func to(_ indices: I) -> Indices<Base> {
    Indices(storage: indices.storage, offset: fault == .indicesIgnoreOffset ? 0 : indices.offset, count: indices.count)
  }

  func to(_ operand: Operand<FaultyBackend>) -> Operand<Base> {
    switch operand {
    case .dense(let x, let transposed): .dense(to(x), transposed: transposed)
    case .frozen(let frozen, let transposed): .frozen(frozen, transposed: transposed)
    }
  }

  func to(_ plan: SequencePlan<FaultyBackend>) -> SequencePlan<Base> {
    SequencePlan(offsets: plan.offsets, keyRows: plan.keyRows, onDevice: to(plan.onDevice))
  }

  func to(_ rows: RowIdentity<FaultyBackend>) -> RowIdentity<Base> {
    RowIdentity(samples: to(rows.samples), positions: to(rows.positions), step: rows.step)
  }

  func to(_ routing: R, choice: Indices<Base>? = nil) -> Routing<Base> {
    Routing(
      policy: routing.policy, tokens: routing.tokens, experts: routing.experts, rows: routing.rows, choice: choice ?? to(routing.choice),
      rowOfSlot: to(routing.rowOfSlot), tokenOfRow: to(routing.tokenOfRow), slotOfRow: to(routing.slotOfRow), offsets: to(routing.offsets),
      weights: to(routing.weights), counts: to(routing.counts), firstCounts: to(routing.firstCounts))
  }

  /// What an operation gives, perhaps with a wrong last element.
  func from(_ x: Tensor<Base>, _ operation: String) -> T {
    let result = T(storage: x.storage, offset: x.offset, shape: x.shape, rowStride: x.rowStride)
    spoil(result, operation)
    return result
  }

  func from(_ indices: Indices<Base>, _ operation: String) -> I {
    if operation != wrongOperation || indices.count == 0 {
      return I(storage: indices.storage, offset: indices.offset, count: indices.count)
    }
    var values = base.list(indices).map { Int32($0) }
    values[values.count - 1] = values[values.count - 1] == 0 ? 1 : 0
    return I(storage: IndexStorage(values), count: values.count)
  }

  private func spoil(_ x: T, _ operation: String) {
    if fault == .computesInFloat { x.storage.values = x.storage.values.map { Scalar(Float($0)) } }
    if operation == wrongOperation, x.shape.count > 0 {
      let last = x.offset + (x.rowCount - 1) * x.rowStride + x.columnCount - 1
      x.storage.values[last] = x.storage.values[last].isNaN ? 0 : x.storage.values[last] + 0.25
    }
  }

  /// Lends what an operation writes, as its only holder where the caller is.
  func writing(_ x: inout T, _ operation: String, _ body: (inout Tensor<Base>) -> Void) {
    let (offset, shape, stride) = (x.offset, x.shape, x.rowStride)
    let old = Unmanaged.passUnretained(x.storage)
    var lent = to(x)
    x.storage = Storage([])
    body(&lent)
    if fault == .writesSharedStorage, lent.storage !== old.takeUnretainedValue() {
      let values = base.list(lent)
      lent = Tensor(storage: old.takeUnretainedValue(), offset: offset, shape: shape, rowStride: stride)
      for i in 0..<shape.rows {
        for j in 0..<shape.columns { lent.storage.values[offset + i * stride + j] = Scalar(values[i * shape.columns + j]) }
      }
    }
    x = T(storage: lent.storage, offset: lent.offset, shape: lent.shape, rowStride: lent.rowStride)
    let end = x.offset + (x.rowCount - 1) * x.rowStride + x.columnCount
    if fault == .writesOneTooMany, x.shape.count > 0, end < x.storage.values.count { x.storage.values[end] = 0 }
    spoil(x, operation)
  }

  /// The same for plain lists.
  func replacing(_ x: inout T, _ operation: String, _ body: (Matrix) -> Matrix) {
    writing(&x, operation) { x in
      let values = body(base.matrix(x)).values
      base.operation { base.write(values, &x) }
    }
  }

  // MARK: Memory

  var counters: Counters {
    var counters = base.counters
    counters.waits += extra.waits
    counters.operations += extra.operations
    return counters
  }

  func empty(_ shape: Shape) -> T { from(base.empty(shape), "empty") }
  func zeros(_ shape: Shape) -> T { from(base.zeros(shape), "zeros") }

  func fill(_ value: Double, _ x: inout T) {
    if fault == .fillMultiplies { return replacing(&x, "fill") { $0.map { 0 * $0 + value } } }
    writing(&x, "fill") { base.fill(value, &$0) }
  }

  func copy(_ x: T) -> T { from(base.copy(to(x)), "copy") }

  func copy(_ x: T, into y: inout T, rows: Range<Int>?, columns: Range<Int>?) {
    let x = to(x)
    if fault == .copyIgnoresRanges {
      let part = base.list(x)
      return replacing(&y, "copy") { y in Matrix(y.rows, y.columns, part + y.values[part.count...]) }
    }
    writing(&y, "copy") { base.copy(x, into: &$0, rows: rows, columns: columns) }
  }

  func copy(_ x: T, into y: inout T, rows: I) {
    let (x, indices) = (to(x), to(rows))
    if fault == .copyIgnoresIndices {
      let rows = Array(0..<rows.count)
      return replacing(&y, "copy") { Naive.copy(base.matrix(x), rows: rows, to: $0) }
    }
    writing(&y, "copy") { base.copy(x, into: &$0, rows: indices) }
  }

  func upload(_ values: [Scalar], _ shape: Shape) -> T {
    from(base.upload(fault == .uploadsThroughFloat ? values.map { Scalar(Float($0)) } : values, shape), "upload")
  }

  func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> T {
    from(base.upload(bytes, format, shape), "upload")
  }

  func upload(_ values: [Int32]) -> I { from(base.upload(values), "upload") }

  func download(_ tensors: [T]) throws -> [[Scalar]] {
    if fault == .downloadWaitsForEach { extra.waits += tensors.count - 1 }
    var values = try base.download(tensors.map { to($0) })
    if wrongOperation == "download", let n = values.last?.count, n > 0 { values[values.count - 1][n - 1] += 1 }
    return values
  }

  func download(_ indices: I) throws -> [Int32] { try base.download(to(indices)) }

  func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> FrozenMatrix {
    spoiled(base.freeze(bytes, format, shape))
  }

  func freeze(_ tensor: T) -> FrozenMatrix { spoiled(base.freeze(to(tensor))) }

  private func spoiled(_ frozen: FrozenMatrix) -> FrozenMatrix {
    if wrongOperation != "freeze" || frozen.values.isEmpty { return frozen }
    return FrozenMatrix(values: frozen.values.dropLast() + [7], shape: frozen.shape)
  }

  func vector(_ frozen: FrozenMatrix) -> T { from(base.vector(frozen), "vector") }
  func synchronize() throws { if wrongOperation != "synchronize" { try base.synchronize() } }
  func headRows(_ weight: Weight<FaultyBackend>) -> Int { wrongOperation == "headRows" ? 0 : 128 }
  func scratchBytes(rows: Int, _ weights: [Weight<FaultyBackend>]) -> Int { wrongOperation == "scratchBytes" ? -1 : 0 }

  func endWarmUp() { if wrongOperation == "endWarmUp" { extra.poolMisses += 1 } }

  func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> T {
    var distribution = distribution
    if fault == .normalTooWide, case .normal(let deviation) = distribution { distribution = .normal(deviation: 1.2 * deviation) }
    return from(base.random(shape, distribution, key), "random")
  }

  // MARK: Elementwise and sums

  func add(_ alpha: Double, _ x: T, into y: inout T, rows: Range<Int>?) {
    if fault == .countsTwice { extra.operations += 1 }
    let x = to(x)
    let rows = fault == .addIgnoresRows ? rows.map { 0..<$0.count } : rows
    writing(&y, "add") { base.add(alpha, x, into: &$0, rows: rows) }
  }

  func scale(_ alpha: Double, _ x: inout T) {
    if fault == .countsTwice { extra.operations += 1 }
    if fault == .zeroTimesNaNIsZero, alpha == 0 { return replacing(&x, "scale") { Matrix($0.rows, $0.columns) } }
    writing(&x, "scale") { base.scale(alpha, &$0) }
  }

  func addBias(_ bias: T, into y: inout T) {
    let bias = to(bias)
    writing(&y, "addBias") { base.addBias(bias, into: &$0) }
  }

  func addColumnSums(_ x: T, weights: T?, into sums: inout T) {
    let (x, weights) = (to(x), weights.map { to($0) })
    writing(&sums, "addColumnSums") {
      if fault == .columnSumsOverwrite { base.fill(0, &$0) }
      base.addColumnSums(x, weights: weights, into: &$0)
    }
  }

  func sum(_ x: T) -> T { from(base.sum(to(x)), "sum") }
  func dot(_ x: T, _ y: T) -> T { from(base.dot(to(x), to(y)), "dot") }
  func rowDots(_ x: T, _ y: T) -> T { from(base.rowDots(to(x), to(y)), "rowDots") }

  func scaleRows(_ weights: T, _ x: inout T) {
    let weights = to(weights)
    writing(&x, "scaleRows") { base.scaleRows(weights, &$0) }
  }

  func gemm(
    _ alpha: Double, _ a: Operand<FaultyBackend>, _ b: Operand<FaultyBackend>, _ beta: Double, into c: inout T, rows: Range<Int>?
  ) {
    let (a, b) = (to(a), to(b))
    writing(&c, "gemm") { c in
      if fault == .gemmReadsCWithBetaZero, beta == 0 { base.scale(0, &c) }
      let beta = fault == .gemmReadsCWithBetaZero ? 1 : fault == .gemmIgnoresBeta ? 0 : beta
      base.gemm(alpha, a, b, beta, into: &c, rows: rows)
    }
  }
}
