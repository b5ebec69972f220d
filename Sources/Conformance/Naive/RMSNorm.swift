extension Naive {
  /// s = 1 / √(mean x² + ε) of one row.
  private static func inverseRMS(_ x: [Double], epsilon: Double) -> Double {
    var squares = 0.0
    for value in x { squares += value * value }
    return 1 / (squares / Double(x.count) + epsilon).squareRoot()
  }

  /// y = x / √(mean x² + ε) ⊙ weight, per row (Zhang & Sennrich 2019, eq. 4): x (N,C), weight (C) → y (N,C), s (N).
  public static func rmsNorm(_ x: Matrix, _ weight: [Double], epsilon: Double) -> (y: Matrix, inverseRMS: [Double]) {
    let s = (0..<x.rows).map { inverseRMS(x.row($0), epsilon: epsilon) }
    let y = Matrix(x.rows, x.columns) { n, c in x[n, c] * s[n] * weight[c] }
    return (y, s)
  }

  /// dx through each row's whole Jacobian: x, dy (N,C) → (N,C).
  ///
  ///     ∂y_i/∂x_j = w_i (s δ_ij + x_i ∂s/∂x_j)      ∂s/∂x_j = −½ (mean x² + ε)^(−3/2) · 2 x_j / C
  public static func rmsNormBackward(_ dy: Matrix, _ x: Matrix, _ weight: [Double], epsilon: Double) -> Matrix {
    var dx = Matrix(x.rows, x.columns)
    for n in 0..<x.rows {
      let s = inverseRMS(x.row(n), epsilon: epsilon)
      for j in 0..<x.columns {
        let slope = -0.5 * (s * s * s) * 2 * x[n, j] / Double(x.columns)  // ∂s/∂x_j
        for i in 0..<x.columns {
          let jacobian = weight[i] * ((i == j ? s : 0) + x[n, i] * slope)
          dx[n, j] += dy[n, i] * jacobian
        }
      }
    }
    return dx
  }

  /// dweight_c = Σ_n dy_nc ∂y_nc/∂w_c, and ∂y_nc/∂w_c = s_n x_nc: (C).
  public static func rmsNormWeightGradient(_ dy: Matrix, _ x: Matrix, epsilon: Double) -> [Double] {
    let ones = [Double](repeating: 1, count: x.columns)
    let unweighted = rmsNorm(x, ones, epsilon: epsilon).y
    var dweight = [Double](repeating: 0, count: x.columns)
    for n in 0..<x.rows {
      for c in 0..<x.columns { dweight[c] += dy[n, c] * unweighted[n, c] }
    }
    return dweight
  }
}
