import Traces

/// How numbers and tensors are written.
struct StepText {
  /// Digits that count; nil for as many as tell a number from every other.
  let digits: Int?

  /// Tensors of a unit that are listed.
  let listed = 14
  /// Rows and columns of a tensor that are shown.
  private let corner = 6

  /// Columns of a number.
  private var numberWidth: Int { (digits ?? 18) + 6 }

  /// A number.
  func number(_ value: Double) -> String {
    guard let digits, value.isFinite, value != 0 else { return all(value) }
    return rounded(value, digits)
  }

  /// All digits; a NaN has no sign that would mean anything.
  private func all(_ value: Double) -> String { value.isNaN ? "nan" : "\(value)" }

  /// A number to so many digits that count, as Swift writes it.
  private func rounded(_ value: Double, _ digits: Int) -> String {
    var (exponent, size) = (0, abs(value))
    while size >= 10 { (size, exponent) = (size / 10, exponent + 1) }
    while size < 1 { (size, exponent) = (size * 10, exponent - 1) }
    var scale = 1.0
    for _ in 0..<abs(digits - 1 - exponent) { scale *= 10 }
    let up = digits - 1 - exponent >= 0
    guard scale.isFinite else { return "\(value)" }
    let rounded = up ? (value * scale).rounded() / scale : (value / scale).rounded() * scale
    return "\(rounded)"
  }

  func shape(_ sizes: [Int]) -> String { "(\(sizes.map(String.init).joined(separator: ",")))" }

  func aligned(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }

  /// A line of at most 80 columns, and below it, further in, what did not fit; cut at blanks. Scripts, which get all digits, read whole
  /// lines.
  func folded(_ line: String) -> [String] {
    guard digits != nil, line.count > 80 else { return [line] }
    let indent = String(repeating: " ", count: line.prefix { $0 == " " }.count)
    var lines = [indent]
    for word in line.dropFirst(indent.count).split(separator: " ", omittingEmptySubsequences: false) {
      let last = lines[lines.count - 1]
      let isFresh = last.allSatisfy { $0 == " " }
      if !isFresh, last.count + 1 + word.count > 80 {
        lines.append(indent + "  " + word)
      } else {
        lines[lines.count - 1] += (isFresh ? "" : " ") + word
      }
    }
    return lines
  }

  /// The index of the n-th element.
  func index(_ n: Int, _ shape: [Int]) -> [Int] {
    var (rest, index) = (n, [Int]())
    for size in shape.reversed() {
      index.insert(rest % max(size, 1), at: 0)
      rest /= max(size, 1)
    }
    return index
  }

  /// A point: its equation, what its letters are, and how large its numbers are.
  func lines(of provenance: Provenance, _ run: some RunValues) -> [String] {
    let values = run.values(of: provenance.name)
    var lines = [
      "\(provenance.name)  \(shape(run.shape(of: provenance.name) ?? []))  \(provenance.operation.rawValue)", "  " + provenance.equation,
    ]
    for input in provenance.inputs.prefix(listed) { lines.append("    \(aligned(input.letter, 8)) \(input.name)") }
    if provenance.inputs.count > listed { lines.append("    … and \(provenance.inputs.count - listed) more") }
    if let least = values.min(), let most = values.max() {
      let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      lines.append("  \(rounded4(least)) to \(rounded4(most)), norm \(rounded4(norm))")
    } else {
      lines.append("  no rows")
    }
    return lines.flatMap(folded)
  }

  /// Four digits that count; a number of a token, an expert or a place whole.
  private func rounded4(_ value: Double) -> String {
    value.isFinite && (value != value.rounded() || abs(value) > 1e7) ? rounded(value, 4) : all(value)
  }

  /// The first rows and columns.
  func table(_ name: String, _ shape: [Int], _ kind: String?, row: (_ number: Int) throws -> [Double]) rethrows -> [String] {
    var lines = ["\(name)  \(self.shape(shape))\(kind.map { "  " + $0 } ?? "")"]
    let (rows, width) = (shape.dropLast().reduce(1, *), shape.last ?? 0)
    guard rows > 0, width > 0 else { return lines + ["  nothing"] }
    for n in 0..<min(rows, corner) {
      let shown = try row(n).prefix(corner).map { aligned(rounded4($0), 10) }.joined(separator: " ")
      let place = shape.count == 1 ? "" : "[\(index(n, shape.dropLast()).map(String.init).joined(separator: ","))] "
      lines.append("  \(aligned(place, 8))\(shown)\(width > corner ? " …" : "")")
    }
    if rows > corner { lines.append("  … \(rows - corner) rows more") }
    return lines
  }

  // MARK: Why

  /// Terms that are shown at most.
  private let terms = 8

  func lines(of explanation: Explanation, isPatched: Bool) -> [String] {
    var lines = ["\(explanation.element) = \(number(explanation.value))"]
    if isPatched {
      if case .choice = explanation.form {
        lines.append("  patched; the run itself would choose by")
      } else {
        lines.append("  patched; the run itself would form \(number(explanation.recomputed)) by")
      }
    }
    lines.append("  " + explanation.equation)
    switch explanation.form {
    case .nothing(let reason): lines.append("  0: \(reason)")
    case .choice(_, let candidates):
      for (n, candidate) in candidates.enumerated() { lines.append("  \(n + 1). \(candidate.text) \(number(candidate.value))") }
    case .product(let factors):
      lines.append("  the product of")
      for factor in factors { lines.append("    \(aligned(number(factor.value), numberWidth)) \(factor.text)") }
    case .sum(let all):
      let sorted = explanation.largestFirst
      if all.count > 1 { lines.append("  the sum of \(all.count) terms\(all.count > terms ? ", the largest first" : "")") }
      for term in sorted.prefix(terms) {
        let product = term.factors.map { "\($0.text) \(number($0.value))" }.joined(separator: " · ")
        lines.append("    \(aligned(number(term.value), numberWidth)) \(product)")
      }
      if sorted.count > terms {
        let rest = sorted.dropFirst(terms).reduce(0) { $0 + $1.value }
        lines.append("    \(aligned(number(rest), numberWidth)) the other \(sorted.count - terms)")
      }
    }
    let shown: [Explanation.Factor] =
      switch explanation.form {
      case .nothing: []
      case .choice(_, let candidates): candidates
      case .product(let factors): factors
      case .sum: explanation.largestFirst.prefix(terms).flatMap(\.factors)
      }
    var seen: Set<String> = []
    for source in shown.flatMap(\.sources) where seen.insert("\(source.letter) \(source.name)").inserted {
      lines.append("  \(aligned(source.letter, 6)) \(source.name)")
    }
    return lines.flatMap(folded)
  }
}
