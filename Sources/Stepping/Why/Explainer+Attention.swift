import Platform
import Tensors
import Traces

/// Rotation by position, and attention: forward and backward.
extension Explainer {
  /// x_j cos − x_{j+D/2} sin, or x_j sin + x_{j+D/2} cos; back: the same with −sin.
  func rotary(_ x: String, _ letter: String, _ width: Int, _ index: [Int], isBack: Bool) -> Form {
    let (row, column) = (row(index, nil), index[2])
    let (inHead, half) = (column % width, width / 2)
    let plane = inHead % half
    let turn = run.turn(plane: plane, position: row.place.t)
    let isFirst = inHead < half
    let sine = (isFirst == isBack ? 1 : -1) * turn.sin
    return .sum([
      Term(factor(letter, x, row, column), Factor("cos", turn.cos)),
      Term(factor(letter, x, row, isFirst ? column + half : column - half), Factor(sine == turn.sin ? "sin" : "−sin", sine)),
    ])
  }

  /// A query's scores S and probabilities P over the rows that it sees, in one head.
  private struct Seen {
    let columns: Range<Int>
    let scores: [Double]
    let probabilities: [Double]
  }

  /// A head's part of a row.
  private func head(_ name: String, _ b: Int, _ t: Int, _ head: Int, _ width: Int) -> ArraySlice<Double> {
    let row = vector(name, Row(place: Place(b: b, t: t), expertRow: nil))
    return row[row.startIndex + head * width..<row.startIndex + (head + 1) * width]
  }

  private func product(_ x: ArraySlice<Double>, _ y: ArraySlice<Double>) -> Double { zip(x, y).reduce(0) { $0 + $1.0 * $1.1 } }

  private func seen(_ inputs: Formula.AttentionInputs, _ b: Int, _ t: Int, _ h: Int) -> Seen {
    let form = inputs.form
    let first = max(batch.realColumns[b].lowerBound, form.window.map { t - $0 + 1 } ?? 0)
    let columns = first..<t + 1
    let (group, d) = (h / (form.heads / form.keyValueHeads), form.headWidth)
    let q = head(inputs.q, b, t, h, d)
    let scores = columns.map { j in
      let score = form.scale * product(q, head(inputs.k, b, j, group, d))
      return form.softcap.map { $0 * Double.tanh(score / $0) } ?? score
    }
    let most = scores.max() ?? 0
    let powers = scores.map { Double.exp($0 - most) }
    let sum = powers.reduce(0, +)
    return Seen(columns: columns, scores: scores, probabilities: powers.map { $0 / sum })
  }

  /// What P is formed of.
  private func scored(_ inputs: Formula.AttentionInputs) -> [Source] {
    [Source(letter: "q", name: inputs.q), Source(letter: "k", name: inputs.k)]
  }

  /// Σ_j P_ij v_j.
  func attention(_ inputs: Formula.AttentionInputs, _ index: [Int]) -> Form {
    let (b, t, form) = (index[0], index[1], inputs.form)
    let (h, inHead) = (index[2] / form.headWidth, index[2] % form.headWidth)
    let column = h / (form.heads / form.keyValueHeads) * form.headWidth + inHead
    let seen = seen(inputs, b, t, h)
    return .sum(
      zip(seen.columns, seen.probabilities).map { j, p in
        Term(Factor("P[\(t),\(j)]", p, scored(inputs)), factor("v", inputs.v, [b, j, column]))
      })
  }

  /// dS_ij = P_ij (do_i·v_j − do_i·o_i), times 1 − (S_ij/c)² under a soft cap.
  private func scoreGradients(
    _ inputs: Formula.AttentionInputs, _ output: String, _ gradient: String, _ b: Int, _ t: Int, _ h: Int
  ) -> (columns: Range<Int>, values: [Double]) {
    let (form, d, seen) = (inputs.form, inputs.form.headWidth, seen(inputs, b, t, h))
    let group = h / (form.heads / form.keyValueHeads)
    let go = head(gradient, b, t, h, d)
    let own = product(go, head(output, b, t, h, d))
    let values = seen.columns.enumerated().map { n, j in
      let slope = form.softcap.map { 1 - seen.scores[n] * seen.scores[n] / ($0 * $0) } ?? 1
      return seen.probabilities[n] * (product(go, head(inputs.v, b, j, group, d)) - own) * slope
    }
    return (seen.columns, values)
  }

  func attentionGradient(
    _ role: Formula.AttentionRole, _ inputs: Formula.AttentionInputs, _ output: String, _ gradient: String, _ index: [Int]
  ) -> Form {
    let (b, t, column, form) = (index[0], index[1], index[2], inputs.form)
    let (d, share) = (form.headWidth, form.heads / form.keyValueHeads)
    let inHead = column % d
    let sources =
      scored(inputs) + [("v", inputs.v), ("o", output), ("do", gradient)].map { Source(letter: $0, name: $1) }
    if role == .q {
      let group = column / d / share
      let scores = scoreGradients(inputs, output, gradient, b, t, column / d)
      return .sum(
        zip(scores.columns, scores.values).map { j, s in
          Term(Factor("σ", form.scale), Factor("dS[\(t),\(j)]", s, sources), factor("k", inputs.k, [b, j, group * d + inHead]))
        })
    }
    // Every head of the group, every row that sees this one.
    var terms: [Term] = []
    for h in column / d * share..<(column / d + 1) * share {
      for i in t..<batch.realColumns[b].upperBound {
        let mark = "[\(i),\(t)]" + (share > 1 ? " head \(h)" : "")
        if role == .v {
          let seen = seen(inputs, b, i, h)
          guard seen.columns.contains(t) else { continue }
          terms.append(
            Term(
              Factor("P\(mark)", seen.probabilities[t - seen.columns.lowerBound], scored(inputs)),
              factor("do", gradient, [b, i, h * d + inHead])))
        } else {
          let scores = scoreGradients(inputs, output, gradient, b, i, h)
          guard scores.columns.contains(t) else { continue }
          let value = scores.values[t - scores.columns.lowerBound]
          terms.append(Term(Factor("σ", form.scale), Factor("dS\(mark)", value, sources), factor("q", inputs.q, [b, i, h * d + inHead])))
        }
      }
    }
    return .sum(terms)
  }
}
