import Tensors

extension Naive {
  /// One step of AdamW for one number, in torch's order: decay, moments, bias correction, update.
  ///
  ///     x ← x (1 − lr λ)      m ← m + (g − m)(1 − β₁)      v ← β₂ v + (1 − β₂) g²
  ///     x ← x − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
  public static func adamW(
    _ x: Double, gradient g: Double, _ m: Double, _ v: Double, _ s: AdamWSettings
  ) -> (x: Double, m: Double, v: Double) {
    let decayed = x * (1 - s.learningRate * s.weightDecay)
    let m = m + (g - m) * (1 - s.beta1)
    let v = s.beta2 * v + (1 - s.beta2) * g * g
    let (correction1, correction2) = (1 - power(s.beta1, s.step), 1 - power(s.beta2, s.step))
    let denominator = v.squareRoot() / correction2.squareRoot() + s.epsilon
    return (decayed - s.learningRate / correction1 * m / denominator, m, v)
  }

  /// One step of stochastic gradient descent with momentum for one number: b ← μ b + g + λ x, x ← x − lr b.
  public static func sgd(_ x: Double, gradient g: Double, momentum b: Double, _ s: SGDSettings) -> (x: Double, b: Double) {
    let b = s.momentum * b + g + s.weightDecay * x
    return (x - s.learningRate * b, b)
  }

  /// What gradients are multiplied with so that their norm is at most `maximum` (0: no limit); NaN if norm or loss is not finite.
  public static func clipFactor(norm: Double, loss: Double, maximum: Double) -> Double {
    if !norm.isFinite || !loss.isFinite { return .nan }
    return maximum == 0 ? 1 : min(1, maximum / (norm + 1e-6))
  }

  /// βᵗ as t factors.
  static func power(_ base: Double, _ exponent: Int) -> Double {
    var result = 1.0
    for _ in 0..<exponent { result *= base }
    return result
  }

  /// The code of x in units of its block's scale s: the place of the nearest value of the map, the lower one of two; 0 for s = 0 and for
  /// NaN.
  public static func code(of x: Double, scale s: Double, _ map: [Double]) -> Int {
    if s == 0 { return 0 }
    return map.indices.min { abs(map[$0] - x / s) < abs(map[$1] - x / s) } ?? 0
  }

  /// The largest magnitude of each block of 256 numbers; NaN if one of them is not finite.
  public static func blockScales(_ x: [Double]) -> [Double] {
    stride(from: 0, to: x.count, by: 256).map { first in
      let block = x[first..<min(first + 256, x.count)]
      return block.allSatisfy(\.isFinite) ? block.map(abs).max() ?? 0 : .nan
    }
  }
}
