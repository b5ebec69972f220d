import Conformance

/// A small picture, put together by hand: SVG with colors for light pages, and classes by which the dark ones change them.
struct Picture {
  let width: Int
  let height: Int
  private var pieces: [String] = []

  init(_ width: Int, _ height: Int) { (self.width, self.height) = (width, height) }

  /// Colors that stay apart without hue too: by lightness.
  static let colors = ["#1f5fa8", "#e08a1e", "#2e7d4f", "#9a3d8f"]

  mutating func text(_ text: String, _ x: Double, _ y: Double, size: Int = 12, anchor: String = "start") {
    let safe = text.replacing("&", with: "&amp;").replacing("<", with: "&lt;")
    pieces.append(
      "<text class=\"ink\" x=\"\(p(x))\" y=\"\(p(y))\" font-size=\"\(size)\" text-anchor=\"\(anchor)\" fill=\"#222\">\(safe)</text>")
  }

  mutating func line(_ points: [(Double, Double)], _ color: String = "#888", width: Double = 1, dashed: Bool = false) {
    let list = points.map { "\(p($0.0)),\(p($0.1))" }.joined(separator: " ")
    let dash = dashed ? " stroke-dasharray=\"5 4\"" : ""
    pieces.append("<polyline points=\"\(list)\" fill=\"none\" stroke=\"\(color)\" stroke-width=\"\(p(width))\"\(dash)/>")
  }

  mutating func box(_ x: Double, _ y: Double, _ w: Double, _ h: Double, _ color: String, opacity: Double = 1) {
    pieces.append(
      "<rect x=\"\(p(x))\" y=\"\(p(y))\" width=\"\(p(w))\" height=\"\(p(h))\" fill=\"\(color)\" fill-opacity=\"\(p(opacity))\""
        + " stroke=\"#999\" stroke-width=\"0.5\"/>"
    )
  }

  mutating func dot(_ x: Double, _ y: Double, _ color: String) {
    pieces.append("<circle cx=\"\(p(x))\" cy=\"\(p(y))\" r=\"3\" fill=\"\(color)\"/>")
  }

  /// A matrix as boxes, blue for positive numbers, orange for negative ones, with the numbers in them.
  mutating func heat(_ m: Matrix, _ x: Double, _ y: Double, cell: (Double, Double) = (46, 22), digits: Int = 2) {
    let largest = m.values.map { abs($0) }.max() ?? 1
    for i in 0..<m.rows {
      for j in 0..<m.columns {
        let value = m[i, j]
        let (left, top) = (x + Double(j) * cell.0, y + Double(i) * cell.1)
        let strength = largest > 0 ? 0.6 * (10 * abs(value) / largest).rounded() / 10 : 0
        box(left, top, cell.0 - 1, cell.1 - 1, value < 0 ? Self.colors[1] : Self.colors[0], opacity: strength)
        text(number(value, digits), left + cell.0 / 2, top + cell.1 / 2 + 4, size: 11, anchor: "middle")
      }
    }
  }

  /// Puts the picture below the cell; `alternative` says in words what is to be seen.
  func show(_ alternative: String) {
    mark("picture " + alternative)
    print(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(width) \(height)\" width=\"\(width)\" height=\"\(height)\""
        + " font-family=\"sans-serif\" role=\"img\">"
    )
    print("<rect class=\"paper\" width=\"\(width)\" height=\"\(height)\" fill=\"#fff\"/>")
    for piece in pieces { print(piece) }
    print("</svg>")
    mark("end")
  }

  /// One digit behind the point is enough for a picture, and the same on every machine.
  private func p(_ value: Double) -> String { number(value, 1) }
}
