import Traces

/// What a token's experts give together, and the gradients that come back to each.
extension Explainer {
  /// Σ_k w_k e_k.
  func combine(_ gate: Formula.Gate, _ values: [String], _ index: [Int]) -> Form {
    let place = Place(b: index[0], t: index[1])
    return .sum(
      chosen(gate, place).compactMap { slot, expert in
        row(of: place, gate.rows(of: expert)).map { row in
          Term(factor("w", gate.weights, [place.b, place.t, slot]), factor("e\(expert)", values[expert], row, index[2]))
        }
      })
  }

  /// W2 v + (Σ_k w_k) b2 + s Σ_k B2_k (w_k A2_k h_k).
  func sharedOutput(_ output: Formula.SharedOutput, _ index: [Int]) throws -> Form {
    let (token, o) = (row(index, nil), index[2])
    var terms = try run.weightRow(output.weight, o).enumerated().map { i, w in
      Term(factor("W2", w, o, i, of: output.weight), factor("v", output.v, token, i))
    }
    for (slot, expert) in chosen(output.gate, token.place) {
      let w = factor("w", output.gate.weights, token, slot)
      if let bias = output.bias { terms.append(Term(w, factor("b2", try run.weightRow(bias, 0)[o], o, of: bias))) }
      guard !output.branches.isEmpty, let row = row(of: token.place, output.hidden[expert].rows) else { continue }
      let branch = output.branches[expert]
      let (low, b) = (try low(branch, vector(output.hidden[expert].value, row)), try run.weightRow(branch.b, o))
      for j in low.indices {
        terms.append(
          Term(
            Factor("s", branch.scale), w, factor("B2_\(expert)", b[j], o, j, of: branch.b),
            projected("A2_\(expert)", "h\(expert)", low[j], j, branch, output.hidden[expert].value)))
      }
    }
    return .sum(terms)
  }

  /// w_k q_i + Σ_j w_k A2_ji (s B2ᵀ dy)_j.
  func sharedHiddenGradient(_ rows: Formula.ExpertRows, _ q: String, _ dy: String, _ branch: Formula.Branch?, _ index: [Int]) throws -> Form
  {
    let (row, i) = (row(index, rows), index[1])
    let w = weight(rows, row.place)
    var terms = [Term(w, factor("q", q, row, i))]
    if let branch {
      let (back, a) = (try back(branch, vector(dy, row)), try run.weightColumn(branch.a, i))
      terms += back.indices.map { Term(w, factor("A2", a[$0], $0, i, of: branch.a), returned("B2", "dy", back[$0], $0, branch, dy)) }
    }
    return .sum(terms)
  }

  /// w_k dy.
  func expertOutputGradient(_ rows: Formula.ExpertRows, _ dy: String, _ index: [Int]) -> Form {
    let row = row(index, rows)
    return .product([weight(rows, row.place), factor("dy", dy, row, index[1])])
  }

  /// Σ over the experts of the token, or the token's row of another part.
  func expertSum(_ experts: [Formula.ExpertTerm], _ others: [String], _ index: [Int]) -> Form {
    let token = row(index, nil)
    let terms = experts.enumerated().compactMap { e, term in
      row(of: token.place, term.rows).map { Term(factor("dy\(term.rows.expert)", term.value, $0, index[2])) }
    }
    return .sum(terms + others.map { Term(factor("dy", $0, token, index[2])) })
  }
}
