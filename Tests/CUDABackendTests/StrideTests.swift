import Conformance
import Tensors
import Testing

@testable import CUDABackend

/// Rows that lie further apart than 32 bits count. The emulator's memory is there only where something is stored.
@Suite struct StrideTests {
  /// Cut to 32 bits it is 64: rows would overlap.
  static let stride = 1 << 32 + 64

  /// The same bits as where rows follow one another.
  @Test func rowsLieAsFarApartAsTheyLike() throws {
    try check(CUDAFloat(EmulatedDevice.open(seed: 1), isPoisoned: true))
    try check(CUDADouble(EmulatedDevice.open(seed: 2), isPoisoned: true))
  }

  private func check<B: CUDABackend>(_ backend: B) throws {
    let expected = try results(backend) { $0 }
    let found = try results(backend) { x in
      var y = backend.empty(Shape(x.rowCount, Self.stride)).columns(0..<x.columnCount)
      backend.copy(x, into: &y)
      return y
    }
    #expect(expected.count == 44 && expected.allSatisfy { !$0.isEmpty && $0.allSatisfy(\.isFinite) })
    for i in expected.indices { #expect(found[i] == expected[i], "result \(i)") }
  }

  /// Operations of every file of kernels that has matrices, on matrices that `place` moves.
  private func results<B: CUDABackend>(_ backend: B, _ place: (Tensor<B>) -> Tensor<B>) throws -> [[B.Scalar]] {
    var source = RandomSource("stride")
    func random(_ rows: Int, _ columns: Int) -> Tensor<B> {
      place(backend.upload(source.matrix(rows, columns).values.map { B.Scalar($0) }, Shape(rows, columns)))
    }
    func vector(_ count: Int) -> Tensor<B> { backend.upload(source.vector(count).map { B.Scalar($0) }, Shape(count)) }
    var found: [Tensor<B>] = []
    let (x, y, w) = (random(3, 70), random(3, 70), vector(70))
    var sums = vector(70)
    backend.addColumnSums(x, weights: nil, into: &sums)
    let norm = backend.rmsNorm(x, w, offset: 0, epsilon: 1e-5)
    var turned = random(3, 72)
    backend.rope(&turned, positions: backend.upload([2, 0, 1]), table: random(3, 36), inverse: false)
    let p = backend.softmax(random(3, 66))
    let plan = backend.route(p, choice: backend.choose(p, .topK(2)), .topK(2))
    found += [x, sums, backend.rowDots(x, y), backend.dot(x, y), backend.gated(.silu, x, y), norm.y, turned, p]
    found += [backend.gather(x, rows: backend.upload([2, 1])), backend.dispatch(x, plan), plan.weights]
    // Few rows, small tiles, large ones; both factors with their lines and their terms far apart.
    for (a, b, n) in [
      (random(3, 70).operand, random(3, 70).T, 3), (random(70, 9).operand, random(9, 80).operand, 80),
      (random(9, 70).T, random(80, 9).T, 80), (random(9, 3).T, random(9, 12300).operand, 12300),
    ] {
      var c = random(a.shape.rows, n)
      backend.gemm(-0.5, a, b, 2, into: &c, rows: nil)
      found.append(c)
    }
    // Attention of two sequences, forward and backward, and of one row over earlier ones.
    let form = AttentionForm(heads: 2, keyValueHeads: 1, headWidth: 36, scale: 0.2)
    let (q, k, v, dy) = (random(5, 72), random(5, 36), random(5, 36), random(5, 72))
    let sequences = SequencePlan(offsets: [0, 3, 5], on: backend)
    let attended = backend.attention(q, k, v, sequences, form)
    let slopes = backend.attentionBackward(dy, q, k, v, output: attended.output, logSumExp: attended.logSumExp, sequences, form)
    let row = backend.attention(q.rows(0..<1), k, v, SequencePlan(offsets: [0, 1], keyRows: [0..<5], on: backend), form)
    found += [attended.output, slopes.dq, slopes.dk, slopes.dv, row.output]
    found += decoded(backend, random) + expertStage(backend, random)
    return try backend.download(found)
  }

  /// A matrix that is kept encoded, as scalars, and rows that are decoded from it.
  private func decoded<B: CUDABackend>(_ backend: B, _ random: (Int, Int) -> Tensor<B>) -> [Tensor<B>] {
    let (x, y, index) = (random(4, 70), random(3, 70), backend.upload([2, 0, 3]))
    let encoded = DeviceEncoding(
      base: backend.address(x), stride: Int64(x.rowStride * MemoryLayout<B.Scalar>.stride), format: DeviceFormat.scalars.rawValue)
    backend.launch(
      "decode", blocks: 3, threads: 256, encoded, backend.address(index), Int32(4), backend.rows(y), Int32(70), Int32(1),
      backend.errorWord(.embedding))
    return [x, y]
  }

  /// The kernels of the expert stage as CUDABackend+Fused launches them, but with all parameters, results and sums placed as well. Two
  /// groups of tokens, and two blocks that share the columns. All matrices are what comes back.
  private func expertStage<B: CUDABackend>(_ backend: B, _ random: (Int, Int) -> Tensor<B>) -> [Tensor<B>] {
    var matrices: [Tensor<B>] = []
    func matrix(_ rows: Int, _ columns: Int) -> DeviceRows {
      matrices.append(random(rows, columns))
      return backend.rows(matrices[matrices.count - 1])
    }
    let (n, f, e, r1, r2, r3) = (5, 70, 3, 3, 2, 4)
    let (p, samples, positions) = (backend.softmax(random(n, e)), backend.upload([7, 7, 7, 8, 8]), backend.upload([0, 1, 2, 0, 1]))
    let routing = backend.route(p, choice: backend.choose(p, .topK(2)), .topK(2))
    let m = routing.rows
    let plan = ExpertPlan(
      offsets: backend.address(routing.offsets), tokenOfRow: backend.address(routing.tokenOfRow),
      weights: backend.address(routing.weights), experts: Int32(e), tokens: Int32(n))
    let mask = ExpertMask(
      samples: backend.address(samples), positions: backend.address(positions), key: 42, step: 3, threshold: 20_000)
    let (base1, base3, q) = (matrix(n, f), matrix(n, f), matrix(n, f))
    let one = ExpertBranch(t: matrix(m, r1), b: matrix(f, e * r1))
    let two = ExpertBranch(t: matrix(m, r2), b: matrix(e * r2, f))
    let three = ExpertBranch(t: matrix(m, r3), b: matrix(f, e * r3))
    let (scale, factor, ranks) = (B.Scalar(0.5), B.Scalar(1.5), r1 + r2 + r3)
    func join(_ sums: DeviceRows, _ width: Int, _ results: [(rows: DeviceRows, width: Int)]) {
      let results = (0..<3).map { i in
        i < results.count
          ? ExpertResult(y: results[i].rows, width: Int32(results[i].width), alpha: scale) : ExpertResult(y: .none, width: 0, alpha: 0)
      }
      backend.launch(
        "expert_join", over: m * width, sums, results[0], results[1], results[2], backend.pairs(routing), Int64(m * width), Int32(width),
        Int32(m), Int32(2))
    }
    let forward = matrix(2 * m, r2)
    backend.launch(
      "expert_forward", blocks: 1, by: 2, threads: 256, base1, base3, one, three, two.b, plan, mask, matrix(n, f), forward, Int64(m),
      Int32(f), Int32(r1), Int32(r2), Int32(r3), scale, scale, factor, Int32(0))
    join(forward, r2, [(matrix(m, r2), r2)])
    let (sums, outer) = (matrix(2 * m, r1 + r3 + 1), matrix(2 * e * ranks, f))
    backend.launch(
      "expert_backward", blocks: 2, by: 2, threads: 256, q, base1, base3, one, two, three, plan, mask, matrix(n, f), matrix(n, f), sums,
      outer, Int64(m), Int32(3), Int32(f), Int32(r1), Int32(r2), Int32(r3), scale, scale, factor, Int32(0))
    join(sums, r1 + r3 + 1, [(matrix(m, r1), r1), (matrix(m, r3), r3), (matrix(m, 1), 1)])
    backend.launch(
      "expert_add", over: e * ranks * f, outer, matrix(f, e * r1), matrix(e * r2, f), matrix(f, e * r3), Int64(e * ranks * f), Int32(f),
      Int32(e), Int32(r1), Int32(r2), Int32(r3), scale, scale, Int32(2))
    withExtendedLifetime((routing, samples, positions)) {}
    return matrices
  }
}
