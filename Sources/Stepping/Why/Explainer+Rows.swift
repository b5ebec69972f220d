import Traces

/// Elements and rows of the run's tensors, by the places of tokens.
extension Explainer {
  /// A token of the batch.
  struct Place: Equatable {
    let b: Int
    let t: Int
  }

  /// A row of a tensor: a token's, or an expert's r-th with the token that it belongs to.
  struct Row {
    let place: Place
    let expertRow: Int?
  }

  /// Whether a tensor's rows are tokens, (B,T,width).
  func isOfTokens(_ name: String) -> Bool { (run.shape(of: name)?.count ?? 0) == 3 }

  /// An element of a tensor of the run.
  func value(_ name: String, _ index: [Int]) -> Double {
    let shape = run.shape(of: name) ?? []
    let offset = zip(shape, index).reduce(0) { $0 * $1.0 + $1.1 }
    return run.values(of: name, in: offset..<offset + 1)[0]
  }

  /// An element as a factor.
  func factor(_ letter: String, _ name: String, _ index: [Int]) -> Factor {
    Factor("\(letter)[\(index.map(String.init).joined(separator: ","))]", value(name, index), of: letter, name)
  }

  /// A weight's element as a factor.
  func factor(_ letter: String, _ value: Double, _ index: Int..., of name: String) -> Factor {
    Factor("\(letter)[\(index.map(String.init).joined(separator: ","))]", value, of: letter, name)
  }

  /// The index of an element in a row of a tensor, whose rows may be tokens or an expert's.
  func index(_ name: String, _ row: Row, _ i: Int) -> [Int] {
    if isOfTokens(name) { return [row.place.b, row.place.t, i] }
    return [row.expertRow ?? 0, i]
  }

  func factor(_ letter: String, _ name: String, _ row: Row, _ i: Int) -> Factor { factor(letter, name, index(name, row, i)) }

  /// A row of a tensor.
  func vector(_ name: String, _ row: Row) -> ArraySlice<Double> {
    let width = run.shape(of: name)?.last ?? 0
    let n = isOfTokens(name) ? row.place.b * batch.columns + row.place.t : row.expertRow ?? 0
    return run.values(of: name, in: n * width..<(n + 1) * width)[...]
  }

  /// The row that an index stands in, without its last number.
  func row(_ index: [Int], _ rows: Formula.ExpertRows?) -> Row {
    guard let rows else { return Row(place: Place(b: index[0], t: index[1]), expertRow: nil) }
    return Row(place: place(ofRow: index[0], rows), expertRow: index[0])
  }

  /// The token of an expert's row.
  func place(ofRow r: Int, _ rows: Formula.ExpertRows) -> Place {
    let n = Int(run.values(of: rows.tokens, in: r..<r + 1)[0])
    return Place(b: n / batch.columns, t: n % batch.columns)
  }

  /// An expert's row of a token; nil if the token did not choose it.
  func row(of place: Place, _ rows: Formula.ExpertRows) -> Row? {
    run.values(of: rows.tokens).firstIndex(of: Double(place.b * batch.columns + place.t)).map { Row(place: place, expertRow: $0) }
  }

  /// All rows of an expert.
  func allRows(_ rows: Formula.ExpertRows) -> [Row] {
    run.values(of: rows.tokens).indices.map { Row(place: place(ofRow: $0, rows), expertRow: $0) }
  }

  /// All tokens, or those of an adapter.
  func allTokens(adapter: Int? = nil) -> [Row] {
    batch.realColumns.indices.filter { adapter == nil || sequences[$0].adapter == adapter }.flatMap { b in
      batch.realColumns[b].map { Row(place: Place(b: b, t: $0), expertRow: nil) }
    }
  }

  /// The experts of a token with their slots, in the order of the choice.
  func chosen(_ gate: Formula.Gate, _ place: Place) -> [(slot: Int, expert: Int)] {
    guard sequences[place.b].adapter == gate.adapter else { return [] }
    let row = Row(place: place, expertRow: nil)
    return vector(gate.choice, row).enumerated().compactMap { $1 < 0 ? nil : ($0, Int($1)) }
  }

  /// w of an expert of a token, as a factor.
  func weight(_ rows: Formula.ExpertRows, _ place: Place) -> Factor {
    guard let slot = chosen(rows.gate, place).first(where: { $0.expert == rows.expert })?.slot else { return Factor("w", 0) }
    return factor("w", rows.gate.weights, [place.b, place.t, slot])
  }

  /// Whether a branch serves a row.
  func serves(_ branch: Formula.Branch, _ row: Row) -> Bool { branch.adapter == nil || branch.adapter == sequences[row.place.b].adapter }

  /// A x of a branch: r numbers.
  func low(_ branch: Formula.Branch, _ x: ArraySlice<Double>) throws -> [Double] {
    try (0..<rank(branch)).map { j in zip(try run.weightRow(branch.a, j), x).reduce(0) { $0 + $1.0 * $1.1 } }
  }

  /// s Bᵀ dy of a branch: r numbers.
  func back(_ branch: Formula.Branch, _ dy: ArraySlice<Double>) throws -> [Double] {
    try (0..<rank(branch)).map { j in branch.scale * zip(try run.weightColumn(branch.b, j), dy).reduce(0) { $0 + $1.0 * $1.1 } }
  }

  /// (A x)_j as a factor, by the letters of A and x.
  func projected(_ a: String, _ x: String, _ value: Double, _ j: Int, _ branch: Formula.Branch, _ point: String) -> Factor {
    Factor("\(a) \(x)[\(j)]", value, [Source(letter: a, name: branch.a), Source(letter: x, name: point)])
  }

  /// (s Bᵀ dy)_j as a factor, by the letters of B and dy.
  func returned(_ b: String, _ dy: String, _ value: Double, _ j: Int, _ branch: Formula.Branch, _ point: String) -> Factor {
    Factor("s\(b)ᵀ\(dy)[\(j)]", value, [Source(letter: b, name: branch.b), Source(letter: dy, name: point)])
  }

  func rank(_ branch: Formula.Branch) -> Int { run.weightShape(branch.a)?[0] ?? 0 }
}
