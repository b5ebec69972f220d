/// Small pictures of a run, as SVG text.
public enum Charts {
  /// The loss by step: each step's as a pale line, their running mean, and the validation loss where there is one.
  public static func loss(_ metrics: [Metrics]) -> String {
    let points = metrics.filter(\.loss.isFinite)
    guard let last = points.last else { return SVG(width: 640, height: 360).text("no finite loss", 20, 40).document }
    // A running mean over about a twentieth of the run: the trend that single batches hide.
    let window = max(1, points.count / 20)
    let means = points.indices.map { i in
      let part = points[max(0, i - window + 1)...i]
      return part.reduce(0) { $0 + $1.loss } / Double(part.count)
    }
    let validation = points.filter { $0.validationLoss?.isFinite ?? false }
    let values = points.map(\.loss) + validation.compactMap(\.validationLoss)
    let frame = SVG.Frame(
      left: 56, right: 624, top: 40, bottom: 316, x: Double(points[0].step)...Double(max(last.step, points[0].step + 1)),
      y: 0...max(values.max() ?? 1, 1e-9) * 1.05)
    var svg = SVG(width: 640, height: 360)
    svg = svg.text("cross-entropy of \(points.count) steps", 56, 24, size: 14).axes(frame, x: "step", y: "loss")
    svg = svg.line(points.map { frame.point(Double($0.step), $0.loss) }, color: "#b9c8dd", width: 1)
    svg = svg.line(points.indices.map { frame.point(Double(points[$0].step), means[$0]) }, color: "#1f5fa8", width: 2)
    if !validation.isEmpty {
      svg = svg.line(validation.map { frame.point(Double($0.step), $0.validationLoss ?? 0) }, color: "#c2571a", width: 2)
      svg = svg.text("validation", 540, 24, color: "#c2571a")
    }
    svg = svg.text(window == 1 ? "each step" : "mean of \(window) steps", 400, 24, color: "#1f5fa8")
    return svg.document
  }

  /// The load of the experts: a row a layer, a column an expert, the mean share of slots over the last tenth of the run.
  public static func experts(_ metrics: [Metrics]) -> String {
    let loads = metrics.suffix(max(1, metrics.count / 10)).compactMap(\.expertLoad)
    guard let shape = loads.first, let experts = shape.first?.count, experts > 0 else {
      return SVG(width: 640, height: 80).text("no router", 20, 40).document
    }
    let cell = (width: max(24, min(64, 520 / experts)), height: 16)
    let mean = shape.indices.map { layer in (0..<experts).map { e in loads.reduce(0) { $0 + $1[layer][e] } / Double(loads.count) } }
    let uniform = 1 / Double(experts)
    let title = "share of slots by layer (down) and expert, last \(loads.count) steps (uniform: \(percent(uniform)))"
    var svg = SVG(width: max(96 + experts * cell.width, 32 + 7 * title.count), height: 72 + shape.count * cell.height)
    svg = svg.text(title, 16, 24, size: 13)
    for e in 0..<experts { svg = svg.text("\(e)", Double(64 + e * cell.width + cell.width / 2), 48, anchor: "middle") }
    for (layer, row) in mean.enumerated() {
      let y = Double(56 + layer * cell.height)
      svg = svg.text("\(layer)", 52, y + 12, anchor: "end")
      for (e, share) in row.enumerated() {
        // White at 0, the full color at four times the uniform share.
        let strength = min(1, share / (4 * uniform))
        svg = svg.box(Double(64 + e * cell.width), y, Double(cell.width - 1), Double(cell.height - 1), strength: strength)
        svg = svg.text(
          percent(share), Double(64 + e * cell.width + cell.width / 2), y + 12, size: 9, anchor: "middle",
          color: strength > 0.6 ? "#fff" : "#333")
      }
    }
    return svg.document
  }

  private static func percent(_ share: Double) -> String { "\(Int((100 * share).rounded()))%" }
}

/// An SVG document, put together piece by piece.
struct SVG {
  private let width: Int
  private let height: Int
  private var pieces: [String] = []

  init(width: Int, height: Int) {
    self.width = width
    self.height = height
  }

  /// Where values lie on the picture.
  struct Frame {
    let left: Double, right: Double, top: Double, bottom: Double
    let x: ClosedRange<Double>, y: ClosedRange<Double>

    func point(_ px: Double, _ py: Double) -> (Double, Double) {
      (
        left + (px - x.lowerBound) / (x.upperBound - x.lowerBound) * (right - left),
        bottom - (py - y.lowerBound) / (y.upperBound - y.lowerBound) * (bottom - top)
      )
    }
  }

  var document: String {
    "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(width)\" height=\"\(height)\" viewBox=\"0 0 \(width) \(height)\""
      + " font-family=\"sans-serif\">\n<rect width=\"\(width)\" height=\"\(height)\" fill=\"#fff\"/>\n" + pieces.joined(separator: "\n")
      + "\n</svg>\n"
  }

  func text(_ text: String, _ x: Double, _ y: Double, size: Int = 11, anchor: String = "start", color: String = "#333") -> SVG {
    let safe = text.replacing("&", with: "&amp;").replacing("<", with: "&lt;")
    return adding(
      "<text x=\"\(short(x))\" y=\"\(short(y))\" font-size=\"\(size)\" text-anchor=\"\(anchor)\" fill=\"\(color)\">\(safe)</text>")
  }

  func line(_ points: [(Double, Double)], color: String, width: Double) -> SVG {
    let list = points.map { "\(short($0.0)),\(short($0.1))" }.joined(separator: " ")
    return adding("<polyline points=\"\(list)\" fill=\"none\" stroke=\"\(color)\" stroke-width=\"\(width)\" stroke-linejoin=\"round\"/>")
  }

  func box(_ x: Double, _ y: Double, _ width: Double, _ height: Double, strength: Double) -> SVG {
    adding(
      "<rect x=\"\(short(x))\" y=\"\(short(y))\" width=\"\(short(width))\" height=\"\(short(height))\" fill=\"#1f5fa8\" fill-opacity=\"\(short(strength))\" stroke=\"#ddd\" stroke-width=\"0.5\"/>"
    )
  }

  /// Axes with about four ticks each, at round values; `x` counts steps, so its ticks are whole numbers.
  func axes(_ frame: Frame, x: String, y: String) -> SVG {
    var svg = line([(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)], color: "#888", width: 1)
    for value in Self.ticks(frame.x, least: 1) {
      svg = svg.text("\(Int(value.rounded()))", frame.point(value, frame.y.lowerBound).0, frame.bottom + 16, anchor: "middle")
    }
    for value in Self.ticks(frame.y, least: 0) {
      svg = svg.text(short(value), frame.left - 6, frame.point(frame.x.lowerBound, value).1 + 4, anchor: "end")
      if value > frame.y.lowerBound {
        svg = svg.line([frame.point(frame.x.lowerBound, value), frame.point(frame.x.upperBound, value)], color: "#eee", width: 1)
      }
    }
    return svg.text(x, frame.right, frame.bottom + 32, anchor: "end").text(y, frame.left - 44, frame.top - 8)
  }

  /// Multiples of 1, 2 or 5 times a power of ten, no closer than `least`, that lie in the range.
  static func ticks(_ range: ClosedRange<Double>, least: Double) -> [Double] {
    let rough = max((range.upperBound - range.lowerBound) / 5, least, 1e-9)
    var power = 1.0
    while power * 10 <= rough { power *= 10 }
    while power > rough { power /= 10 }
    let step = [1, 2, 5, 10].map { $0 * power }.first { $0 >= rough * 0.999 } ?? rough
    let first = (range.lowerBound / step).rounded(.up)
    return (0..<12).map { (first + Double($0)) * step }.filter { $0 <= range.upperBound }
  }

  func adding(_ piece: String) -> SVG {
    var svg = self
    svg.pieces.append(piece)
    return svg
  }

  /// Two decimals, enough for a picture.
  func short(_ value: Double) -> String {
    guard value.isFinite else { return "0" }
    let hundredths = Int((value * 100).rounded())
    let (whole, rest) = abs(hundredths).quotientAndRemainder(dividingBy: 100)
    return (hundredths < 0 ? "-" : "") + "\(whole)" + (rest == 0 ? "" : rest < 10 ? ".0\(rest)" : ".\(rest)")
  }
}
