import Tensors

// The operations: read, compute, round. What only moves numbers is handed on.
extension RoundingBackend {
  // MARK: Memory

  func empty(_ shape: Shape) -> Tensor<RoundingBackend> { outer(exact.empty(shape)) }
  func zeros(_ shape: Shape) -> Tensor<RoundingBackend> { outer(exact.zeros(shape)) }
  func fill(_ value: Double, _ x: inout Tensor<RoundingBackend>) { write(&x) { exact.fill(value, &$0) } }
  func copy(_ x: Tensor<RoundingBackend>) -> Tensor<RoundingBackend> { outer(exact.copy(inner(x))) }
  func copy(_ x: Tensor<RoundingBackend>, into y: inout Tensor<RoundingBackend>, rows: Range<Int>?, columns: Range<Int>?) {
    write(&y) { exact.copy(inner(x), into: &$0, rows: rows, columns: columns) }
  }
  func copy(_ x: Tensor<RoundingBackend>, into y: inout Tensor<RoundingBackend>, rows: Indices<RoundingBackend>) {
    write(&y) { exact.copy(inner(x), into: &$0, rows: inner(rows)) }
  }
  func upload(_ values: [Double], _ shape: Shape) -> Tensor<RoundingBackend> { outer(exact.upload(values, shape)) }
  func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Tensor<RoundingBackend> {
    outer(exact.upload(bytes, format, shape))
  }
  func upload(_ values: [Int32]) -> Indices<RoundingBackend> { outer(exact.upload(values)) }
  func download(_ tensors: [Tensor<RoundingBackend>]) throws -> [[Double]] { try exact.download(tensors.map { inner($0) }) }
  func download(_ indices: Indices<RoundingBackend>) throws -> [Int32] { try exact.download(inner(indices)) }
  func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Exact.FrozenMatrix {
    exact.freeze(bytes, format, shape)
  }
  func freeze(_ tensor: Tensor<RoundingBackend>) -> Exact.FrozenMatrix { exact.freeze(inner(tensor)) }
  func vector(_ frozen: Exact.FrozenMatrix) -> Tensor<RoundingBackend> { outer(exact.vector(frozen)) }
  func synchronize() throws { try exact.synchronize() }
  func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> Tensor<RoundingBackend> {
    outer(exact.random(shape, distribution, key))
  }
  func factors(_ kind: Factorization, of w: [Double], rows: Int, columns: Int, rank: Int) -> (l: [Double], r: [Double])? {
    exact.factors(kind, of: w, rows: rows, columns: columns, rank: rank)
  }

  // MARK: Elementwise, sums and products

  /// An operation that adds to y or changes it, its sums n long.
  private func update(_ y: inout Tensor<RoundingBackend>, _ n: Int = 1, _ body: (inout Tensor<Exact>) -> Void) {
    write(&y) {
      body(&$0)
      round(&$0, n)
    }
  }

  func add(_ alpha: Double, _ x: Tensor<RoundingBackend>, into y: inout Tensor<RoundingBackend>, rows: Range<Int>?) {
    update(&y) { exact.add(alpha, read(x), into: &$0, rows: rows) }
  }
  func scale(_ alpha: Double, _ x: inout Tensor<RoundingBackend>) { update(&x) { exact.scale(alpha, &$0) } }
  func addBias(_ bias: Tensor<RoundingBackend>, into y: inout Tensor<RoundingBackend>) {
    if mutation == .biasMissing { return }
    update(&y) { exact.addBias(read(bias), into: &$0) }
  }
  func addColumnSums(_ x: Tensor<RoundingBackend>, weights: Tensor<RoundingBackend>?, into sums: inout Tensor<RoundingBackend>) {
    update(&sums, x.rowCount) { exact.addColumnSums(read(x, x.rowCount), weights: weights.map { read($0) }, into: &$0) }
  }
  func sum(_ x: Tensor<RoundingBackend>) -> Tensor<RoundingBackend> { rounded(exact.sum(read(x, x.shape.count)), x.shape.count) }
  func dot(_ x: Tensor<RoundingBackend>, _ y: Tensor<RoundingBackend>) -> Tensor<RoundingBackend> {
    rounded(exact.dot(read(x, x.shape.count), read(y)), x.shape.count)
  }
  func rowDots(_ x: Tensor<RoundingBackend>, _ y: Tensor<RoundingBackend>) -> Tensor<RoundingBackend> {
    rounded(exact.rowDots(read(x, x.columnCount), read(y)), x.columnCount)
  }
  func scaleRows(_ weights: Tensor<RoundingBackend>, _ x: inout Tensor<RoundingBackend>) {
    update(&x) { exact.scaleRows(read(weights), &$0) }
  }
  func gemm(
    _ alpha: Double, _ a: Operand<RoundingBackend>, _ b: Operand<RoundingBackend>, _ beta: Double,
    into c: inout Tensor<RoundingBackend>, rows: Range<Int>?
  ) {
    let n = a.shape.columns
    let b = mistakenWeight(b)
    update(&c, n) { exact.gemm(alpha, read(a, n), read(b), beta, into: &$0, rows: rows) }
  }

  // MARK: Norms, positions, attention, gated units

  func rmsNorm(_ x: Tensor<RoundingBackend>, _ weight: Tensor<RoundingBackend>, offset: Double, epsilon: Double)
    -> (y: Tensor<RoundingBackend>, rho: Tensor<RoundingBackend>)
  {
    if let y = mistakenNorm(x, weight, offset: offset, epsilon: epsilon) {
      return (outer(exact.upload(y, x.shape)), outer(exact.rmsNorm(inner(x), inner(weight), offset: offset, epsilon: epsilon).rho))
    }
    let (y, rho) = exact.rmsNorm(read(x, times: 2), read(weight), offset: offset, epsilon: epsilon)
    return (rounded(y, x.columnCount), outer(rho))
  }
  func rmsNormBackward(
    _ dy: Tensor<RoundingBackend>, _ x: Tensor<RoundingBackend>, _ weight: Tensor<RoundingBackend>, offset: Double,
    rho: Tensor<RoundingBackend>, into dx: inout Tensor<RoundingBackend>
  ) {
    let n = x.columnCount
    if mutation == .normBackwardShort || mutation == .normBackwardSum {
      return addShortNormGradient(dy, x, weight, offset: offset, rho: rho, into: &dx)
    }
    update(&dx, n) {
      exact.rmsNormBackward(read(dy, n, times: 2), read(x, n, times: 2), read(weight), offset: offset, rho: read(rho), into: &$0)
    }
  }
  func rmsNormWeightGradient(
    _ dy: Tensor<RoundingBackend>, _ x: Tensor<RoundingBackend>, rho: Tensor<RoundingBackend>, into dweight: inout Tensor<RoundingBackend>
  ) {
    update(&dweight, x.rowCount) { exact.rmsNormWeightGradient(read(dy, x.rowCount), read(x), rho: read(rho), into: &$0) }
  }
  func rope(
    _ x: inout Tensor<RoundingBackend>, positions: Indices<RoundingBackend>, table: Tensor<RoundingBackend>, inverse: Bool
  ) {
    if let turned = mistakenRotation(x, positions, table, inverse: inverse) {
      x = outer(exact.upload(turned, x.shape))
      return
    }
    var y = read(x)
    exact.rope(&y, positions: inner(positions), table: read(table, times: 2), inverse: inverse)
    x = rounded(y)
  }
  func attention(
    _ q: Tensor<RoundingBackend>, _ k: Tensor<RoundingBackend>, _ v: Tensor<RoundingBackend>, _ plan: SequencePlan<RoundingBackend>,
    _ form: AttentionForm
  ) -> (output: Tensor<RoundingBackend>, logSumExp: Tensor<RoundingBackend>) {
    let n = form.headWidth + longest(plan)
    if let mistaken = mistakenAttention(q, k, v, plan, form) {
      return (outer(exact.upload(mistaken.output, q.shape)), outer(exact.upload(mistaken.logSumExp, Shape(q.rowCount, form.heads))))
    }
    let (output, logSumExp) = exact.attention(read(q, n), read(k), read(v, n, times: 2), inner(plan), form)
    return (rounded(output, n), outer(logSumExp))
  }
  func attentionBackward(
    _ dy: Tensor<RoundingBackend>, _ q: Tensor<RoundingBackend>, _ k: Tensor<RoundingBackend>, _ v: Tensor<RoundingBackend>,
    output: Tensor<RoundingBackend>, logSumExp: Tensor<RoundingBackend>, _ plan: SequencePlan<RoundingBackend>, _ form: AttentionForm
  ) -> (dq: Tensor<RoundingBackend>, dk: Tensor<RoundingBackend>, dv: Tensor<RoundingBackend>) {
    let n = form.headWidth + longest(plan)
    if let gradients = mistakenAttention(q, k, v, dy: dy, plan, form)?.gradients {
      return (
        outer(exact.upload(gradients.dq, q.shape)), outer(exact.upload(gradients.dk, k.shape)), outer(exact.upload(gradients.dv, v.shape))
      )
    }
    // P is formed again from logSumExp, which has to be that of the q and k that are read.
    let (qs, ks, vs) = (read(q, n), read(k, n), read(v))
    let (again, sums) = exact.attention(qs, ks, vs, inner(plan), form)
    let (dq, dk, dv) = exact.attentionBackward(
      read(dy, n, times: 2), qs, ks, vs, output: read(outer(again), n), logSumExp: sums, inner(plan), form)
    return (rounded(dq, n), rounded(dk, n), rounded(dv, n))
  }
  private func longest(_ plan: SequencePlan<RoundingBackend>) -> Int { (0..<plan.sequences).map { plan.keys($0).count }.max() ?? 0 }

  func gated(_ activation: Activation, _ a: Tensor<RoundingBackend>, _ c: Tensor<RoundingBackend>) -> Tensor<RoundingBackend> {
    if let h = mistakenGate(activation, a, c) { return outer(exact.upload(h, a.shape)) }
    return rounded(exact.gated(activation, read(a, times: 2), read(c)))
  }
  func gatedBackward(
    _ activation: Activation, _ dh: Tensor<RoundingBackend>, _ a: Tensor<RoundingBackend>, _ c: Tensor<RoundingBackend>
  ) -> (da: Tensor<RoundingBackend>, dc: Tensor<RoundingBackend>) {
    let (da, dc) = exact.gatedBackward(activation, read(dh, times: 2), read(a, times: 2), read(c))
    if let mistaken = mistakenGateGradient(activation, dh, a, c) { return (outer(exact.upload(mistaken, a.shape)), outer(dc)) }
    if let mistaken = mistakenUpGradient(dh, a) { return (outer(da), outer(exact.upload(mistaken, c.shape))) }
    return (rounded(da), rounded(dc))
  }

  // MARK: Tokens and losses

  func embedding(_ ids: Indices<RoundingBackend>, _ table: Operand<RoundingBackend>) -> Tensor<RoundingBackend> {
    rounded(exact.embedding(inner(ids), inner(table)))
  }
  func addEmbeddingGradient(
    _ alpha: Double, _ dy: Tensor<RoundingBackend>, _ ids: Indices<RoundingBackend>, into dtable: inout Tensor<RoundingBackend>
  ) {
    update(&dtable) { exact.addEmbeddingGradient(alpha, read(dy, dy.rowCount), inner(ids), into: &$0) }
  }
  func softcap(_ cap: Double, _ z: inout Tensor<RoundingBackend>) {
    z = outer(read(z, times: 2))
    update(&z) { exact.softcap(cap, &$0) }
  }
  func crossEntropy(_ z: inout Tensor<RoundingBackend>, labels: Indices<RoundingBackend>, scale: Double, softcap: Double?)
    -> Tensor<RoundingBackend>
  {
    let n = z.columnCount
    var dz = read(z)
    let losses = exact.crossEntropy(&dz, labels: inner(labels), scale: scale, softcap: softcap)
    if mutation == .oneHotMissing, var d = try? exact.download(dz), let y = try? exact.download(inner(labels)) {
      for (row, label) in y.enumerated() { d[row * n + Int(label)] += scale }  // softmax · scale alone
      dz = exact.upload(d, dz.shape)
    }
    z = rounded(dz, n)
    return rounded(losses, n)
  }
  func gather(_ x: Tensor<RoundingBackend>, rows: Indices<RoundingBackend>) -> Tensor<RoundingBackend> {
    outer(exact.gather(inner(x), rows: inner(rows)))
  }
  func addScattered(_ x: Tensor<RoundingBackend>, rows: Indices<RoundingBackend>, into y: inout Tensor<RoundingBackend>) {
    update(&y) { exact.addScattered(inner(x), rows: inner(rows), into: &$0) }
  }
  func dropout(_ x: Tensor<RoundingBackend>, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<RoundingBackend>)
    -> Tensor<RoundingBackend>
  { rounded(exact.dropout(inner(x), probability, key, inner(rows))) }
  func dropout(
    _ x: Tensor<RoundingBackend>, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<RoundingBackend>,
    _ routing: Routing<RoundingBackend>
  ) -> Tensor<RoundingBackend> { rounded(exact.dropout(inner(x), probability, key, inner(rows), inner(routing))) }

  // MARK: Optimizers

  func decoded(_ x: ByteBlocks<RoundingBackend>) -> Tensor<RoundingBackend> { rounded(exact.decoded(inner(x))) }
  func encode(_ x: Tensor<RoundingBackend>, into y: inout ByteBlocks<RoundingBackend>, factor: Tensor<RoundingBackend>?) {
    var lent = inner(y)
    exact.encode(read(x), into: &lent, factor: factor.map { inner($0) })
    (y.codes, y.scales) = (outer(lent.codes), rounded(lent.scales))
  }
  func clipFactor(_ squaredNorm: Tensor<RoundingBackend>, loss: Tensor<RoundingBackend>, maximum: Double)
    -> (factor: Tensor<RoundingBackend>, norm: Tensor<RoundingBackend>)
  {
    let (factor, norm) = exact.clipFactor(inner(squaredNorm), loss: inner(loss), maximum: maximum)
    return (rounded(factor), rounded(norm))
  }
  func adamW(
    _ x: inout Tensor<RoundingBackend>, gradient: Tensor<RoundingBackend>, factor: Tensor<RoundingBackend>?,
    _ m: inout Tensor<RoundingBackend>, _ v: inout Tensor<RoundingBackend>, _ settings: AdamWSettings, range: Range<Int>?
  ) {
    if case .adamW = mutation { return mistakenUpdate(&x, gradient, &m, &v, settings, range) }
    let g = read(gradient, times: 4)
    update(&x) { x in
      update(&m) { m in
        update(&v) { v in exact.adamW(&x, gradient: g, factor: factor.map { inner($0) }, &m, &v, settings, range: range) }
      }
    }
  }
  func sgd(
    _ x: inout Tensor<RoundingBackend>, gradient: Tensor<RoundingBackend>, factor: Tensor<RoundingBackend>?,
    momentum b: inout Tensor<RoundingBackend>, _ settings: SGDSettings, range: Range<Int>?
  ) {
    let g = read(gradient, times: 2)
    update(&x) { x in
      update(&b) { b in exact.sgd(&x, gradient: g, factor: factor.map { inner($0) }, momentum: &b, settings, range: range) }
    }
  }
}
