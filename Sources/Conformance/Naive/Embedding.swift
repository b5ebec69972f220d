extension Naive {
  /// Rows of the table: ids (N), table (V,C) → (N,C).
  public static func embedding(_ ids: [Int], _ table: Matrix) -> Matrix {
    Matrix(ids.count, table.columns) { n, c in table[ids[n], c] }
  }

  /// dtable[ids[n]] + α dy_n for every n: dy (N,C), dtable (V,C).
  public static func addEmbeddingGradient(_ alpha: Double, _ dy: Matrix, _ ids: [Int], to dtable: Matrix) -> Matrix {
    var result = dtable
    for n in 0..<dy.rows {
      for c in 0..<dy.columns { result[ids[n], c] += alpha * dy[n, c] }
    }
    return result
  }

  /// The rows of x that `rows` names: x (N,C) → (count,C).
  public static func gather(_ x: Matrix, rows: [Int]) -> Matrix {
    Matrix(rows.count, x.columns) { i, c in x[rows[i], c] }
  }

  /// y with x_i in the place of y[rows[i]]; no row is named twice: x (count,C), y (N,C).
  public static func copy(_ x: Matrix, rows: [Int], to y: Matrix) -> Matrix {
    var result = y
    for i in 0..<rows.count {
      for c in 0..<x.columns { result[rows[i], c] = x[i, c] }
    }
    return result
  }

  /// y[rows[i]] + x_i; no row is named twice: x (count,C), y (N,C).
  public static func addScattered(_ x: Matrix, rows: [Int], to y: Matrix) -> Matrix {
    var result = y
    for i in 0..<rows.count {
      for c in 0..<x.columns { result[rows[i], c] += x[i, c] }
    }
    return result
  }
}
