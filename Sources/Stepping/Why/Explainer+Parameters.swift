import Traces

/// The gradients of what is trained: sums over rows.
extension Explainer {
  /// The rows of a product whose matrix has a gradient.
  private func rows(_ reading: Formula.Reading) -> [Row] { reading.rows.map(allRows) ?? allTokens(adapter: reading.adapter) }

  /// The factors of dy_o in a row: itself, or w dy.
  private func dy(_ reading: Formula.Reading, _ row: Row, _ o: Int) -> [Factor] {
    let own = factor("dy", reading.dy, row, o)
    guard reading.isWeighted, let rows = reading.rows else { return [own] }
    return [weight(rows, row.place), own]
  }

  /// Σ_n dy_no x_ni.
  func matrixGradient(_ readings: [Formula.Reading], _ index: [Int]) -> [Term] {
    readings.flatMap { reading in
      rows(reading).map { row in Term(dy(reading, row, index[0]) + [factor("x", reading.x, row, index[1])]) }
    }
  }

  /// Σ_n β dy_no.
  func biasGradient(_ readings: [Formula.BiasReading], _ index: [Int]) -> Form {
    .sum(
      readings.flatMap { reading -> [Term] in
        let rows = reading.rows.map(allRows) ?? allTokens(adapter: reading.adapter)
        return rows.flatMap { row -> [Term] in
          let own = factor("dy", reading.dy, row, index[0])
          guard let gate = reading.gate else { return [Term(own)] }
          return chosen(gate, row.place).map { Term(factor("w", gate.weights, [row.place.b, row.place.t, $0.slot]), own) }
        }
      })
  }

  /// Σ over the tokens of this id of γ dy; of a tied head Σ_n dz_nv x_ni, too.
  func embeddingGradient(_ dy: String, _ scale: Double, _ head: Formula.Reading?, _ index: [Int]) -> Form {
    let rows = allTokens().filter { row in
      sequences[row.place.b].ids[row.place.t - batch.realColumns[row.place.b].lowerBound] == Int32(index[0])
    }
    let looked = rows.map { Term((scale == 1 ? [] : [Factor("γ", scale)]) + [factor("dy", dy, $0, index[1])]) }
    return .sum(looked + (head.map { matrixGradient([$0], index) } ?? []))
  }

  /// dA_ji = Σ_n (s Bᵀ dy_n)_j x_ni, dB_oj = Σ_n s dy_no (A x_n)_j.
  func branchGradient(_ isA: Bool, _ branch: Formula.Branch, _ reading: Formula.Reading, _ index: [Int]) throws -> Form {
    let j = isA ? index[0] : index[1]
    let side = isA ? try run.weightColumn(branch.b, j) : try run.weightRow(branch.a, j)
    return .sum(
      rows(reading).map { row in
        let weighting = reading.isWeighted ? reading.rows.map { [weight($0, row.place)] } ?? [] : []
        let mark = "[\(row.place.b),\(row.place.t),\(j)]"
        if isA {
          let back = branch.scale * zip(side, vector(reading.dy, row)).reduce(0) { $0 + $1.0 * $1.1 }
          return Term(
            weighting + [
              Factor("sBᵀdy\(mark)", back, [Source(letter: "B", name: branch.b), Source(letter: "dy", name: reading.dy)]),
              factor("x", reading.x, row, index[1]),
            ])
        }
        let low = zip(side, vector(reading.x, row)).reduce(0) { $0 + $1.0 * $1.1 }
        return Term(
          [Factor("s", branch.scale)] + weighting + [
            factor("dy", reading.dy, row, index[0]),
            Factor("A x\(mark)", low, [Source(letter: "A", name: branch.a), Source(letter: "x", name: reading.x)]),
          ])
      })
  }
}
