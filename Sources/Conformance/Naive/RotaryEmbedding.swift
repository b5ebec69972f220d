import Platform

extension Naive {
  /// The table (P,D) of a rotary embedding: cos(p θ_j) in the first D/2 columns, sin(p θ_j) in the others, θ_j = base^(−2j/D).
  public static func ropeTable(positions: Int, headWidth: Int, base: Double = 10_000) -> Matrix {
    let half = headWidth / 2
    return Matrix(positions, headWidth) { p, j in
      let frequency = Double.exp(-Double.log(base) * Double(2 * (j % half)) / Double(headWidth))
      return j < half ? Double.cos(Double(p) * frequency) : Double.sin(Double(p) * frequency)
    }
  }

  /// Each pair (j, j + D/2) of every head, turned by the angle of its row's position (Su et al. 2021, eq. 34): x (N,H·D).
  ///
  ///     (x_j, x_{j+D/2}) ← (x_j cos − x_{j+D/2} sin,  x_j sin + x_{j+D/2} cos)
  ///
  /// The halves of a head are paired, as in Hugging Face checkpoints; the paper pairs neighbours. `inverse` turns back.
  /// A turn is orthogonal, so its inverse is its transpose and thereby the backward.
  public static func rope(_ x: Matrix, positions: [Int], table: Matrix, inverse: Bool = false) -> Matrix {
    let headWidth = table.columns
    let half = headWidth / 2
    var y = x
    for n in 0..<x.rows {
      for h in 0..<x.columns / headWidth {
        for j in 0..<half {
          let cos = table[positions[n], j]
          let sin = inverse ? -table[positions[n], half + j] : table[positions[n], half + j]
          let (first, second) = (h * headWidth + j, h * headWidth + half + j)
          y[n, first] = x[n, first] * cos - x[n, second] * sin
          y[n, second] = x[n, first] * sin + x[n, second] * cos
        }
      }
    }
    return y
  }
}
