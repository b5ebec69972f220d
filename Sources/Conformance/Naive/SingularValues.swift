extension Naive {
  /// The singular values of a matrix (m,n), n of them in descending order, by Hestenes' one-sided Jacobi method.
  ///
  /// Two columns x, y are turned until they are orthogonal, all pairs again and again until none turns; the columns are then
  /// σ_j u_j, and their norms the singular values. With ζ = (‖y‖² − ‖x‖²) / 2⟨x,y⟩ the tangent of the angle is
  /// t = sign(ζ) / (|ζ| + √(1 + ζ²)).
  public static func singularValues(_ matrix: Matrix) -> [Double] {
    var columns = (0..<matrix.columns).map { j in (0..<matrix.rows).map { matrix[$0, j] } }
    func dot(_ x: [Double], _ y: [Double]) -> Double { x.indices.reduce(0) { $0 + x[$1] * y[$1] } }
    var hasTurned = true
    for _ in 0..<100 where hasTurned {
      hasTurned = false
      for j in columns.indices {
        for k in columns.indices.dropFirst(j + 1) {
          let (x, y) = (columns[j], columns[k])
          let (xx, yy, xy) = (dot(x, x), dot(y, y), dot(x, y))
          guard abs(xy) > 1e-16 * (xx * yy).squareRoot() else { continue }
          hasTurned = true
          let zeta = (yy - xx) / (2 * xy)
          let t = (zeta < 0 ? -1 : 1) / (abs(zeta) + (1 + zeta * zeta).squareRoot())
          let c = 1 / (1 + t * t).squareRoot()
          columns[j] = x.indices.map { c * (x[$0] - t * y[$0]) }
          columns[k] = x.indices.map { c * (t * x[$0] + y[$0]) }
        }
      }
    }
    return columns.map { dot($0, $0).squareRoot() }.sorted(by: >)
  }
}
