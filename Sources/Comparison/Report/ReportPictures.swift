import Checkpoints
import Conformance
import Platform

/// The pictures of a report's page, as SVG. Colors are classes of the page's style, so that they follow light and dark.
enum ReportPictures {
  /// A logarithmic axis, cut to what it can show.
  private struct Axis {
    let low: Int, high: Int  // powers of ten
    let from: Double, to: Double  // where they lie

    init(_ values: [Double], from: Double, to: Double, least: Int = -18, most: Int = 6) {
      let powers = values.filter { $0.isFinite && $0 > 0 }.map { Double.log10($0) }
      let low = max(least, min(most - 1, Int((powers.min() ?? -1).rounded(.down))))
      self.low = low
      high = max(low + 1, min(most, Int((powers.max() ?? 0).rounded(.up))))
      (self.from, self.to) = (from, to)
    }

    /// Where a value lies: what is not finite at the far end, 0 at the near one.
    func place(_ value: Double) -> Double {
      if value.isNaN { return to }
      let power = value > 0 ? min(Double(high), max(Double(low), Double.log10(value))) : Double(low)
      return from + (power - Double(low)) / Double(high - low) * (to - from)
    }

    /// Powers of ten to write beside it, at most eight.
    var ticks: [Int] { Array(stride(from: low, through: high, by: max(1, (high - low + 7) / 8))) }
  }

  /// One decimal is enough of a place.
  private static func short(_ x: Double) -> String { fixed(x, 1).replacing(".0", with: "") }

  /// A mark of a tensor; its place among its siblings is the tensor's number. What is guilty is larger and of another form.
  private static func mark(_ verdict: TensorJudgement.Verdict, _ x: Double, _ y: Double) -> String {
    if verdict == .mismatch {
      return "<path class=mismatch d=\"M\(short(x)) \(short(y - 6))l6 6-6 6-6-6z\"/>"
    }
    return "<circle class=\(verdict.rawValue) cx=\(short(x)) cy=\(short(y)) r=\(verdict == .ok ? "2.5" : "3.5") />"
  }

  private static func power(_ exponent: Int) -> String { exponent == 0 ? "1" : "10<tspan dy=-5 font-size=9>\(exponent)</tspan>" }

  // MARK: The run

  /// Errors in the order of the run over the area that rounding explains.
  static func run(_ tensors: [TensorJudgement]) -> String {
    if tensors.isEmpty { return "" }
    let axis = Axis(tensors.flatMap { [$0.error, $0.budget] }, from: 300, to: 24)
    let step = 920 / Double(tensors.count)
    func x(_ i: Int) -> Double { 56 + (Double(i) + 0.5) * step }
    var area = "M56 300"
    for (i, tensor) in tensors.enumerated() {
      let (left, y) = (short(x(i) - step / 2), short(axis.place(tensor.budget)))
      area += "L\(left) \(y)H\(short(x(i) + step / 2))"
    }
    var svg = "<path class=budget d=\"\(area)V300z\"/>"
    for tick in axis.ticks {
      let y = short(axis.place(Double.pow(10, tick)))
      svg += "<path class=grid d=\"M56 \(y)H976\"/><text x=48 y=\(y) dy=4 text-anchor=end>\(power(tick))</text>"
    }
    svg += divisions(tensors, x)
    svg += "<g class=marks>" + tensors.enumerated().map { mark($1.verdict, x($0), axis.place($1.error)) }.joined() + "</g>"
    return picture(1000, 346, svg, "error of every tensor beside its budget")
  }

  /// Where a phase or a layer begins.
  private static func divisions(_ tensors: [TensorJudgement], _ x: (Int) -> Double) -> String {
    var (svg, phase, layer, lastLabel) = ("", "", "", -100.0)
    for (i, tensor) in tensors.enumerated() {
      let place = LayeredName(tensor.name).layer.map { "\($0)" } ?? ""
      let left = x(i) - (x(1) - x(0)) / 2
      if tensor.phase != phase {
        svg += "<path class=phase d=\"M\(short(left)) 12V324\"/><text x=\(short(left + 4)) y=342>\(xml(presentable(tensor.phase)))</text>"
        phase = tensor.phase
      }
      if place != layer {
        if !place.isEmpty, left - lastLabel >= 22 {
          svg += "<path class=grid d=\"M\(short(left)) 24V306\"/><text x=\(short(left + 2)) y=318 class=layer>\(place)</text>"
          lastLabel = left
        }
        layer = place
      }
    }
    return svg
  }

  // MARK: Local beside propagated

  /// The whole error over the operation's own, both as multiples of their budgets.
  static func local(_ tensors: [TensorJudgement]) -> String {
    let known = tensors.filter { $0.localRatio != nil }
    let x = Axis(known.map { $0.localRatio ?? 0 } + [0.01, 100], from: 64, to: 676, least: -4)
    let y = Axis(known.map(\.ratio) + [0.01, 100], from: 400, to: 24, least: -4)
    let (one, level) = (short(x.place(1)), short(y.place(1)))
    var svg = "<path class=budget d=\"M64 \(level)H\(one)V400H64z\"/>"
    for tick in x.ticks {
      let place = short(x.place(Double.pow(10, tick)))
      svg += "<path class=grid d=\"M\(place) 24V400\"/><text x=\(place) y=418 text-anchor=middle>\(power(tick))</text>"
    }
    for tick in y.ticks {
      let place = short(y.place(Double.pow(10, tick)))
      svg += "<path class=grid d=\"M64 \(place)H676\"/><text x=56 y=\(place) dy=4 text-anchor=end>\(power(tick))</text>"
    }
    svg += "<path class=phase d=\"M\(one) 24V400M64 \(level)H676\"/>"
    svg += "<text class=area x=70 y=38>carried along</text><text class=area x=70 y=394>right</text>"
    svg += "<text class=area x=670 y=394 text-anchor=end>wrong by itself</text>"
    svg += "<text x=370 y=438 text-anchor=middle>own error / budget</text>"
    svg += "<text transform=\"translate(14 212)rotate(-90)\" text-anchor=middle>whole error / budget</text>"
    // A tensor without a figure keeps its place in the order, but not on the picture.
    let marks = tensors.map { tensor in
      tensor.localRatio.map { mark(tensor.verdict, x.place($0), y.place(tensor.ratio)) } ?? "<g></g>"
    }
    return picture(700, 446, svg + "<g class=marks>\(marks.joined())</g>", "own error of every operation beside the whole error")
  }

  // MARK: Layers

  /// A strip an operation, a cell a layer, for each phase.
  static func layers(_ tensors: [TensorJudgement]) -> String {
    var phases: [(name: String, tensors: [TensorJudgement])] = []
    for tensor in tensors {
      if phases.last?.name == tensor.phase {
        phases[phases.count - 1].tensors.append(tensor)
      } else {
        phases.append((tensor.phase, [tensor]))
      }
    }
    return phases.map { phase in
      "<figure><figcaption>\(xml(presentable(phase.name)))</figcaption>\(strips(phase.tensors))</figure>"
    }.joined()
  }

  private static func strips(_ tensors: [TensorJudgement]) -> String {
    var (rows, places): ([(name: String, cells: [Int: TensorJudgement])], [String: Int]) = ([], [:])
    for tensor in tensors {
      let name = LayeredName(tensor.name)
      let column = name.layer ?? -1
      let row = places[name.rest] ?? rows.count
      if row == rows.count {
        places[name.rest] = row
        rows.append((name.rest, [:]))
      }
      if let other = rows[row].cells[column], !isWorse(tensor, other) { continue }
      rows[row].cells[column] = tensor
    }
    let columns = Set(rows.flatMap(\.cells.keys)).sorted()
    let width = columns.count > 40 ? 9 : 16
    let left = 8 + Int(6.3 * Double(min(46, rows.map(\.name.count).max() ?? 0)))
    var svg = ""
    for (c, column) in columns.enumerated() where columns.count <= 40 || c % 4 == 0 {
      svg += "<text class=layer x=\(left + c * width + width / 2) y=12 text-anchor=middle>\(column < 0 ? "–" : "\(column)")</text>"
    }
    for (r, row) in rows.enumerated() {
      let y = 18 + r * 15
      svg += "<text class=name x=\(left - 6) y=\(y + 11) text-anchor=end>\(xml(shortened(presentable(row.name), 46)))</text>"
      for (c, column) in columns.enumerated() {
        guard let tensor = row.cells[column] else { continue }
        let opacity = fixed(strength(tensor), 2)
        svg += "<rect class=\(tensor.verdict.rawValue) x=\(left + c * width) y=\(y) width=\(width - 1) height=14 fill-opacity=\(opacity) />"
      }
    }
    return picture(left + columns.count * width + 8, 24 + rows.count * 15, svg, "ratio of error and budget, layer by layer", fixed: true)
  }

  private static func isWorse(_ a: TensorJudgement, _ b: TensorJudgement) -> Bool {
    func rank(_ tensor: TensorJudgement) -> Int {
      switch tensor.verdict {
      case .mismatch: 3
      case .propagated: 2
      case .routing: 1
      case .ok: 0
      }
    }
    return rank(a) != rank(b) ? rank(a) > rank(b) : !(a.ratio <= b.ratio)
  }

  /// How dark a cell is: within the budget by the share that is used, outside by powers of ten.
  private static func strength(_ tensor: TensorJudgement) -> Double {
    let ratio = tensor.verdict == .mismatch ? max(tensor.ratio, tensor.localRatio ?? 0) : tensor.ratio
    if ratio <= 1 { return 0.12 + 0.5 * ratio }
    guard ratio.isFinite else { return 1 }
    return min(1, 0.45 + 0.15 * Double.log10(ratio))
  }

  // MARK: Places and experts

  /// Where a tensor's differences are.
  static func map(_ cells: [[Double]], verdict: TensorJudgement.Verdict) -> String {
    let columns = cells.map(\.count).max() ?? 0
    let largest = cells.joined().filter(\.isFinite).max() ?? 0
    let size = 8
    var svg = ""
    for (r, row) in cells.enumerated() {
      for (c, value) in row.enumerated() {
        // The root shows what is small beside the largest, too.
        let share = value.isFinite ? (largest > 0 ? (value / largest).squareRoot() : 0) : 1
        if share > 0.02 {
          svg +=
            "<rect class=\(verdict.rawValue) x=\(c * size) y=\(r * size) width=\(size) height=\(size) fill-opacity=\(fixed(share, 2)) />"
        }
      }
    }
    svg += "<path class=frame d=\"M0 0H\(columns * size)V\(cells.count * size)H0z\"/>"
    return picture(columns * size, cells.count * size, svg, "where the differences are", fixed: true)
  }

  /// Who was chosen instead of whom; small and without numbers where everything agrees, or where experts are many.
  static func matrix(_ counts: [[Int]], agrees: Bool) -> String {
    let size = counts.count > 16 || agrees ? 8 : 24
    let largest = Double(max(1, counts.joined().max() ?? 1))
    var svg = ""
    for (r, row) in counts.enumerated() {
      for (c, count) in row.enumerated() {
        let (x, y) = (18 + c * size, 18 + r * size)
        let opacity = count == 0 ? 0.04 : r == c ? 0.15 + 0.45 * Double(count) / largest : min(1, 0.5 + 0.5 * Double(count) / largest)
        let name = r == c || count == 0 ? "ok" : "routing"
        svg += "<rect class=\(name) x=\(x) y=\(y) width=\(size - 1) height=\(size - 1) fill-opacity=\(fixed(opacity, 2)) />"
        if size == 24, count > 0 { svg += "<text class=layer x=\(x + 12) y=\(y + 15) text-anchor=middle>\(count)</text>" }
      }
      if size == 24 {
        svg += "<text class=layer x=12 y=\(33 + r * size) text-anchor=end>\(r)</text>"
        svg += "<text class=layer x=\(30 + r * size) y=12 text-anchor=middle>\(r)</text>"
      }
    }
    return picture(20 + counts.count * size, 20 + counts.count * size, svg, "experts of the reference and of the candidate", fixed: true)
  }

  private static func picture(_ width: Int, _ height: Int, _ content: String, _ title: String, fixed: Bool = false) -> String {
    "<svg role=img aria-label=\"\(title)\" viewBox=\"0 0 \(width) \(height)\" width=\(width) height=\(height)\(fixed ? "" : " class=plot style=\"max-width:\(width)px\"")>\(content)</svg>"
  }
}

/// A tensor's name apart from its layer and its expert: `model.layers.3.mlp.experts.2.hidden` is layer 3 of `mlp.experts.*.hidden`.
struct LayeredName {
  /// The layer's number; nil outside of layers.
  let layer: Int?
  /// The rest.
  let rest: String

  init(_ name: String) {
    var parts = name.split(separator: ".").map(String.init)
    if let i = parts.indices.first(where: { parts[$0] == "experts" }), i + 1 < parts.count, Int(parts[i + 1]) != nil { parts[i + 1] = "*" }
    guard let i = parts.indices.first(where: { parts[$0] == "layers" }), i + 1 < parts.count, let number = Int(parts[i + 1]), number >= 0
    else {
      (layer, rest) = (nil, parts.joined(separator: "."))
      return
    }
    layer = number
    let tail = parts[(i + 2)...].joined(separator: ".")
    let head = ["grad", "after", "adapter"].contains(parts[0]) ? parts[0] + "." : ""
    rest = head + (tail.isEmpty ? "output" : tail)
  }
}
