import Conformance
import Tensors

/// The definitions as a backend, with one deliberate mistake on request.
///
/// It shows that the suite passes what is right and that each check can fail. Values are kept in `Scalar` and computed
/// in float64.
final class NaiveBackend<Scalar: BinaryFloatingPoint & SIMDScalar & Codable & Sendable>: Backend {
  final class Storage {
    var values: [Scalar]
    init(_ values: [Scalar]) { self.values = values }
  }

  final class IndexStorage {
    let values: [Int32]
    init(_ values: [Int32]) { self.values = values }
  }

  struct FrozenMatrix: FrozenMatrixShape {
    let values: [Scalar]
    let shape: Shape
  }

  typealias T = Tensor<NaiveBackend>
  typealias I = Indices<NaiveBackend>
  typealias Plan = Naive.Plan

  private let fault: Fault?
  private var normsComputed = 0
  private(set) var counters = Counters()

  init(_ fault: Fault? = nil) { self.fault = fault }

  // MARK: Between tensors and lists

  private func list(_ x: T) -> [Double] {
    var values: [Double] = []
    let stride = fault == .viewsReadAsContiguous ? x.columnCount : x.rowStride
    for i in 0..<x.rowCount {
      for j in 0..<x.columnCount { values.append(Double(x.storage.values[x.offset + i * stride + j])) }
    }
    return values
  }

  private func matrix(_ x: T) -> Matrix { Matrix(x.rowCount, x.columnCount, list(x)) }

  private func matrix(_ operand: Operand<NaiveBackend>) -> Matrix {
    switch operand {
    case .dense(let x, let transposed): return transposed ? matrix(x).transposed : matrix(x)
    case .frozen(let frozen, let transposed):
      let m = Matrix(frozen.shape.rows, frozen.shape.columns, frozen.values.map { Double($0) })
      return transposed ? m.transposed : m
    }
  }

  private func list(_ indices: I) -> [Int] { indices.storage.values.map { Int($0) } }

  private func rounded(_ x: Double) -> Scalar { fault == .computesInFloat ? Scalar(Float(x)) : Scalar(x) }

  private func tensor(_ m: Matrix) -> T { T(storage: Storage(m.values.map(rounded)), shape: Shape(m.rows, m.columns)) }

  private func tensor(_ v: [Double]) -> T { T(storage: Storage(v.map(rounded)), shape: Shape(v.count)) }

  private func indices(_ v: [Int]) -> I { upload(v.map { Int32($0) }) }

  private func write(_ values: [Double], _ x: inout T) {
    if !isKnownUniquelyReferenced(&x.storage) && fault != .writesSharedStorage {
      x = T(storage: Storage([Scalar](repeating: 0, count: x.shape.count)), shape: x.shape)
      counters.sharedCopies += 1
    }
    for i in 0..<x.rowCount {
      for j in 0..<x.columnCount { x.storage.values[x.offset + i * x.rowStride + j] = rounded(values[i * x.columnCount + j]) }
    }
    let end = x.offset + x.rowCount * x.rowStride
    if fault == .writesOneTooMany && x.shape.count > 0 && end < x.storage.values.count { x.storage.values[end] = 0 }
  }

  private func plan(_ routing: Routing<NaiveBackend>) -> Plan {
    Plan(
      tokens: routing.tokens, experts: routing.experts, expertsPerToken: routing.expertsPerToken, choice: list(routing.choice),
      rowOfChoice: list(routing.rowOfChoice), tokenOfRow: list(routing.tokenOfRow), choiceOfRow: list(routing.choiceOfRow),
      offsets: list(routing.offsets), weights: list(routing.weights))
  }

  // MARK: Memory

  func empty(_ shape: Shape) -> T { T(storage: Storage([Scalar](repeating: .nan, count: shape.count)), shape: shape) }
  func zeros(_ shape: Shape) -> T { T(storage: Storage([Scalar](repeating: 0, count: shape.count)), shape: shape) }
  func copy(_ x: T) -> T { T(storage: Storage(list(x).map { Scalar($0) }), shape: x.shape) }

  func copy(_ x: T, into y: inout T, rows: Range<Int>?, columns: Range<Int>?) {
    var (x, whole) = (matrix(x), matrix(y))
    if fault == .copyIgnoresRanges { x = Matrix(1, x.values.count, x.values) }
    let (rows, columns) = fault == .copyIgnoresRanges ? (0..<1, 0..<x.columns) : (rows ?? 0..<whole.rows, columns ?? 0..<whole.columns)
    for i in 0..<rows.count {
      for j in 0..<columns.count { whole.values[(rows.lowerBound + i) * whole.columns + columns.lowerBound + j] = x[i, j] }
    }
    write(whole.values, &y)
  }

  func upload(_ values: [Scalar], _ shape: Shape) -> T {
    counters.bytesToDevice += values.count * MemoryLayout<Scalar>.size
    return T(storage: Storage(fault == .uploadsThroughFloat ? values.map { Scalar(Float($0)) } : values), shape: shape)
  }

  func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> T {
    T(storage: Storage(Naive.decode(Array(bytes), format).map { Scalar($0) }), shape: shape)
  }

  func upload(_ values: [Int32]) -> I { I(storage: IndexStorage(values), count: values.count) }

  func download(_ x: T) throws -> [Scalar] {
    counters.bytesToHost += x.shape.count * MemoryLayout<Scalar>.size
    return list(x).map { Scalar($0) }
  }

  func download(_ indices: I) throws -> [Int32] { indices.storage.values }

  func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> FrozenMatrix {
    FrozenMatrix(values: Naive.decode(Array(bytes), format).map { Scalar($0) }, shape: shape)
  }

  func freeze(_ tensor: T) -> FrozenMatrix { FrozenMatrix(values: list(tensor).map { Scalar($0) }, shape: tensor.shape) }
  func vector(_ frozen: FrozenMatrix) -> T { T(storage: Storage(frozen.values), shape: frozen.shape) }
  func synchronize() throws {}

  func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> T {
    let values: [Double]
    switch distribution {
    case .uniform(let bound): values = Naive.uniform(shape.count, bound: bound, key)
    case .normal(let deviation): values = Naive.normal(shape.count, deviation: fault == .normalTooWide ? 1.2 * deviation : deviation, key)
    }
    return T(storage: Storage(values.map { Scalar($0) }), shape: shape)
  }

  // MARK: Elementwise and sums

  func add(_ alpha: Double, _ x: T, into y: inout T) { write(Naive.add(alpha, matrix(x), to: matrix(y)).values, &y) }

  func scale(_ alpha: Double, _ x: inout T) {
    write(fault == .zeroTimesNaNIsNaN ? list(x).map { alpha * $0 } : Naive.scale(alpha, matrix(x)).values, &x)
  }

  private func zeroList(_ x: T) -> [Double] { [Double](repeating: 0, count: x.shape.count) }

  func addBias(_ bias: T, into y: inout T) { write(Naive.addBias(list(bias), to: matrix(y)).values, &y) }

  func addColumnSums(_ x: T, weights: T?, into sums: inout T) {
    let start = fault == .columnSumsOverwrite ? zeroList(sums) : list(sums)
    write(Naive.addColumnSums(matrix(x), weights: weights.map { list($0) }, to: start), &sums)
  }

  func sum(_ x: T) -> T { tensor([Naive.sum(matrix(x))]) }
  func dot(_ x: T, _ y: T) -> T { tensor([Naive.dot(matrix(x), matrix(y))]) }
  func rowDots(_ x: T, _ y: T) -> T { tensor(Naive.rowDots(matrix(x), matrix(y))) }
  func scaleRows(_ weights: T, _ x: inout T) { write(Naive.scaleRows(list(weights), matrix(x)).values, &x) }

  // MARK: Products

  func gemm(
    _ alpha: Double, _ a: Operand<NaiveBackend>, _ b: Operand<NaiveBackend>, _ beta: Double, into c: inout T, rows: Range<Int>?
  ) {
    let rows = rows ?? 0..<c.rowCount
    var whole = matrix(c)
    var part = Naive.gemm(alpha, matrix(a), matrix(b), beta, whole.rows(rows))
    if fault == .gemmReadsCWithBetaZero { part = Naive.add(beta, whole.rows(rows), to: part) }
    if fault == .gemmIgnoresBeta { part = Naive.gemm(alpha, matrix(a), matrix(b), 0, whole.rows(rows)) }
    for i in 0..<rows.count {
      for j in 0..<whole.columns { whole[rows.lowerBound + i, j] = part[i, j] }
    }
    write(whole.values, &c)
  }

  // MARK: Layers

  func rmsNorm(_ x: T, _ weight: T, epsilon: Double) -> (y: T, inverseRMS: T) {
    var found = Naive.rmsNorm(matrix(x), list(weight), epsilon: fault == .rmsNormWithoutEpsilon ? 0 : epsilon)
    normsComputed += 1
    if fault == .otherBitsEachTime { found.y = found.y.map { $0 * (1 + Double(normsComputed) * 0x1p-50) } }
    if fault == .rmsNormHidesNaN { found.y = found.y.map { $0.isNaN ? 0 : $0 } }
    let s = fault == .inverseRMSIsAColumn ? tensor(Matrix(x.rowCount, 1, found.inverseRMS)) : tensor(found.inverseRMS)
    return (tensor(found.y), s)
  }

  func rmsNormBackward(_ dy: T, _ x: T, _ weight: T, _ inverseRMS: T, into dx: inout T) {
    let (dy, x, w, s, old) = (matrix(dy), matrix(x), list(weight), list(inverseRMS), matrix(dx))
    let result = Matrix(x.rows, x.columns) { n, c in
      var inner = 0.0
      for l in 0..<x.columns { inner += dy[n, l] * w[l] * x[n, l] }
      if fault == .rmsNormBackwardWithoutMean { inner = 0 }
      let slope = s[n] * dy[n, c] * w[c] - x[n, c] * s[n] * s[n] * s[n] * inner / Double(x.columns)
      return (fault == .rmsNormBackwardOverwrites ? 0 : old[n, c]) + slope
    }
    write(result.values, &dx)
  }

  func rmsNormWeightGradient(_ dy: T, _ x: T, _ inverseRMS: T, into dweight: inout T) {
    let (dy, x, s) = (matrix(dy), matrix(x), list(inverseRMS))
    var result = list(dweight)
    for n in 0..<x.rows {
      for c in 0..<x.columns { result[c] += s[n] * dy[n, c] * x[n, c] }
    }
    write(result, &dweight)
  }

  func rope(_ x: inout T, positions: I, table: T, inverse: Bool) {
    let (m, table) = (matrix(x), matrix(table))
    guard fault == .ropePairsNeighbours else {
      let inverse = fault == .ropeIgnoresInverse ? false : inverse
      return write(Naive.rope(m, positions: list(positions), table: table, inverse: inverse).values, &x)
    }
    let half = table.columns / 2
    // the same turn with neighbours paired: sort them into halves, turn, sort back
    func source(_ j: Int) -> Int {
      let (head, d) = (j / table.columns * table.columns, j % table.columns)
      return head + (d < half ? 2 * d : 2 * (d - half) + 1)
    }
    let halves = Matrix(m.rows, m.columns) { n, j in m[n, source(j)] }
    let turned = Naive.rope(halves, positions: list(positions), table: table, inverse: inverse)
    var result = m
    for n in 0..<m.rows {
      for j in 0..<m.columns { result[n, source(j)] = turned[n, j] }
    }
    write(result.values, &x)
  }

  /// The form with the fault that was asked for.
  private func faulty(_ form: AttentionForm) -> AttentionForm {
    var (scale, offsets, keyRows) = (form.scale, form.offsets, form.keyRows)
    if fault == .attentionWithoutScale { scale = 1 }
    if fault == .attentionAcrossSequences {
      offsets = [0, form.offsets[form.offsets.count - 1]]
      keyRows = keyRows.map { [($0.first?.lowerBound ?? 0)..<($0.last?.upperBound ?? 0)] }
    }
    if fault == .earlierRowsComeLast {  // the mask in the upper left corner of queries and keys instead of the lower right
      keyRows = keyRows.map { rows in rows.indices.map { rows[$0].prefix(form.queries($0).count) } }
    }
    return AttentionForm(
      heads: form.heads, keyValueHeads: form.keyValueHeads, headWidth: form.headWidth, scale: scale, offsets: offsets,
      window: form.window, keyRows: keyRows)
  }

  /// k or v with groups in the order that head % G would read, as one group per head.
  private func interleaved(_ x: Matrix, _ form: AttentionForm) -> Matrix {
    Matrix(x.rows, form.heads * form.headWidth) { n, j in
      x[n, (j / form.headWidth) % form.keyValueHeads * form.headWidth + j % form.headWidth]
    }
  }

  func attention(_ q: T, _ k: T, _ v: T, _ form: AttentionForm) -> (output: T, logSumExp: T) {
    var (q, k, v, form) = (matrix(q), matrix(k), matrix(v), faulty(form))
    if fault == .headsInterleaved {
      (k, v) = (interleaved(k, form), interleaved(v, form))
      form = AttentionForm(
        heads: form.heads, keyValueHeads: form.heads, headWidth: form.headWidth, scale: form.scale, offsets: form.offsets,
        window: form.window, keyRows: form.keyRows)
    }
    if fault == .attentionReversesRows {  // sees what comes behind instead of what came before, within one sequence
      func reversed(_ m: Matrix) -> Matrix { Matrix(m.rows, m.columns) { i, j in m[m.rows - 1 - i, j] } }
      let found = Naive.attention(reversed(q), reversed(k), reversed(v), form)
      return (tensor(reversed(found.output)), tensor(reversed(found.logSumExp)))
    }
    q = fault == .attentionHidesNaN ? q.map { $0.isNaN ? 0 : $0 } : q
    let found = Naive.attention(q, k, v, form)
    return (tensor(found.output), tensor(found.logSumExp))
  }

  func attentionBackward(_ dy: T, _ q: T, _ k: T, _ v: T, logSumExp: T, _ form: AttentionForm) -> (dq: T, dk: T, dv: T) {
    var found = Naive.attentionBackward(matrix(dy), matrix(q), matrix(k), matrix(v), form)
    if fault == .attentionBackwardWithoutScale { found.dk = Naive.scale(1 / form.scale, found.dk) }
    return (tensor(found.dq), tensor(found.dk), tensor(found.dv))
  }

  func swiGLU(_ a: T, _ c: T) -> T {
    let (a, c) = fault == .swiGLUSwapped ? (c, a) : (a, c)
    return tensor(Naive.swiGLU(matrix(a), matrix(c)))
  }

  func swiGLUBackward(_ dh: T, _ a: T, _ c: T) -> (da: T, dc: T) {
    var found = Naive.swiGLUBackward(matrix(dh), matrix(a), matrix(c))
    if fault == .swiGLUSlopeIsSigmoid {
      let (dh, a, c) = (matrix(dh), matrix(a), matrix(c))
      found.da = Matrix(a.rows, a.columns) { i, j in dh[i, j] * c[i, j] * (a[i, j] == 0 ? 0.5 : Naive.silu(a[i, j]) / a[i, j]) }
    }
    return (tensor(found.da), tensor(found.dc))
  }

  func embedding(_ ids: I, _ table: Operand<NaiveBackend>) -> T { tensor(Naive.embedding(list(ids), matrix(table))) }

  func addEmbeddingGradient(_ dy: T, _ ids: I, into dtable: inout T) {
    var result = Naive.addEmbeddingGradient(matrix(dy), list(ids), to: matrix(dtable))
    if fault == .embeddingGradientKeepsLast {
      let (dy, old) = (matrix(dy), matrix(dtable))
      result = old
      for (n, id) in list(ids).enumerated() {
        for c in 0..<dy.columns { result[id, c] = old[id, c] + dy[n, c] }
      }
    }
    write(result.values, &dtable)
  }

  func crossEntropy(_ logits: inout T, labels: I, scale: Double) -> T {
    let found = Naive.crossEntropy(matrix(logits), labels: list(labels), scale: fault == .crossEntropyIgnoresScale ? 1 : scale)
    write(found.gradient.values, &logits)
    return tensor(found.loss)
  }

  func gather(_ x: T, rows: I) -> T { tensor(Naive.gather(matrix(x), rows: list(rows))) }
  func addScattered(_ x: T, rows: I, into y: inout T) { write(Naive.addScattered(matrix(x), rows: list(rows), to: matrix(y)).values, &y) }

  func dropout(_ x: T, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<NaiveBackend>) -> T {
    let probability = fault == .dropoutThresholdCutOff ? (probability * 0x1p32).rounded(.down) * 0x1p-32 : probability
    let samples = fault == .dropoutByRowNumber ? Array(0..<x.rowCount) : list(rows.samples)
    let mask = Naive.dropoutMask(x.columnCount, probability, key, samples: samples, positions: list(rows.positions), step: rows.step)
    return tensor(Naive.dropout(matrix(x), mask: fault == .dropoutUnscaled ? mask.map { $0 == 0 ? 0 : 1 } : mask))
  }

  // MARK: Routing

  func softmax(_ logits: T) -> T { tensor(Naive.softmax(matrix(logits))) }

  func topK(_ p: T, _ k: Int) -> I {
    let p = matrix(p)
    guard fault == .tiesToTheHigherIndex else { return indices(Naive.topK(p, k)) }
    let mirrored = Matrix(p.rows, p.columns) { n, e in p[n, p.columns - 1 - e] }
    return indices(Naive.topK(mirrored, k).map { p.columns - 1 - $0 })
  }

  func route(_ p: T, choice: I, _ k: Int) -> Routing<NaiveBackend> {
    var plan = Naive.route(matrix(p), choice: list(choice), k)
    if fault == .weightsNotRenormalised {
      let p = matrix(p)
      plan.weights = (0..<plan.rows).map { p[plan.tokenOfRow[$0], plan.expert(ofRow: $0)] }
    }
    return Routing(
      tokens: plan.tokens, experts: plan.experts, expertsPerToken: k, choice: choice, rowOfChoice: indices(plan.rowOfChoice),
      tokenOfRow: indices(plan.tokenOfRow), choiceOfRow: indices(plan.choiceOfRow), offsets: indices(plan.offsets),
      weights: tensor(plan.weights), counts: tensor((0..<plan.experts).map { Double(plan.rows(of: $0).count) }),
      firstCounts: tensor(plan.firstCounts))
  }

  func routerBackward(_ dw: T, _ p: T, _ routing: Routing<NaiveBackend>, balance: T) -> T {
    let (dw, p, plan, balance) = (list(dw), matrix(p), plan(routing), fault == .routerIgnoresBalance ? zeroList(balance) : list(balance))
    return tensor(
      Matrix(p.rows, p.columns) { n, j in
        var (mean, result) = (0.0, 0.0)
        for e in 0..<p.columns { mean += balance[e] * p[n, e] }
        result = p[n, j] * (balance[j] - mean)
        let rows = (0..<plan.expertsPerToken).map { plan.rowOfChoice[n * plan.expertsPerToken + $0] }
        var inner = 0.0
        for m in rows { inner += plan.weights[m] * dw[m] }
        if fault == .routerWithoutMean { inner = 0 }
        for m in rows where plan.expert(ofRow: m) == j { result += plan.weights[m] * (dw[m] - inner) }
        return result
      })
  }

  func dispatch(_ x: T, _ routing: Routing<NaiveBackend>) -> T { tensor(Naive.dispatch(matrix(x), plan(routing))) }

  func combine(_ x: T, weights: T?, _ routing: Routing<NaiveBackend>) -> T {
    tensor(Naive.combine(matrix(x), weights: fault == .combineIgnoresWeights ? nil : weights.map { list($0) }, plan(routing)))
  }

  func dispatchBlocks(_ x: T, _ routing: Routing<NaiveBackend>) -> T {
    var plan = plan(routing)
    if fault == .blocksOfAnotherExpert { plan.choice = plan.choice.map { plan.experts - 1 - $0 } }
    return tensor(Naive.dispatchBlocks(matrix(x), plan))
  }

  func combineBlocks(_ x: T, weights: T?, _ routing: Routing<NaiveBackend>) -> T {
    let result = Naive.combineBlocks(matrix(x), weights: weights.map { list($0) }, plan(routing))
    return tensor(fault == .combineBlocksLeavesGarbage ? result.map { $0 == 0 ? .nan : $0 } : result)
  }

  func groupedGemm(
    _ alpha: Double, _ a: T, _ b: ExpertStack<NaiveBackend>, _ beta: Double, into c: inout T, _ routing: Routing<NaiveBackend>
  ) {
    let (stack, experts) = (matrix(b.matrices), routing.experts)
    let swapped = fault == .groupedGemmSwapsExperts
    let result = Naive.groupedGemm(
      alpha, matrix(a),
      { e in
        let block = Naive.block(swapped ? experts - 1 - e : e, of: experts, in: stack, sideBySide: b.axis == .columns)
        return b.isTransposed ? block.transposed : block
      }, beta, matrix(c), plan(routing))
    write(result.values, &c)
  }

  func groupedOuter(
    _ alpha: Double, _ a: T, _ b: T, into g: inout T, stackedAlong axis: ExpertStack<NaiveBackend>.Axis,
    _ routing: Routing<NaiveBackend>
  ) {
    let alpha = fault == .groupedOuterIgnoresAlpha ? 1 : alpha
    write(Naive.groupedOuter(alpha, matrix(a), matrix(b), to: matrix(g), sideBySide: axis == .columns, plan(routing)).values, &g)
  }

  func dropout(
    _ x: T, _ probability: Double, _ keys: [RandomKey], _ rows: RowIdentity<NaiveBackend>, _ routing: Routing<NaiveBackend>
  ) -> T {
    let keys = fault == .oneKeyForAllExperts ? keys.map { _ in keys[0] } : keys
    let (samples, positions) = (list(rows.samples), list(rows.positions))
    let mask = Naive.dropoutMask(
      x.columnCount, probability, keys, samples: samples, positions: positions, step: rows.step, plan(routing))
    return tensor(Naive.dropout(matrix(x), mask: mask))
  }

  // MARK: Optimiser

  func adamW(_ x: inout T, gradient: T, factor: T?, _ m: inout T, _ v: inout T, _ settings: AdamWSettings) {
    var settings = settings
    let factor = factor.map { list($0)[0] } ?? 1
    guard factor.isFinite else { return }
    if fault == .adamWWithoutBiasCorrection { settings.step = 100_000 }
    let (g, m0, v0) = (list(gradient).map { factor * $0 }, list(m), list(v))
    var (newX, newM, newV) = (list(x), m0, v0)
    for i in 0..<newX.count {
      if fault == .adamWDecaysTheGradient {
        var plain = settings
        plain.weightDecay = 0
        (newX[i], newM[i], newV[i]) = Naive.adamW(newX[i], gradient: g[i] + settings.weightDecay * newX[i], m0[i], v0[i], plain)
      } else {
        (newX[i], newM[i], newV[i]) = Naive.adamW(newX[i], gradient: g[i], m0[i], v0[i], settings)
      }
    }
    write(newX, &x)
    write(newM, &m)
    write(newV, &v)
  }

  func sgd(_ x: inout T, gradient: T, factor: T?, momentum b: inout T, _ settings: SGDSettings) {
    let factor = factor.map { list($0)[0] } ?? 1
    guard factor.isFinite else { return }
    let (x0, g, b0) = (list(x), list(gradient), list(b))
    let new = x0.indices.map { settings.momentum * b0[$0] + factor * g[$0] + settings.weightDecay * x0[$0] }
    write(new, &b)
    write(x0.indices.map { x0[$0] - settings.learningRate * new[$0] }, &x)
  }

  func clipFactor(_ squaredNorm: T, loss: T, maximum: Double) -> (factor: T, norm: T) {
    let (norm, loss) = (list(squaredNorm)[0].squareRoot(), list(loss)[0])
    let factor = norm.isFinite && loss.isFinite ? (maximum == 0 ? 1 : min(1, maximum / (norm + 1e-6))) : .nan
    return (tensor([factor]), tensor([norm]))
  }
}
