extension Naive {
  /// ρ = 1 / √(mean x² + ε) of one row.
  private static func inverseRMS(_ x: [Double], epsilon: Double) -> Double {
    var squares = 0.0
    for value in x { squares += value * value }
    return 1 / (squares / Double(x.count) + epsilon).squareRoot()
  }

  /// y = ρ x ⊙ (offset + weight), per row (Zhang & Sennrich 2019, eq. 4): x (N,C), weight (C) → y (N,C), ρ (N).
  ///
  /// Gemma's norms have the offset 1, all others 0.
  public static func rmsNorm(_ x: Matrix, _ weight: [Double], offset: Double = 0, epsilon: Double) -> (y: Matrix, rho: [Double]) {
    let rho = (0..<x.rows).map { inverseRMS(x.row($0), epsilon: epsilon) }
    let y = Matrix(x.rows, x.columns) { n, c in x[n, c] * rho[n] * (offset + weight[c]) }
    return (y, rho)
  }

  /// dx through each row's whole Jacobian: x, dy (N,C), ρ (N) of the forward → (N,C).
  ///
  ///     ∂y_i/∂x_j = (offset + w_i) (ρ δ_ij + x_i ∂ρ/∂x_j)      ∂ρ/∂x_j = −½ (mean x² + ε)^(−3/2) · 2 x_j / C
  public static func rmsNormBackward(_ dy: Matrix, _ x: Matrix, _ weight: [Double], offset: Double = 0, rho: [Double]) -> Matrix {
    var dx = Matrix(x.rows, x.columns)
    for n in 0..<x.rows {
      for j in 0..<x.columns {
        let slope = -0.5 * (rho[n] * rho[n] * rho[n]) * 2 * x[n, j] / Double(x.columns)  // ∂ρ/∂x_j
        for i in 0..<x.columns {
          let jacobian = (offset + weight[i]) * ((i == j ? rho[n] : 0) + x[n, i] * slope)
          dx[n, j] += dy[n, i] * jacobian
        }
      }
    }
    return dx
  }

  /// dweight_c = Σ_n dy_nc ∂y_nc/∂w_c, and ∂y_nc/∂w_c = ρ_n x_nc: (C).
  public static func rmsNormWeightGradient(_ dy: Matrix, _ x: Matrix, rho: [Double]) -> [Double] {
    var dweight = [Double](repeating: 0, count: x.columns)
    for n in 0..<x.rows {
      for c in 0..<x.columns { dweight[c] += dy[n, c] * rho[n] * x[n, c] }
    }
    return dweight
  }
}
