import Traces

/// Root-mean-square norms: forward, and the gradients of x and w.
extension Explainer {
  /// ρ = 1 / √(Σ x² / C + ε).
  private func rho(_ norm: Formula.Norm, _ row: Row) -> Double {
    let x = vector(norm.x, row)
    return 1 / (x.reduce(0) { $0 + $1 * $1 } / Double(x.count) + norm.epsilon).squareRoot()
  }

  private func gain(_ norm: Formula.Norm) throws -> [Double] { try run.weightRow(norm.weight, 0).map { norm.offset + $0 } }

  func norm(_ norm: Formula.Norm, _ index: [Int]) throws -> Form {
    let (row, i) = (row(index, nil), index[2])
    return .product([
      Factor("ρ", rho(norm, row), of: "x", norm.x), factor("x", norm.x, row, i), factor("g", try gain(norm)[i], i, of: norm.weight),
    ])
  }

  /// ρ g_i dy_i − Σ_j ρ³ x_i x_j g_j dy_j / C, and what passes beside the norm.
  func normGradient(_ norm: Formula.Norm, _ dy: String, _ beside: String?, _ index: [Int]) throws -> Form {
    let (row, i) = (row(index, nil), index[2])
    let (rho, gain) = (rho(norm, row), try gain(norm))
    var terms = [Term(Factor("ρ", rho, of: "x", norm.x), factor("g", gain[i], i, of: norm.weight), factor("dy", dy, row, i))]
    if let beside { terms.append(Term(factor("dz", beside, row, i))) }
    let share = Factor("−ρ³/C", -rho * rho * rho / Double(gain.count), of: "x", norm.x)
    for j in gain.indices {
      terms.append(
        Term(
          share, factor("x", norm.x, row, i), factor("x", norm.x, row, j), factor("g", gain[j], j, of: norm.weight),
          factor("dy", dy, row, j)))
    }
    return .sum(terms)
  }

  /// Σ_n ρ_n dy_ni x_ni.
  func gainGradient(_ norm: Formula.Norm, _ dy: String, _ index: [Int]) -> Form {
    .sum(
      allTokens().map { row in
        Term(
          Factor("ρ[\(row.place.b),\(row.place.t)]", rho(norm, row), of: "x", norm.x), factor("dy", dy, row, index[0]),
          factor("x", norm.x, row, index[0]))
      })
  }
}
