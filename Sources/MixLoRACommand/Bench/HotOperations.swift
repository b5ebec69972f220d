import Decoders
import Layers
import Tensors

/// The operations that steps and generation spend their time in, at a model's shapes.
///
/// N tokens, C channels, F hidden width, r rank; E = 8 experts, K = 2 of them a token, so M = K·N rows in their order.
struct HotOperations<B: ProfilingBackend> {
  /// One of them, with its flops, or else the bytes that it must read and write at least.
  struct Timed {
    let name: String
    let work: Work
    let body: () -> Void
  }

  enum Work {
    case flops(Double)
    case bytes(Double)
  }

  private let b: B
  private let block: BlockOptions
  private let length: Int
  private let r: Int
  private let experts = 8
  private let chosen = 2
  private var n: Int { block.tokens }
  private var c: Int { block.channels }
  private var f: Int { block.hidden }
  private var m: Int { chosen * n }

  init(_ block: BlockOptions, length: Int, rank: Int, on backend: B) {
    (self.block, self.length, r, b) = (block, length, rank, backend)
  }

  /// The first copy and the first product are what the others are held against.
  var all: [Timed] { dense + encoded + ofExperts + ofAttention + others }

  // MARK: By kind

  private var dense: [Timed] {
    let (x, h, w, a, bw) = (random(n, c), random(n, f), random(f, c), random(r, c), random(f, r))
    let dh = random(n, r)
    var (y, dx, branch, da) = (b.empty(Shape(n, f)), b.empty(Shape(n, c)), b.empty(Shape(n, r)), b.empty(Shape(r, c)))
    return [
      moving("copy (N,F)", 2 * n * f) { b.copy(h, into: &y) },
      product("gemm x Wᵀ (N,C) (C,F)", n, c, f) { b.gemm(1, x.operand, w.T, 0, into: &y, rows: nil) },
      product("gemm dy W (N,F) (F,C)", n, f, c) { b.gemm(1, h.operand, w.operand, 0, into: &dx, rows: nil) },
      product("gemm x Aᵀ (N,C) (C,r)", n, c, r) { b.gemm(1, x.operand, a.T, 0, into: &branch, rows: nil) },
      product("gemm + h Bᵀ (N,r) (r,F)", n, r, f) { b.gemm(1, dh.operand, bw.T, 1, into: &y, rows: nil) },
      product("gemm + dhᵀ x (r,N) (N,C)", r, n, c) { b.gemm(1, dh.T, x.operand, 1, into: &da, rows: nil) },
    ]
  }

  private var encoded: [Timed] {
    let bytes = WeightFormat.q4_0.rowBytes(c) * f
    let matrix = RandomMatrices(.q4_0, InitialWeights(seed: 1, on: b), seed: 1, on: b).frozen("W", Shape(f, c), .constant(0))
    let (w, x, row) = (Operand<B>.frozen(matrix, transposed: true), random(n, c), random(1, c))
    var (y, one) = (b.empty(Shape(n, f)), b.empty(Shape(1, f)))
    return [
      product("gemm x Wᵀ, W in q4_0", n, c, f) { b.gemm(1, x.operand, w, 0, into: &y, rows: nil) },
      Timed(name: "the same of one row", work: .bytes(Double(bytes))) { b.gemm(1, row.operand, w, 0, into: &one, rows: nil) },
    ]
  }

  private var ofExperts: [Timed] {
    let policy = RoutingPolicy.topK(chosen)
    let p = b.softmax(random(n, experts))
    let routing = b.route(p, choice: b.choose(p, policy), policy)
    let (base, rows, t, all, u) = (random(n, f), random(m, f), random(m, r), random(n, experts * r), random(n, c))
    let (a1, a2, b1) = (random(experts * r, c), random(experts * r, f), random(f, experts * r))
    let (a2OfRow, b1OfRow) = (ExpertStack(a2, experts: experts, along: .rows), ExpertStack(b1, experts: experts, along: .columns))
    var (low, sum, wide, gradient) = (b.empty(Shape(n, experts * r)), b.empty(Shape(m, f)), b.empty(Shape(m, r)), b.zeros(a2.shape))
    return [
      moving("softmax, choose, route (N,E)", 2 * n * experts) { _ = b.route(b.softmax(p), choice: b.choose(p, policy), policy) },
      product("gemm u A_allᵀ (N,C) (C,E·r)", n, c, experts * r) { b.gemm(1, u.operand, a1.T, 0, into: &low, rows: nil) },
      moving("dispatchBlocks (N,E·r)", m * r * 2) { _ = b.dispatchBlocks(all, routing) },
      moving("combineBlocks (M,r)", m * r + n * experts * r) { _ = b.combineBlocks(t, weights: routing.weights, routing) },
      moving("dispatch (N,F)", n * f + m * f) { _ = b.dispatch(base, routing) },
      moving("combine (M,F)", m * f + n * f) { _ = b.combine(rows, weights: routing.weights, routing) },
      product("groupedGemm + t Bᵀ (M,r) (r,F)", m, r, f) { b.groupedGemm(1, t, b1OfRow.T, 1, into: &sum, routing) },
      product("groupedGemm g Aᵀ (M,F) (F,r)", m, f, r) { b.groupedGemm(1, rows, a2OfRow.T, 0, into: &wide, routing) },
      product("groupedOuter + tᵀ g (r,M) (M,F)", r, m, f) {
        b.groupedOuter(1, t, rows, into: &gradient, stackedAlong: .rows, routing)
      },
      moving("rowDots (M,F)", 2 * m * f) { _ = b.rowDots(rows, rows) },
      moving("dropout (M,F)", 2 * m * f) { _ = b.dropout(rows, 0.05, RandomKey(seed: 7), identity, routing) },
    ]
  }

  private var ofAttention: [Timed] {
    let (q, k, v, dy) = (random(n, c), random(n, c), random(n, c), random(n, c))
    let plan = SequencePlan(offsets: Array(stride(from: 0, to: n, by: length)) + [n], on: b)
    let form = AttentionForm(heads: c / 64, keyValueHeads: c / 64, headWidth: 64, scale: 0.125)
    let (output, logSumExp) = b.attention(q, k, v, plan, form)
    let pairs = plan.offsets.indices.dropLast().reduce(0.0) { $0 + Double(plan.queries($1).count * (plan.queries($1).count + 1)) / 2 }
    let table = random(length, 64)
    var turned = random(n, c)
    return [
      Timed(name: "attention (N,C)", work: .flops(4 * pairs * Double(c))) { _ = b.attention(q, k, v, plan, form) },
      Timed(name: "attentionBackward (N,C)", work: .flops(10 * pairs * Double(c))) {
        _ = b.attentionBackward(dy, q, k, v, output: output, logSumExp: logSumExp, plan, form)
      },
      moving("rope (N,C)", 2 * n * c) { b.rope(&turned, positions: identity.positions, table: table, inverse: false) },
    ]
  }

  private var others: [Timed] {
    let (x, dx, h, h2) = (random(n, c), random(n, c), random(n, f), random(n, f))
    let weight = b.random(Shape(c), .normal(deviation: 1), RandomKey(seed: 6))
    let rho = b.rmsNorm(x, weight, offset: 0, epsilon: 1e-5).rho
    let vocabulary = 32000
    let labels = b.upload((0..<128).map { Int32($0) })
    let size = experts * r * (c + f)
    let settings = AdamWSettings(learningRate: 1e-4, weightDecay: 0.01, step: 10)
    func vector() -> Tensor<B> { b.random(Shape(size), .uniform(bound: 1), RandomKey(seed: 8)) }
    let (gradient, zero) = (vector(), b.zeros(Shape(size)))
    var (sum, z, value, mean, square) = (dx, random(128, vocabulary), vector(), b.copy(zero), zero)
    return [
      moving("add (N,C)", 3 * n * c) { b.add(1, x, into: &sum, rows: nil) },
      moving("rmsNorm (N,C)", 2 * n * c) { _ = b.rmsNorm(x, weight, offset: 0, epsilon: 1e-5) },
      moving("rmsNormBackward (N,C)", 4 * n * c) { b.rmsNormBackward(x, x, weight, offset: 0, rho: rho, into: &sum) },
      moving("gated (N,F)", 3 * n * f) { _ = b.gated(.silu, h, h2) },
      moving("gatedBackward (N,F)", 5 * n * f) { _ = b.gatedBackward(.silu, h, h, h2) },
      moving("dropout (N,F)", 2 * n * f) { _ = b.dropout(h, 0.05, RandomKey(seed: 7), identity) },
      moving("crossEntropy (128,\(vocabulary))", 2 * 128 * vocabulary) {
        _ = b.crossEntropy(&z, labels: labels, scale: 1, softcap: nil)
      },
      moving("adamW of \(size)", 7 * size) {
        b.adamW(&value, gradient: gradient, factor: nil, &mean, &square, settings, range: nil)
      },
    ]
  }

  // MARK: Parts

  private var identity: RowIdentity<B> {
    let numbers = b.upload((0..<n).map { Int32($0 % length) })
    return RowIdentity(samples: numbers, positions: numbers, step: 1)
  }

  private func random(_ rows: Int, _ columns: Int) -> Tensor<B> {
    b.random(Shape(rows, columns), .normal(deviation: 1), RandomKey(seed: UInt64(rows * columns)))
  }

  private func product(_ name: String, _ m: Int, _ k: Int, _ n: Int, _ body: @escaping () -> Void) -> Timed {
    Timed(name: name, work: .flops(2 * Double(m) * Double(k) * Double(n)), body: body)
  }

  private func moving(_ name: String, _ numbers: Int, _ body: @escaping () -> Void) -> Timed {
    Timed(name: name, work: .bytes(Double(numbers) * Double(MemoryLayout<B.Scalar>.size)), body: body)
  }
}
