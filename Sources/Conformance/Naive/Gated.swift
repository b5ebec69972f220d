import Platform
import Tensors

extension Naive {
  /// act(x), as the names of Hugging Face define it.
  public static func value(_ activation: Activation, _ x: Double) -> Double {
    switch activation {
    case .silu: x / (1 + Double.exp(-x))
    case .geluTanh: 0.5 * x * (1 + Double.tanh(geluArgument(x)))
    }
  }

  /// act′(x): silu's by the quotient rule, GELU's by the product rule.
  ///
  ///     silu′ = (1 · (1 + e⁻ˣ) − x · (−e⁻ˣ)) / (1 + e⁻ˣ)²      gelu′ = ½ (1 + tanh u) + ½ x (1 − tanh² u) u′
  ///
  /// For x < −350 the square overflows; the cases stay within ±100.
  public static func slope(_ activation: Activation, _ x: Double) -> Double {
    switch activation {
    case .silu:
      let e = Double.exp(-x)
      return ((1 + e) + x * e) / ((1 + e) * (1 + e))
    case .geluTanh:
      let t = Double.tanh(geluArgument(x))
      let slopeOfArgument = (2 / Double.pi).squareRoot() * (1 + 3 * 0.044715 * x * x)
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slopeOfArgument
    }
  }

  /// u = √(2/π) (x + 0.044715 x³).
  private static func geluArgument(_ x: Double) -> Double { (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x) }

  /// h = act(a) ⊙ c (Shazeer 2020, eq. 6): a, c (M,F) → (M,F).
  public static func gated(_ activation: Activation, _ a: Matrix, _ c: Matrix) -> Matrix {
    Matrix(a.rows, a.columns) { m, f in value(activation, a[m, f]) * c[m, f] }
  }

  /// da = dh ⊙ c ⊙ act′(a), dc = dh ⊙ act(a).
  public static func gatedBackward(_ activation: Activation, _ dh: Matrix, _ a: Matrix, _ c: Matrix) -> (da: Matrix, dc: Matrix) {
    let da = Matrix(a.rows, a.columns) { m, f in dh[m, f] * c[m, f] * slope(activation, a[m, f]) }
    let dc = Matrix(a.rows, a.columns) { m, f in dh[m, f] * value(activation, a[m, f]) }
    return (da, dc)
  }
}
