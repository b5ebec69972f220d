extension Charts {
  /// One way of training and what it reached on each task.
  public struct Series: Sendable {
    /// Its name in the legend.
    public var name: String
    /// Its color, `#rrggbb`.
    public var color: String
    /// Values in order: accuracies 0…1 by task, or a loss by step.
    public var values: [Double]

    /// A named row of values.
    public init(name: String, color: String, values: [Double]) {
      self.name = name
      self.color = color
      self.values = values
    }
  }

  /// Accuracies by task, a group of bars each.
  public static func accuracies(_ tasks: [String], _ series: [Series]) -> String {
    let (left, top, bottom, group) = (56.0, 44.0, 250.0, 104.0)
    let bar = (group - 22) / Double(max(1, series.count))
    var svg = SVG(width: Int(left + group * Double(tasks.count)) + 16, height: 290)
    svg = svg.legend(series, at: left)
    for percent in stride(from: 0.0, through: 100, by: 25) {
      let y = bottom - (bottom - top) * percent / 100
      svg = svg.line([(left, y), (left + group * Double(tasks.count), y)], color: percent == 0 ? "#888" : "#eee", width: 1)
      svg = svg.text("\(Int(percent))%", left - 6, y + 4, anchor: "end")
    }
    for (t, task) in tasks.enumerated() {
      let x = left + group * Double(t)
      svg = svg.text(task, x + group / 2, bottom + 20, size: 13, anchor: "middle")
      for (s, one) in series.enumerated() where t < one.values.count && one.values[t].isFinite {
        let height = (bottom - top) * one.values[t]
        svg = svg.bar(x + 11 + bar * Double(s), bottom - height, bar - 3, height, color: one.color)
        svg = svg.text(
          "\(Int((100 * one.values[t]).rounded()))", x + 11 + bar * (Double(s) + 0.5) - 1.5, bottom - height - 4, size: 10, anchor: "middle"
        )
      }
    }
    return svg.document
  }

  /// Several runs' losses by step in one picture, each smoothed over a twentieth of its steps.
  public static func losses(_ series: [Series]) -> String {
    let smooth = series.map { one in
      let window = max(1, one.values.count / 20)
      return one.values.indices.map { i in
        let part = one.values[max(0, i - window + 1)...i]
        return part.reduce(0, +) / Double(part.count)
      }
    }
    let steps = series.map(\.values.count).max() ?? 1
    let frame = SVG.Frame(
      left: 56, right: 624, top: 44, bottom: 250, x: 1...Double(max(steps, 2)),
      y: 0...max(smooth.flatMap { $0.filter(\.isFinite) }.max() ?? 1, 1e-9) * 1.05)
    var svg = SVG(width: 680, height: 290).axes(frame, x: "step", y: "loss").legend(series, at: 56)
    for (one, values) in zip(series, smooth) {
      svg = svg.line(
        values.enumerated().filter { $0.element.isFinite }.map { frame.point(Double($0.offset + 1), $0.element) }, color: one.color,
        width: 2)
    }
    return svg.document
  }

  /// Which experts each task asks: a row a task, a block of E columns a layer, darker for a larger share of the slots.
  public static func routing(_ tasks: [String], _ loads: [[[Double]]]) -> String {
    guard let layers = loads.first?.count, let experts = loads.first?.first?.count, experts > 0 else {
      return SVG(width: 640, height: 80).text("no router", 20, 40).document
    }
    let (left, cell, row) = (84.0, max(6, min(18, 560 / Double(layers * experts))), 22.0)
    func x(_ layer: Int, _ expert: Int) -> Double { left + Double(layer) * (cell * Double(experts) + 10) + cell * Double(expert) }
    var svg = SVG(width: Int(x(layers, 0)) + 8, height: Int(row) * tasks.count + 56)
    for layer in 0..<layers { svg = svg.text("layer \(layer)", x(layer, 0), 20) }
    for (t, task) in tasks.enumerated() {
      let y = 30 + row * Double(t)
      svg = svg.text(task, left - 8, y + 15, size: 13, anchor: "end")
      for layer in 0..<layers {
        for expert in 0..<experts {
          // White at 0, the full color at three times the uniform share.
          let strength = min(1, loads[t][layer][expert] * Double(experts) / 3)
          svg = svg.box(x(layer, expert), y, cell - 1, row - 2, strength: strength)
        }
      }
    }
    return svg.text("a column an expert; darker: a larger share of the task's tokens", left, 30 + row * Double(tasks.count) + 16).document
  }
}

extension SVG {
  /// Names and colors of the series, in a row above the picture.
  fileprivate func legend(_ series: [Charts.Series], at left: Double) -> SVG {
    var (svg, x) = (self, left)
    for one in series {
      svg = svg.bar(x, 14, 11, 11, color: one.color).text(one.name, x + 16, 24, size: 13)
      x += 40 + 7 * Double(one.name.count)
    }
    return svg
  }

  /// A filled rectangle.
  fileprivate func bar(_ x: Double, _ y: Double, _ width: Double, _ height: Double, color: String) -> SVG {
    adding("<rect x=\"\(short(x))\" y=\"\(short(y))\" width=\"\(short(width))\" height=\"\(short(height))\" fill=\"\(color)\"/>")
  }
}
