import Conformance
import Tensors

/// A backend that computes like another one, in float64, and rounds as a lower precision would.
///
/// Every operation reads its inputs as if each had been rounded once more, computes in float64 and rounds its result. How far such a run
/// drifts from the exact one is what rounding explains of a candidate's error: our own run in the candidate's precision, whatever
/// the operation, its sizes and its magnitudes. u is the unit roundoff of what is stored, u₊ that of sums, n the length of a sum:
///
///     x̃ = x (1 + (u + u₊ √(n/2)) ξ)          ξ uniform in [−1, 1], fresh for every element
///     y = fl(op(x̃…) (1 + u₊ √n/3 · ξ))
///
/// A sum of n products that is added one by one loses about u₊ times each partial sum; for terms of random sign that is
/// u₊ √(n/6) · √Σ(terms²) (Higham & Mary 2019), which is what x̃ gives, and for terms of one sign the u₊ √n/3 · |y| of the second line.
/// Kernels that add in blocks lose less, so the estimate is on the safe side for long sums. u₊ is that of float32 for everything that
/// is stored in fewer bits.
///
/// With ``precision`` nil nothing is rounded: the same model then is the oracle itself.
final class RoundingBackend<Exact: Backend & MatrixFactorizing>: Backend, MatrixFactorizing where Exact.Scalar == Double {
  /// Element type of tensors.
  typealias Scalar = Double
  /// The other backend's buffers.
  typealias Storage = Exact.Storage
  /// The other backend's buffers.
  typealias IndexStorage = Exact.IndexStorage
  /// The other backend's weights.
  typealias FrozenMatrix = Exact.FrozenMatrix
  typealias T = Tensor<RoundingBackend>

  /// What results are rounded to; nil for not at all.
  var precision: Precision?
  /// What an operation does instead of what it should, while a cause is looked for.
  var mutation: Mutation?
  /// What computes.
  let exact: Exact
  /// Where the random numbers stand; set it to draw others.
  var seed: UInt64 = 1
  private let nothing: Exact.Storage

  /// A backend that rounds nothing yet.
  init(_ exact: Exact) {
    self.exact = exact
    nothing = exact.empty(Shape(1)).storage
  }

  /// What the other backend counted.
  var counters: Counters { exact.counters }

  // MARK: The same buffers under two types

  func inner(_ x: T) -> Tensor<Exact> { Tensor(storage: x.storage, offset: x.offset, shape: x.shape, rowStride: x.rowStride) }
  func outer(_ x: Tensor<Exact>) -> T { T(storage: x.storage, offset: x.offset, shape: x.shape, rowStride: x.rowStride) }
  func inner(_ x: Indices<RoundingBackend>) -> Indices<Exact> { Indices(storage: x.storage, offset: x.offset, count: x.count) }
  func outer(_ x: Indices<Exact>) -> Indices<RoundingBackend> { Indices(storage: x.storage, offset: x.offset, count: x.count) }

  func inner(_ operand: Operand<RoundingBackend>) -> Operand<Exact> {
    switch operand {
    case .dense(let x, let transposed): .dense(inner(x), transposed: transposed)
    case .frozen(let matrix, let transposed): .frozen(matrix, transposed: transposed)
    }
  }

  func inner(_ x: ByteBlocks<RoundingBackend>) -> ByteBlocks<Exact> {
    ByteBlocks(x.shape, codes: inner(x.codes), scales: inner(x.scales), map: inner(x.map), isSigned: x.isSigned)
  }

  func inner(_ plan: SequencePlan<RoundingBackend>) -> SequencePlan<Exact> {
    SequencePlan(offsets: plan.offsets, keyRows: plan.keyRows, onDevice: inner(plan.onDevice))
  }

  func inner(_ rows: RowIdentity<RoundingBackend>) -> RowIdentity<Exact> {
    RowIdentity(samples: inner(rows.samples), positions: inner(rows.positions), step: rows.step)
  }

  func inner(_ r: Routing<RoundingBackend>, weights: Tensor<Exact>? = nil) -> Routing<Exact> {
    Routing(
      policy: r.policy, tokens: r.tokens, experts: r.experts, rows: r.rows, choice: inner(r.choice), rowOfSlot: inner(r.rowOfSlot),
      tokenOfRow: inner(r.tokenOfRow), slotOfRow: inner(r.slotOfRow), offsets: inner(r.offsets), weights: weights ?? inner(r.weights),
      counts: inner(r.counts), firstCounts: inner(r.firstCounts))
  }

  func outer(_ r: Routing<Exact>, weights: Tensor<Exact>) -> Routing<RoundingBackend> {
    Routing(
      policy: r.policy, tokens: r.tokens, experts: r.experts, rows: r.rows, choice: outer(r.choice), rowOfSlot: outer(r.rowOfSlot),
      tokenOfRow: outer(r.tokenOfRow), slotOfRow: outer(r.slotOfRow), offsets: outer(r.offsets), weights: outer(weights),
      counts: outer(r.counts), firstCounts: outer(r.firstCounts))
  }

  /// Lends y to an operation that writes it, so that nobody else holds its buffer meanwhile.
  func write(_ y: inout T, _ body: (inout Tensor<Exact>) -> Void) {
    var lent = inner(y)
    y.storage = nothing
    body(&lent)
    y = outer(lent)
  }

  // MARK: Rounding

  /// u₊: what a sum loses in one addition.
  private func sumRoundoff(_ precision: Precision) -> Double { min(precision.unitRoundoff, Precision.float32.unitRoundoff) }

  /// x as an operation reads it whose sums have n terms.
  func read(_ x: T, _ n: Int = 1, times factor: Double = 1) -> Tensor<Exact> {
    guard let precision else { return inner(x) }
    let amplitude = factor * precision.unitRoundoff + (n > 1 ? sumRoundoff(precision) * (Double(n) / 2).squareRoot() : 0)
    var values = (try? exact.download(inner(x))) ?? []
    jitter(&values, amplitude)
    return exact.upload(values, x.shape)
  }

  func read(_ operand: Operand<RoundingBackend>, _ n: Int = 1) -> Operand<Exact> {
    guard case .dense(let x, let transposed) = operand, precision != nil else { return inner(operand) }
    return .dense(read(x, n), transposed: transposed)
  }

  /// The result y of an operation whose sums have n terms, as it is stored.
  func rounded(_ y: consuming Tensor<Exact>, _ n: Int = 1) -> T {
    var y = y
    round(&y, n)
    return outer(y)
  }

  func round(_ y: inout Tensor<Exact>, _ n: Int = 1) {
    guard let precision, var values = try? exact.download(y) else { return }
    if n > 1 { jitter(&values, sumRoundoff(precision) * Double(n).squareRoot() / 3) }
    precision.round(&values)
    exact.copy(exact.upload(values, y.shape), into: &y, rows: nil, columns: nil)
  }

  /// Multiplies each value with 1 + amplitude · ξ.
  private func jitter(_ values: inout [Double], _ amplitude: Double) {
    let begin = seed
    values.withUnsafeMutableBufferPointer { values in
      for i in values.indices {  // SplitMix64: numbers without a pattern, each from its own counter
        var z = begin &+ UInt64(truncatingIfNeeded: i &+ 1) &* 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        z ^= z >> 31
        let xi = Double(Int64(bitPattern: z) >> 11) * 0x1p-52
        values[i] *= 1 + amplitude * xi
      }
    }
    seed = begin &+ UInt64(truncatingIfNeeded: values.count) &* 0x9e37_79b9_7f4a_7c15
  }
}

extension Precision {
  /// Rounds each value to the nearest number of this precision, ties to even; what is too large becomes infinite, and what is
  /// below the smallest normal number loses bits.
  func round(_ values: inout [Double]) {
    let bits: Int
    switch self {
    case .float64: return
    case .float32:
      values.withUnsafeMutableBufferPointer { values in for i in values.indices { values[i] = Double(Float(values[i])) } }
      return
    case .float16: bits = 11
    case .bfloat16: bits = 8
    }
    let split = Double(sign: .plus, exponent: 53 - bits, significand: 1) + 1  // Veltkamp's constant
    let (smallest, quantum, largest) = self == .float16 ? (0x1p-14, 0x1p-24, 65504.0) : (0x1p-126, 0x1p-133, 0x1.fep127)
    for i in values.indices {
      let x = values[i]
      guard x.isFinite, x != 0 else { continue }
      if abs(x) < smallest {
        values[i] = (x / quantum).rounded(.toNearestOrEven) * quantum
      } else {
        let t = split * x
        let y = t - (t - x)
        values[i] = abs(y) > largest ? (y < 0 ? -.infinity : .infinity) : y
      }
    }
  }
}
