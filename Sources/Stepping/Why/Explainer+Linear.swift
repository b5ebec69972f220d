import Traces

/// Matrices with biases and branches: forward, and the gradient of what they read.
extension Explainer {
  /// γ W[id].
  func embedding(_ weight: String, _ scale: Double, _ index: [Int]) throws -> Form {
    let place = Place(b: index[0], t: index[1])
    let id = Int(sequences[place.b].ids[place.t - batch.realColumns[place.b].lowerBound])
    let entry = factor("W", try run.weightRow(weight, id)[index[2]], id, index[2], of: weight)
    return .product(scale == 1 ? [entry] : [Factor("γ", scale), entry])
  }

  /// Σ_i W_oi x_i + b_o + Σ_j s B_oj (A x)_j.
  func linear(_ linear: Formula.Linear, _ index: [Int]) throws -> Form {
    let (row, o) = (row(index, linear.rows), index[index.count - 1])
    var terms: [Term] = []
    if let base = linear.base { terms.append(Term(factor("base", base, row, o))) }
    if let weight = linear.weight {
      for (i, w) in try run.weightRow(weight, o).enumerated() {
        terms.append(Term(factor("W", w, o, i, of: weight), factor("x", linear.x, row, i)))
      }
    }
    if let bias = linear.bias { terms.append(Term(factor("b", try run.weightRow(bias, 0)[o], o, of: bias))) }
    for branch in linear.branches where serves(branch, row) {
      let (low, b) = (try low(branch, vector(linear.x, row)), try run.weightRow(branch.b, o))
      for j in low.indices {
        terms.append(
          Term(Factor("s", branch.scale), factor("B", b[j], o, j, of: branch.b), projected("A", "x", low[j], j, branch, linear.x)))
      }
    }
    return .sum(terms)
  }

  /// Σ over the readers of Σ_o W_oi dy_o + Σ_j A_ji (s Bᵀ dy)_j.
  func inputGradient(_ gradient: Formula.InputGradient, _ index: [Int]) throws -> Form {
    let (result, i) = (row(index, gradient.rows), index[index.count - 1])
    var terms: [Term] = []
    for (n, reader) in gradient.readers.enumerated() {
      // The readers of one tensor are told apart by their number.
      let mark = gradient.readers.count == 1 ? "" : "\(n + 1)"
      guard let row = gradient.rows == nil ? reader.rows.map({ row(of: result.place, $0) }) ?? result : result else { continue }
      if let weight = reader.weight {
        for (o, w) in try run.weightColumn(weight, i).enumerated() {
          terms.append(Term(factor("W\(mark)", w, o, i, of: weight), factor("dy\(mark)", reader.dy, row, o)))
        }
      }
      for branch in reader.branches where serves(branch, row) {
        let (back, a) = (try back(branch, vector(reader.dy, row)), try run.weightColumn(branch.a, i))
        for j in back.indices {
          terms.append(Term(factor("A\(mark)", a[j], j, i, of: branch.a), returned("B\(mark)", "dy\(mark)", back[j], j, branch, reader.dy)))
        }
      }
    }
    return .sum(terms)
  }
}
