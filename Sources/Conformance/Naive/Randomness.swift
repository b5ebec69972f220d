import Platform
import Tensors

extension Naive {
  /// Number i of a row-major result: number i % 4 of Philox block i / 4.
  static func number(_ i: Int, _ key: RandomKey) -> UInt32 {
    let block = UInt64(i / 4)
    let counter = SIMD4(UInt32(truncatingIfNeeded: block), UInt32(truncatingIfNeeded: block >> 32), 0, 0)
    return Philox.numbers(counter: counter, key: key)[i % 4]
  }

  /// Uniform in [−bound, bound): bound · (2 u / 2³² − 1) for element i's number u.
  public static func uniform(_ count: Int, bound: Double, _ key: RandomKey) -> [Double] {
    (0..<count).map { bound * (2 * Double(number($0, key)) / 4_294_967_296 - 1) }
  }

  /// N(0, deviation²) by Box and Muller (1958): the elements 2i and 2i + 1 come from their two numbers a and b.
  ///
  ///     x_2i = deviation √(−2 ln u) cos 2πv      x_2i+1 = deviation √(−2 ln u) sin 2πv      u = (a + 1)/2³²,  v = b/2³²
  public static func normal(_ count: Int, deviation: Double, _ key: RandomKey) -> [Double] {
    (0..<count).map { i in
      let (a, b) = (Double(number(i / 2 * 2, key)), Double(number(i / 2 * 2 + 1, key)))
      let radius = deviation * (-2 * Double.log((a + 1) / 4_294_967_296)).squareRoot()
      let angle = 2 * Double.pi * b / 4_294_967_296
      return radius * (i % 2 == 0 ? Double.cos(angle) : Double.sin(angle))
    }
  }

  /// The probability of dropping in steps of 2⁻¹⁶: round(p·2¹⁶).
  static func threshold(_ probability: Double) -> Double { (probability * 65_536).rounded() }

  /// One element of a mask: 1/(1 − q/2¹⁶) when its 16-bit number is ≥ q, else 0.
  static func mask(_ key: RandomKey, step: Int, sample: Int, position: Int, column j: Int, _ probability: Double) -> Double {
    let counter = SIMD4(
      UInt32(truncatingIfNeeded: step), UInt32(truncatingIfNeeded: sample), UInt32(truncatingIfNeeded: position), UInt32(j / 8))
    let word = Philox.numbers(counter: counter, key: key)[j % 8 / 2]
    let number = j % 2 == 0 ? word % 65_536 : word / 65_536
    let q = threshold(probability)
    return Double(number) >= q ? 1 / (1 - q / 65_536) : 0
  }

  /// The mask (N,W) of `key` for rows that are (sample, position) of a step.
  ///
  /// Element j of row n is kept when the j % 8-th 16-bit number of Philox block (step, sample_n, position_n, j / 8), lower halves of
  /// words first, is ≥ round(p·2¹⁶).
  public static func dropoutMask(
    _ width: Int, _ probability: Double, _ key: RandomKey, samples: [Int], positions: [Int], step: Int
  ) -> Matrix {
    Matrix(samples.count, width) { n, j in
      mask(key, step: step, sample: samples[n], position: positions[n], column: j, probability)
    }
  }

  /// The mask (M,W) for rows ordered by expert: row m is that of its token under the key that is derived for its expert.
  public static func dropoutMask(
    _ width: Int, _ probability: Double, _ key: RandomKey, samples: [Int], positions: [Int], step: Int, _ plan: Plan
  ) -> Matrix {
    Matrix(plan.rows, width) { m, j in
      if m >= plan.pairs { return 0 }
      let (n, key) = (plan.tokenOfRow[m], key.derived(plan.expert(ofRow: m)))
      return mask(key, step: step, sample: samples[n], position: positions[n], column: j, probability)
    }
  }

  /// mask ⊙ x; what is dropped becomes 0 whatever it was.
  public static func dropout(_ x: Matrix, mask: Matrix) -> Matrix {
    Matrix(x.rows, x.columns) { i, j in mask[i, j] == 0 ? 0 : mask[i, j] * x[i, j] }
  }
}
