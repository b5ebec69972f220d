import Checkpoints
import Conformance
import Platform

extension ComparisonReport {
  /// Whether a report on standard output is colored: it is a terminal, and the environment has no `NO_COLOR`.
  public static var colorsOutput: Bool {
    POSIX.isTerminal(.standardOutput) && (POSIX.environment("NO_COLOR") ?? "").isEmpty
  }

  /// The verdict in one line: what is wrong first, and by how much; of a match how close it came.
  public var headline: String {
    if let first {
      return "mismatch: \(presentable(first.operation)) (\(first.phase)), \(first.excess)"
    }
    guard let worst = tensors.filter({ $0.verdict == .ok }).max(by: { $0.ratio < $1.ratio }) ?? tensors.first else {
      return "mismatch: nothing was compared"
    }
    if let grown = tensors.first(where: { $0.verdict == .propagated }) {
      return "mismatch: no operation, but errors add up: \(presentable(grown.name)), \(grown.excess)"
    }
    let judged = counted(tensors.count, "tensor")
    let differing = tensors.count { $0.verdict != .ok }
    if differing == 0 { return "match: \(judged), \(worst.closeness)" }
    return
      "match: \(judged), of which \(differing) \(differing == 1 ? "differs" : "differ") because a decision within rounding fell the other way"
  }

  /// The report for a person: the verdict first, what is probably wrong, where, a table of what is not right, a line a kind of tensor.
  ///
  /// - Parameter color: whether words are marked by color (``colorsOutput``).
  public func text(color: Bool = false) -> String {
    let paint = Paint(isOn: color)
    var lines = [paint.verdict(headline, matches)]
    if let first { lines += details(of: first) }
    lines += notOK(paint)
    lines += ["", kindTable]
    lines += routingLines
    lines += list("only in the reference", missing) + list("only in the candidate", unknown)
    lines.append("")
    lines += wrapped(reference, first: "reference  ", rest: "           ")
    lines += wrapped("\(candidate), judged in \(precision.rawValue)", first: "candidate  ", rest: "           ")
    lines += notes.flatMap { wrapped($0, first: "note       ", rest: "           ") }
    return lines.joined(separator: "\n") + "\n"
  }

  private func details(of first: TensorJudgement) -> [String] {
    let metrics = first.metrics
    var lines: [String] = []
    for (i, cause) in causes.enumerated() {
      lines += wrapped(cause.text, first: i == 0 ? "  probably  " : "  or        ", rest: "            ")
      if let remaining = cause.remaining {
        lines.append("            (with that undone an error of \(significant(remaining)) remains)")
      }
    }
    if causes.isEmpty { lines += wrapped(noCause, first: "  probably  ", rest: "            ") }
    if !first.equation.isEmpty { lines += wrapped(first.equation, first: "  equation  ", rest: "            ") }
    lines += wrapped(
      "\(first.name) \(shape(first.shape)), \(counted(metrics.count, "value"))", first: "  tensor    ", rest: "            ")
    let explains = first.localBudget == nil ? "its budget is" : "rounding explains"
    lines.append("  error     \(significant(first.error)), \(explains) \(significant(first.budget))")
    if let local = first.localError {
      lines.append(
        "  by itself \(significant(local)), rounding explains \(first.localBudget.map { significant($0) } ?? "–")  (on the candidate's inputs)"
      )
    }
    if metrics.nonfinite > 0 { lines.append("  not finite \(counted(metrics.nonfinite, "value")) on one side alone") }
    if !metrics.worstIndex.isEmpty {
      lines.append(
        "  worst     at \(metrics.worstIndex): \(significant(metrics.worstValues.candidate)), expected \(significant(metrics.worstValues.reference))"
      )
    }
    if !metrics.firstIndex.isEmpty, metrics.firstIndex != metrics.worstIndex { lines.append("  first     at \(metrics.firstIndex)") }
    if let logits = metrics.logits {
      lines.append(
        "  logits    same largest in \(fixed(100 * logits.agreement, 1)) % of rows, KL divergence \(significant(logits.divergence)) nats")
    }
    return lines
  }

  /// Why there is no cause.
  var noCause: String {
    first?.localBudget == nil
      ? "not sought, and not known whether it is more than rounding of this run: give --model and --batch"
      : "no cause that was tried makes the error vanish"
  }

  private func notOK(_ paint: Paint) -> [String] {
    let wrong = tensors.filter { $0.verdict != .ok }
    if wrong.isEmpty { return [] }
    // What is wrong itself comes before what merely carries an error along; each in the order of the run.
    let rows = wrong.filter { $0.verdict == .mismatch }.prefix(16) + wrong.filter { $0.verdict != .mismatch }.prefix(8)
    var table = TextTable(["verdict", "error", "× budget", "own ×", "tensor"], right: [1, 2, 3])
    for tensor in rows {
      let name = tensor.name.replacing("base_model.model.", with: "").replacing("model.layers.", with: "…")
      table.rows.append([
        tensor.verdict.rawValue, brief(tensor.error), multiple(tensor.ratio), tensor.localRatio.map(multiple) ?? "–",
        shortened(presentable(name), 42),
      ])
    }
    let lines = table.text.split(separator: "\n").map(String.init)
    var result = [""] + lines.prefix(1) + zip(lines.dropFirst(), rows).map { paint.row($0, $1.verdict) }
    if wrong.count > rows.count { result.append("… and \(wrong.count - rows.count) more that are not ok; --json and --html have all") }
    if wrong.allSatisfy({ $0.localBudget == nil }) { return result }
    return result + ["(× budget: of what rounding explains; own ×: the operation by itself)"]
  }

  /// A line a kind of operation and phase: how many tensors, of what verdict, how close to the budget.
  private var kindTable: String {
    var table = TextTable(
      ["kind", "ok", "mismatch", "routing", "propagated", "median ×", "largest ×"], right: [1, 2, 3, 4, 5, 6])
    var groups: [(name: String, tensors: [TensorJudgement])] = []
    var places: [String: Int] = [:]
    for tensor in tensors {
      let saysPhase = tensor.phase == "forward" || tensor.kind.hasSuffix("gradient")
      let name = saysPhase ? tensor.kind : "\(tensor.kind), \(tensor.phase)"
      if let place = places[name] {
        groups[place].tensors.append(tensor)
      } else {
        places[name] = groups.count
        groups.append((name, [tensor]))
      }
    }
    for (name, members) in groups {
      let ratios = members.map(\.ratio).sorted { ($0.isNaN ? .infinity : $0) < ($1.isNaN ? .infinity : $1) }
      func count(_ verdict: TensorJudgement.Verdict) -> String {
        let count = members.count { $0.verdict == verdict }
        return count == 0 && verdict != .ok ? "·" : "\(count)"
      }
      table.rows.append(
        [shortened(presentable(name), 22), count(.ok), count(.mismatch), count(.routing), count(.propagated)]
          + [multiple(ratios[ratios.count / 2]), multiple(ratios[ratios.count - 1])])
    }
    return table.text
  }

  private var routingLines: [String] {
    guard let routing else { return [] }
    var lines = [
      "", "routing    \(routing.flips) of \(counted(routing.decisions, "decision")) differ, \(routing.explained) of them within rounding",
    ]
    for layer in routing.layers where layer.flips > 0 {
      lines.append("  \(shortened(presentable(layer.path), 40)): \(layer.flips) of \(layer.decisions), \(layer.explained) within rounding")
      if let widest = layer.widest {
        lines.append("    widest at row \(widest.row), column \(widest.column): expert \(widest.candidate) for \(widest.reference),")
        lines.append("    margin \(significant(widest.margin)), rounding explains \(significant(widest.budget))")
      }
    }
    return lines
  }

  private func list(_ title: String, _ names: [String]) -> [String] {
    if names.isEmpty { return [] }
    let rest = names.count > 8 ? ["  … and \(names.count - 8) more"] : []
    return ["", "\(title): \(names.count)"] + names.prefix(8).map { "  \(shortened(presentable($0), 76))" } + rest
  }

  private func shape(_ sizes: [Int]) -> String { "(" + sizes.map(String.init).joined(separator: ", ") + ")" }
}

extension TensorJudgement {
  /// localError / localBudget; nil where only two files were compared.
  public var localRatio: Double? {
    guard let localError, let localBudget else { return nil }
    return localError == 0 ? 0 : localError / localBudget
  }

  /// By how much it is wrong, in words: by itself where that is known and outside its budget.
  var excess: String {
    if metrics.nonfinite > 0 { return "\(counted(metrics.nonfinite, "value")) not finite on one side alone" }
    if name.hasSuffix(".choice") || name.hasSuffix(".tokens") { return "decisions that rounding does not explain" }
    if let rule { return "error \(brief(error)), not within \(rule.text)" }
    if let localError, let localRatio, !(localRatio <= 1) {
      return "error \(brief(localError)) is \(multiple(localRatio)) × what rounding explains"
    }
    return "error \(brief(error)) is \(multiple(ratio)) × \(standard)"
  }

  /// What a ratio is a multiple of: without a model nobody has seen how rounding behaves in this run.
  var standard: String { localBudget == nil ? "its budget" : "what rounding explains" }

  /// How a match came out, in words.
  fileprivate var closeness: String {
    rule.map { "all within \($0.text)" } ?? "at most \(multiple(ratio)) × \(standard) (\(presentable(name)))"
  }
}

/// Two digits that count: `0.031`, `3.1e-7`, `5200`.
func brief(_ value: Double) -> String {
  guard value.isFinite else { return "\(value)" }
  if value == 0 { return "0" }
  if abs(value) >= 1e5 || abs(value) < 1e-3 {
    return POSIX.decimal(value, form: "e", precision: 1).replacing("e-0", with: "e-").replacing("e+0", with: "e").replacing("e+", with: "e")
  }
  if abs(value) >= 100 {
    let unit = abs(value) >= 1e4 ? 1000.0 : abs(value) >= 1000 ? 100 : 10
    return "\(Int((value / unit).rounded() * unit))"
  }
  let text = POSIX.decimal(value, form: "g", precision: 2)
  return text
}

/// How many times a budget.
func multiple(_ ratio: Double) -> String { ratio.isNaN ? "nan" : brief(ratio) }

/// A name of at most so many characters; what is left out is in its middle, since both ends say where it belongs.
func shortened(_ name: String, _ limit: Int) -> String {
  if name.count <= limit { return name }
  let head = (limit - 1) / 3
  return name.prefix(head) + "…" + name.suffix(limit - 1 - head)
}

/// Text from a file as lines of at most 80 columns, cut at blanks, and where a word is longer than a line, within it.
func wrapped(_ text: String, first: String, rest: String) -> [String] {
  var lines = [first]
  var isEmpty = true
  for word in presentable(text, limit: 2000).split(separator: " ") {
    if !isEmpty, lines[lines.count - 1].count + 1 + word.count > 80 {
      lines.append(rest)
      isEmpty = true
    }
    lines[lines.count - 1] += (isEmpty ? "" : " ") + word
    isEmpty = false
    while lines[lines.count - 1].count > 80 {
      let long = lines.removeLast()
      lines += [String(long.prefix(80)), rest + long.dropFirst(80)]
    }
  }
  return lines
}

/// Colors of a terminal, or none.
private struct Paint {
  let isOn: Bool

  func verdict(_ line: String, _ matches: Bool) -> String { painted(line, matches ? "1;32" : "1;31") }

  func row(_ line: String, _ verdict: TensorJudgement.Verdict) -> String {
    switch verdict {
    case .mismatch: painted(line, "31")
    case .routing: painted(line, "35")
    case .propagated: painted(line, "2")
    case .ok: line
    }
  }

  private func painted(_ line: String, _ code: String) -> String { isOn ? "\u{1B}[\(code)m\(line)\u{1B}[0m" : line }
}
