extension Naive {
  /// a b: (m,k) (k,n) → (m,n).
  public static func product(_ a: Matrix, _ b: Matrix) -> Matrix {
    precondition(a.columns == b.rows, "a product of (\(a.rows),\(a.columns)) and (\(b.rows),\(b.columns))")
    return Matrix(a.rows, b.columns) { i, j in
      var total = 0.0
      for l in 0..<a.columns { total += a[i, l] * b[l, j] }
      return total
    }
  }

  /// α a b + β c: (m,k) (k,n), c (m,n). With β = 0, c is not read.
  public static func gemm(_ alpha: Double, _ a: Matrix, _ b: Matrix, _ beta: Double, _ c: Matrix) -> Matrix {
    let ab = product(a, b)
    return Matrix(c.rows, c.columns) { i, j in
      beta == 0 ? alpha * ab[i, j] : alpha * ab[i, j] + beta * c[i, j]
    }
  }
}
