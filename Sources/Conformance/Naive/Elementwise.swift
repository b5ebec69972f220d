extension Naive {
  /// y + α x, for equal sizes.
  public static func add(_ alpha: Double, _ x: Matrix, to y: Matrix) -> Matrix {
    Matrix(y.rows, y.columns) { i, j in y[i, j] + alpha * x[i, j] }
  }

  /// α x.
  public static func scale(_ alpha: Double, _ x: Matrix) -> Matrix { x.map { alpha * $0 } }

  /// y + bias in every row: y (N,C), bias (C).
  public static func addBias(_ bias: [Double], to y: Matrix) -> Matrix {
    Matrix(y.rows, y.columns) { n, c in y[n, c] + bias[c] }
  }

  /// sums + Σ_n w_n x_n: x (N,C), sums (C), w = 1 without weights (N).
  public static func addColumnSums(_ x: Matrix, weights: [Double]?, to sums: [Double]) -> [Double] {
    var result = sums
    for n in 0..<x.rows {
      for c in 0..<x.columns {
        if let weights { result[c] += weights[n] * x[n, c] } else { result[c] += x[n, c] }
      }
    }
    return result
  }

  /// Σ x over all elements.
  public static func sum(_ x: Matrix) -> Double {
    var total = 0.0
    for value in x.values { total += value }
    return total
  }

  /// Σ x y over all elements, for equal sizes.
  public static func dot(_ x: Matrix, _ y: Matrix) -> Double {
    var total = 0.0
    for i in 0..<x.rows {
      for j in 0..<x.columns { total += x[i, j] * y[i, j] }
    }
    return total
  }

  /// w_n = ⟨x_n, y_n⟩: x, y (N,C) → (N).
  public static func rowDots(_ x: Matrix, _ y: Matrix) -> [Double] {
    var result = [Double](repeating: 0, count: x.rows)
    for n in 0..<x.rows {
      for c in 0..<x.columns { result[n] += x[n, c] * y[n, c] }
    }
    return result
  }

  /// w_n x_n: x (N,C), weights (N).
  public static func scaleRows(_ weights: [Double], _ x: Matrix) -> Matrix {
    Matrix(x.rows, x.columns) { n, c in weights[n] * x[n, c] }
  }
}
