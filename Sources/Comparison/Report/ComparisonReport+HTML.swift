import Checkpoints
import Conformance
import Platform

extension ComparisonReport {
  /// The report as one page for a browser: no file beside it, nothing from a network; readable without scripts, which filter and sort
  /// the table and show what is pointed at.
  public var html: String {
    """
    <!doctype html>
    <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
    <title>\(matches ? "match" : "mismatch") – mixlora compare</title>
    <style>\(ReportPage.style)</style></head><body>
    <header class="\(matches ? "good" : "bad")"><p class="verdict">\(matches ? "match" : "mismatch")</p>
    \(headerText)
    <p class="chips">\(chips)</p></header>
    \(finding)
    \(ReportPage.legend)
    <section><h2>Error against budget, in the order of the run</h2>
    <p>Each mark is a tensor. What lies in the gray area is explained by rounding; what lies above it is not. The scale is
    logarithmic. Point at a mark to see which tensor it is, press it to go to its row.</p>
    <div class="wide">\(ReportPictures.run(tensors))</div></section>
    \(localSection)
    <section><h2>Layer by layer</h2><p>A row an operation, a column a layer (– : outside of the layers). The stronger the color, the more of the
    budget an error takes; where several tensors share a cell, such as experts, the worst of them counts.</p>
    <div class="wide flow">\(ReportPictures.layers(tensors))</div></section>
    \(placesSection)
    \(routingSection)
    \(tableSection)
    \(namesSection)
    <div id="tip" hidden></div>
    <script>\(ReportPage.script)</script>
    </body></html>

    """
  }

  private var headerText: String {
    guard let first else { return "<h1>\(text(String(headline.drop { $0 != ":" }.dropFirst(2))))</h1>" }
    return "<h1>\(text(first.operation))</h1>\n<p class=\"lead\">\(text(first.phase)): \(text(first.excess))</p>"
  }

  private var chips: String {
    TensorJudgement.Verdict.allCases.map { verdict in
      "<span class=\"chip \(verdict.rawValue)\">\(tensors.count { $0.verdict == verdict }) \(verdict.rawValue)</span>"
    }.joined(separator: " ")
  }

  private var finding: String {
    var rows: [(String, String)] = []
    if let first {
      let worst = first.metrics.worstValues
      if causes.isEmpty { rows.append(("probably", noCause)) }
      for (i, cause) in causes.enumerated() {
        let left = cause.remaining.map { "<small>with that undone, an error of \(brief($0)) remains</small>" } ?? ""
        rows.append((i == 0 ? "probably" : "or", "<strong>\(text(cause.text))</strong> \(left)"))
      }
      if !first.equation.isEmpty { rows.append(("equation", "<code>\(text(first.equation))</code>")) }
      rows.append(("tensor", "<code>\(text(first.name))</code> \(first.sizes), \(counted(first.metrics.count, "value"))"))
      if !first.metrics.worstIndex.isEmpty {
        rows.append(
          (
            "worst",
            "at \(first.metrics.worstIndex): <b>\(significant(worst.candidate))</b>, expected <b>\(significant(worst.reference))</b>"
          ))
      }
      if !first.metrics.firstIndex.isEmpty { rows.append(("first", "at \(first.metrics.firstIndex)")) }
      if first.metrics.nonfinite > 0 { rows.append(("not finite", "\(counted(first.metrics.nonfinite, "value")) on one side alone")) }
      if let logits = first.metrics.logits {
        let share = fixed(100 * logits.agreement, 1)
        rows.append(("logits", "same largest in \(share) % of rows, KL divergence \(brief(logits.divergence)) nats"))
      }
    }
    rows.append(("reference", text(reference)))
    rows.append(("candidate", "\(text(candidate)), judged in \(precision.rawValue)"))
    for note in notes { rows.append(("note", text(note))) }
    return "<section><dl>" + rows.map { "<dt>\($0)<dd>\($1)" }.joined(separator: "\n") + "</dl></section>"
  }

  private var localSection: String {
    guard tensors.contains(where: { $0.localError != nil }) else { return "" }
    return """
      <section><h2>Wrong by itself, or carried along?</h2>
      <p>To the right: the operation’s own error, found by running the reference’s operation on the candidate’s own inputs. Upwards: the
      whole error of its result. Both as multiples of their budgets. A guilty operation lies at the right; what only carries an error
      along lies at the upper left.</p>
      <div class="wide">\(ReportPictures.local(tensors))</div></section>
      """
  }

  /// How many tensors have a map of their differences.
  private static var maps: Int { 6 }

  private var placesSection: String {
    let mapped = tensors.filter { !$0.metrics.map.isEmpty && $0.verdict != .ok }
    let shown = (mapped.filter { $0.verdict == .mismatch } + mapped.filter { $0.verdict != .mismatch }).prefix(Self.maps)
    if shown.isEmpty { return "" }
    let figures = shown.map { tensor in
      let m = tensor.metrics
      return """
        <figure>\(ReportPictures.map(m.map, verdict: tensor.verdict))
        <figcaption><code>\(text(tensor.name))</code> \(tensor.sizes)<br>largest difference \(brief(m.maxAbsolute)) at \(m.worstIndex)</figcaption></figure>
        """
    }
    return """
      <section><h2>Where the differences are</h2>
      <p>A tensor from above: its last axis runs to the right, all others downwards. The stronger the color, the larger the difference there.
      Columns point at a feature or head, rows at a token.</p>
      <div class="flow">\(figures.joined(separator: "\n"))</div></section>
      """
  }

  private var routingSection: String {
    guard let routing, !routing.layers.isEmpty else { return "" }
    let shown = (routing.layers.filter { $0.flips > 0 } + routing.layers.filter { $0.flips == 0 }).prefix(48)
    let figures = shown.map { layer in
      let widest = layer.widest.map { w in
        "<br>widest: row \(w.row), column \(w.column), expert \(w.candidate) for \(w.reference), margin \(brief(w.margin)), "
          + "rounding explains \(brief(w.budget))"
      }
      return """
        <figure>\(ReportPictures.matrix(layer.matrix, agrees: layer.flips == 0))
        <figcaption><code>\(text(layer.path))</code><br>\(layer.flips) of \(layer.decisions) differ, \(layer.explained) within rounding\(widest ?? "")</figcaption></figure>
        """
    }
    let rest = routing.layers.count > shown.count ? "<p>… and \(routing.layers.count - shown.count) routers more.</p>" : ""
    return """
      <section><h2>Routing</h2>
      <p>\(routing.flips) of \(counted(routing.decisions, "decision")) differ, \(routing.explained) of them within rounding. A row is the expert that
      the reference chose, a column the one that the candidate chose; the diagonal agrees. Two experts that are almost equally likely may
      change places by rounding: that is no bug.</p>
      <div class="flow">\(figures.joined(separator: "\n"))</div>\(rest)</section>
      """
  }

  private var tableSection: String {
    let rows = tensors.map { t in
      "<tr class=\(t.verdict.rawValue)><td>\(text(t.name))<td>\(t.verdict.rawValue)<td>\(text(t.phase))<td>\(t.sizes)<td>\(brief(t.error))<td>\(brief(t.budget))"
        + "<td>\(multiple(t.ratio))<td>\(t.localError.map(brief) ?? "")<td>\(t.localRatio.map(multiple) ?? "")"
        + "<td>\(brief(t.metrics.maxAbsolute))"
    }
    let options = TensorJudgement.Verdict.allCases.map { "<option>\($0.rawValue)" }.joined()
    return """
      <section><h2>All tensors</h2>
      <p class="filter"><label>name contains <input id="name" type="search"></label>
      <label>verdict <select id="verdict"><option value="">all<option value="not">not ok\(options)</select></label>
      <span id="count">\(tensors.count) tensors</span></p>
      <div class="wide"><table id="tensors"><thead><tr><th>tensor<th>verdict<th>phase<th>shape<th>error<th>budget<th>× budget<th>by itself<th>× budget<th>largest
      <tbody>
      \(rows.joined(separator: "\n"))
      </table></div></section>
      """
  }

  private var namesSection: String {
    if missing.isEmpty, unknown.isEmpty { return "" }
    func list(_ title: String, _ names: [String]) -> String {
      if names.isEmpty { return "" }
      let rest = names.count > 200 ? "\n… and \(names.count - 200) more" : ""
      return
        "<details><summary>\(names.count) only in the \(title)</summary><pre>\(names.prefix(200).map(text).joined(separator: "\n"))\(rest)</pre></details>"
    }
    return """
      <section><h2>Not compared</h2><p>Tensors that only one side has.</p>\(list("reference", missing))\(list("candidate", unknown))</section>
      """
  }

  /// Text from a file, safe in a page.
  private func text(_ text: String) -> String { xml(presentable(text)) }
}

extension TensorJudgement {
  /// `2 × 12 × 64`.
  fileprivate var sizes: String { shape.map(String.init).joined(separator: " × ") }
}
