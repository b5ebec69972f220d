import CUDABackend
import CUDAEmulator
import Conformance
import Tensors
import Testing

/// What the conformance suite's sizes are too small for: rows longer than a block, sums in parts, many tokens; and indices out of range.
@Suite struct RowTests {
  @Test func sizesBeyondTheSuitesMeetTheirBounds() throws {
    for c in largeCases(CUDADouble.self) {
      expectPassed(c.name, c.run(try CUDADouble(EmulatedDevice.open(seed: 1), isPoisoned: true)))
    }
    for c in largeCases(CUDAFloat.self) {
      expectPassed(c.name, c.run(try CUDAFloat(EmulatedDevice.open(seed: 2), isPoisoned: true)))
    }
  }

  @Test func watchedKernelsOfLargeSizesStayInBoundsAndDoNotRace() throws {
    for c in largeCases(CUDAFloat.self) where !c.name.contains("1050000") {
      expectPassed(c.name, c.run(try CUDAFloat(EmulatedDevice.open(seed: 3, isWatched: true), isPoisoned: true)))
    }
  }

  private func expectPassed(_ name: String, _ outcome: Outcome) {
    #expect(outcome.isPassed, "\(name): \(outcome)")
  }

  /// A step's launches are counted by the hundred a layer: none of these operations may take two.
  @Test func operationsTakeOneLaunch() throws {
    let (device, counts) = try EmulatedDevice.counted(isIdle: true)
    let b = try CUDAFloat(device)
    let (n, c, e, s) = (2048, 576, 8, 2)
    var (x, sums, table) = (b.zeros(Shape(n, c)), b.zeros(Shape(c)), b.zeros(Shape(n, c)))
    let (other, w, p, few) = (b.zeros(Shape(n, c)), b.zeros(Shape(n)), b.zeros(Shape(n, e)), b.zeros(Shape(e)))
    let (ids, one) = (b.upload([Int32](repeating: 0, count: n)), b.zeros(Shape(1)))
    let choice = b.upload([Int32](repeating: 0, count: n * s))
    let plan = b.route(p, choice: choice, .topK(s))
    let (rows, narrow, blocks) = (b.zeros(Shape(n * s, c)), b.zeros(Shape(n * s, 16)), b.zeros(Shape(n, e * 16)))
    let (angles, dw) = (b.zeros(Shape(n, 64)), b.zeros(Shape(n * s)))
    var (m, v) = (b.zeros(Shape(c)), b.zeros(Shape(c)))
    let gradient = b.zeros(Shape(c))
    func expect(_ name: String, _ launches: UInt64 = 1, _ body: () -> Void) {
      let start = counts().launches
      body()
      #expect(counts().launches - start == launches, "\(name)")
    }
    expect("addColumnSums") { b.addColumnSums(other, weights: w, into: &sums) }
    expect("sum") { _ = b.sum(w) }
    expect("sum of many", 2) { _ = b.sum(other) }
    expect("dot") { _ = b.dot(few, few) }
    expect("rowDots") { _ = b.rowDots(x, other) }
    expect("rmsNorm") { _ = b.rmsNorm(other, sums, offset: 0, epsilon: 1e-5) }
    expect("rmsNormBackward") { b.rmsNormBackward(other, other, sums, offset: 0, rho: w, into: &x) }
    expect("rmsNormWeightGradient") { b.rmsNormWeightGradient(other, other, rho: w, into: &sums) }
    expect("rope") { b.rope(&x, positions: ids, table: angles, inverse: false) }
    expect("embedding") { _ = b.embedding(ids, other.operand) }
    expect("addEmbeddingGradient") { b.addEmbeddingGradient(1, other, ids, into: &table) }
    expect("crossEntropy") { _ = b.crossEntropy(&x, labels: ids, scale: 1, softcap: nil) }
    expect("gather") { _ = b.gather(other, rows: ids) }
    expect("addScattered") { b.addScattered(other, rows: ids, into: &table) }
    expect("clipFactor") { _ = b.clipFactor(one, loss: one, maximum: 1) }
    let adamW = AdamWSettings(learningRate: 0.1, weightDecay: 0, step: 1)
    expect("adamW") { b.adamW(&sums, gradient: gradient, factor: one, &m, &v, adamW, range: nil) }
    expect("softmax") { _ = b.softmax(p) }
    expect("choose") { _ = b.choose(p, .topK(s)) }
    expect("route") { _ = b.route(p, choice: choice, .topK(s)) }
    expect("routerBackward") { _ = b.routerBackward(dw, p, plan, balance: few) }
    expect("dispatch") { _ = b.dispatch(other, plan) }
    expect("combine") { _ = b.combine(rows, weights: dw, plan) }
    expect("dispatchBlocks") { _ = b.dispatchBlocks(blocks, plan) }
    expect("combineBlocks") { _ = b.combineBlocks(narrow, weights: nil, plan) }
  }

  @Test func indicesOutOfRangeAreReportedAndNothingIsWritten() throws {
    for isWatched in [false, true] {
      let b = try CUDAFloat(EmulatedDevice.open(seed: 5, isWatched: isWatched), isPoisoned: true)
      let (x, p) = (b.fill(Shape(3, 4), 1), b.fill(Shape(3, 4), 0.25))
      let policy = RoutingPolicy.topK(2)
      for bad: Int32 in [-1, 5, .max, .min] {
        let indices = b.upload([0, bad, 4])
        var y = b.fill(Shape(5, 4), 2)
        func expectError(_ operation: String, _ limit: Int, _ body: () -> Void) {
          body()
          let error = #expect(throws: CUDAError.self) { try b.synchronize() }
          #expect(error?.description == "\(operation): index \(bad), expected 0 ..< \(limit)")
        }
        expectError("embedding", 5) { _ = b.embedding(indices, y.operand) }
        expectError("gather", 5) { _ = b.gather(y, rows: indices) }
        expectError("addScattered", 5) { b.addScattered(x, rows: indices, into: &y) }
        #expect(try b.download(y) == [Float](repeating: 3, count: 4) + [Float](repeating: 2, count: 12) + [Float](repeating: 3, count: 4))
        expectError("addEmbeddingGradient", 5) { b.addEmbeddingGradient(1, x, indices, into: &y) }
        #expect(try b.download(y) == [Float](repeating: 4, count: 4) + [Float](repeating: 2, count: 12) + [Float](repeating: 4, count: 4))
        var z = b.fill(Shape(3, 5), 0)
        expectError("crossEntropy", 5) { _ = b.crossEntropy(&z, labels: indices, scale: 1, softcap: nil) }
        #expect(try b.download(z.rows(1..<2)) == [0, 0, 0, 0, 0])
        z = b.fill(Shape(3, 4), 1)
        expectError("rope", 5) { b.rope(&z, positions: indices, table: y, inverse: false) }
        #expect(try b.download(z.rows(1..<2)) == [1, 1, 1, 1])
        if bad == -1 { continue }  // a slot without an expert
        let choice = b.upload([0, 1, bad, 3, 2, 3])
        var plan = b.route(p, choice: b.upload([0, 1, 0, 3, 2, 3]), policy)
        expectError("route", 4) { plan = b.route(p, choice: choice, policy) }
        #expect(try b.download(plan.offsets) == [0, 1, 2, 3, 5])
        #expect(try b.download(plan.rowOfSlot) == [0, 1, -1, 3, 2, 4])
      }
      let plan = b.route(p, choice: b.upload([0, 1, 3, 3, 2, 3]), policy)
      let error = #expect(throws: CUDAError.self) { try b.synchronize() }
      #expect(error?.description == "route: index 3 is named twice")
      #expect(try b.download(plan.rowOfSlot) == [0, 1, 3, -1, 2, 4])
      try b.synchronize()
    }
  }
}

extension Backend {
  /// A tensor full of one number.
  fileprivate func fill(_ shape: Shape, _ value: Double) -> Tensor<Self> {
    var x = empty(shape)
    fill(value, &x)
    return x
  }
}

/// Cases in both layouts; NaN stands around what is read as a view.
private func largeCases<B: Backend>(_: B.Type) -> [OperationCase<B>] {
  var cases: [OperationCase<B>] = []
  func add(
    _ operation: String, _ sizes: String, _ layouts: [Layout] = Layout.allCases, _ body: @escaping (inout Trial<B>) throws -> Void
  ) {
    for layout in layouts { cases.append(OperationCase(operation, sizes, layout, body)) }
  }
  for (n, c) in [(5, 1031), (2, 2100), (3, 257)] {
    let terms = B.Scalar.self == Double.self ? c : 0  // sums are formed in float64
    add("rmsNorm", "(\(n),\(c))") { trial in
      let (x, w, dy, dx0) = (trial.source.matrix(n, c), trial.source.vector(c), trial.source.matrix(n, c), trial.source.matrix(n, c))
      let expected = Naive.rmsNorm(x, w, epsilon: 1e-5)
      let found = trial.backend.rmsNorm(trial.device(x), trial.device(w), offset: 0, epsilon: 1e-5)
      try trial.expect("y", found.y, expected.y, 8 + terms, of: expected.y.magnitude)
      try trial.expect("rho", found.rho, expected.rho, 5 + terms, of: expected.rho)
      var dx = trial.writable(dx0)
      trial.backend.rmsNormBackward(
        trial.device(dy), trial.device(x), trial.device(w), offset: 0, rho: trial.device(expected.rho), into: &dx.tensor)
      let slopes = Naive.rmsNormBackward(dy, x, w, rho: expected.rho)
      let inner = Naive.rowDots(Matrix(n, c) { i, j in abs(dy[i, j] * w[j]) }, x.magnitude)
      let magnitude = Matrix(n, c) { i, j in
        let rho = expected.rho[i]
        return abs(dx0[i, j]) + rho * abs(dy[i, j] * w[j]) + abs(x[i, j]) * rho * rho * rho * inner[i] / Double(c)
      }
      try trial.expect("dx", dx, Naive.add(1, slopes, to: dx0), 13 + terms, of: magnitude)
    }
    add("rowDots", "(\(n),\(c))") { trial in
      let (x, y) = (trial.source.matrix(n, c), trial.source.matrix(n, c))
      let found = trial.backend.rowDots(trial.device(x), trial.device(y))
      try trial.expect("w", found, Naive.rowDots(x, y), 2 + terms, of: Naive.rowDots(x.magnitude, y.magnitude))
    }
    add("crossEntropy", "(\(n),\(c))") { trial in
      let (z0, labels) = (trial.source.matrix(n, c, 20), (0..<n).map { _ in trial.source.integer(below: c) })
      var z = trial.writable(z0)
      let expected = Naive.crossEntropy(z0, labels: labels, scale: 0.375)
      let loss = trial.backend.crossEntropy(&z.tensor, labels: trial.device(labels), scale: 0.375, softcap: nil)
      try trial.expect("loss", loss, expected.loss, 80 + c / 32, of: expected.loss.map { max(1, $0) })
      let p = Naive.softmax(z0)
      let magnitude = Matrix(n, c) { i, j in 0.375 * (p[i, j] + (j == labels[i] ? 1 : 0)) }
      try trial.expect("gradient", z, expected.gradient, 160 + c / 32, of: magnitude)
    }
  }
  for (n, c) in [(4097, 33), (9000, 3)] {
    add("addColumnSums", "(\(n),\(c)) weighted") { trial in
      let (x, y, w, sums0) = (trial.source.matrix(n, c), trial.source.matrix(n, c), trial.source.vector(n), trial.source.vector(c))
      var sums = trial.writable(sums0)
      trial.backend.addColumnSums(trial.device(x), weights: trial.device(w), into: &sums.tensor)
      let magnitude = Naive.addColumnSums(x.magnitude, weights: w.map(abs), to: sums0.map(abs))
      try trial.expect("sums", sums, Naive.addColumnSums(x, weights: w, to: sums0), 170, of: magnitude)  // 128 of a thread, 32 warps, parts
      var gradient = trial.writable(sums0)
      trial.backend.rmsNormWeightGradient(trial.device(x), trial.device(y), rho: trial.device(w), into: &gradient.tensor)
      let (added, sizes) = (
        Naive.rmsNormWeightGradient(x, y, rho: w), Naive.rmsNormWeightGradient(x.magnitude, y.magnitude, rho: w.map(abs))
      )
      let expected = (0..<c).map { sums0[$0] + added[$0] }
      try trial.expect("dweight", gradient, expected, 170, of: (0..<c).map { abs(sums0[$0]) + sizes[$0] })
    }
  }
  add("dot", "of 1050000", [.contiguous]) { trial in
    let (x, y) = (trial.source.matrix(500, 2100), trial.source.matrix(500, 2100))
    let (a, b) = (trial.device(x), trial.device(y))
    let magnitude = Naive.dot(x.magnitude, y.magnitude)
    // Formed in float64, of whose roundings some are those of the definition.
    let bound = trial.tolerance.bound(2, of: magnitude) + 1_050_000 * 0x1p-53 * magnitude
    try trial.expect("Σ x y", trial.backend.dot(a, b), [Naive.dot(x, y)], within: [bound])
    try trial.expect("Σ x", trial.backend.sum(a), [Naive.sum(x)], within: [bound + Naive.sum(x.magnitude) * 0x1p-53])
  }
  add("addEmbeddingGradient", "N 70 table (9,600)") { trial in
    let (dy, table0, ids) = (
      trial.source.matrix(70, 600), trial.source.matrix(9, 600), (0..<70).map { _ in trial.source.integer(below: 8) }
    )
    var table = trial.writable(table0)
    trial.backend.addEmbeddingGradient(-0.5, trial.device(dy), trial.device(ids), into: &table.tensor)
    var magnitude = Naive.addEmbeddingGradient(0.5, dy.magnitude, ids, to: table0.magnitude)
    for j in 0..<600 { magnitude[8, j] = 0 }  // no id names it
    try trial.expect("dtable", table, Naive.addEmbeddingGradient(-0.5, dy, ids, to: table0), 71, of: magnitude)
  }
  for (n, e, policy) in [
    (2100, 8, .topK(2)), (4200, 3, .topK(1)), (70, 65, .topP(threshold: 0.9, temperature: 0.5)), (33, 130, .topK(40)),
  ] as [(Int, Int, RoutingPolicy)] {
    add("route", "N \(n) E \(e) \(policy)") { trial in
      let p = Naive.softmax(trial.source.matrix(n, e, 3)).map { Double(Float($0)) }
      let choice = Naive.choose(p, .topK(policy.slots(of: e))).map { trial.source.integer(below: 5) == 0 ? -1 : $0 }
      let (found, plan) = (
        trial.backend.route(trial.device(p), choice: trial.device(choice), policy), Naive.route(p, choice: choice, policy)
      )
      try trial.expect("rowOfSlot", found.rowOfSlot, plan.rowOfSlot)
      let nobodys = [Int](repeating: -1, count: n * plan.slots - plan.pairs)
      try trial.expect("tokenOfRow", found.tokenOfRow, plan.tokenOfRow + nobodys)
      try trial.expect("slotOfRow", found.slotOfRow, plan.slotOfRow + nobodys)
      try trial.expect("offsets", found.offsets, plan.offsets)
      try trial.expect(
        "weights", found.weights, plan.weights + nobodys.map { _ in 0 }, plan.slots + 2, of: plan.weights + nobodys.map { _ in 0 })
      try trial.expectExactly("counts", found.counts, (0..<e).map { Double(plan.rows(of: $0).count) })
      try trial.expectExactly("firstCounts", found.firstCounts, plan.firstCounts)
    }
  }
  return cases
}
