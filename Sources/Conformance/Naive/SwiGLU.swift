extension Naive {
  /// silu(a) = a / (1 + e⁻ᵃ).
  public static func silu(_ a: Double) -> Double { a / (1 + naturalExponential(-a)) }

  /// silu′(a) by the quotient rule: (1 · (1 + e⁻ᵃ) − a · (−e⁻ᵃ)) / (1 + e⁻ᵃ)².
  ///
  /// For a < −350 the square overflows; the cases stay within ±100.
  public static func siluSlope(_ a: Double) -> Double {
    let e = naturalExponential(-a)
    return ((1 + e) + a * e) / ((1 + e) * (1 + e))
  }

  /// h = silu(a) ⊙ c (Shazeer 2020, eq. 6): a, c (M,F) → (M,F).
  public static func swiGLU(_ a: Matrix, _ c: Matrix) -> Matrix {
    Matrix(a.rows, a.columns) { m, f in silu(a[m, f]) * c[m, f] }
  }

  /// da = dh ⊙ c ⊙ silu′(a), dc = dh ⊙ silu(a).
  public static func swiGLUBackward(_ dh: Matrix, _ a: Matrix, _ c: Matrix) -> (da: Matrix, dc: Matrix) {
    let da = Matrix(a.rows, a.columns) { m, f in dh[m, f] * c[m, f] * siluSlope(a[m, f]) }
    let dc = Matrix(a.rows, a.columns) { m, f in dh[m, f] * silu(a[m, f]) }
    return (da, dc)
  }
}
