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

  private func check<B: Backend>(_ backend: B) throws {
    let expected = try results(backend) { $0 }
    let found = try results(backend) { x in
      var y = backend.empty(Shape(x.rowCount, Self.stride)).columns(0..<x.columnCount)
      backend.copy(x, into: &y)
      return y
    }
    #expect(expected.count == 20 && expected.allSatisfy { !$0.isEmpty && $0.allSatisfy(\.isFinite) })
    for i in expected.indices { #expect(found[i] == expected[i], "result \(i)") }
  }

  /// Operations of every file of kernels that has matrices but expert.cu and encoded.cu, on matrices that `place` moves.
  private func results<B: Backend>(_ backend: B, _ place: (Tensor<B>) -> Tensor<B>) throws -> [[B.Scalar]] {
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
    return try backend.download(found)
  }
}
