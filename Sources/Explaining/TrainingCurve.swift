import Checkpoints
import Training

/// Loss and load of the experts over a training run, as a picture needs them: at most 200 points, each the mean of as many steps.
struct TrainingCurve {
  /// Points of a curve.
  private static let most = 200

  private let lines: [Metrics]

  init(_ lines: [Metrics]) { self.lines = lines.filter(\.loss.isFinite) }

  /// The points: the last step of each, its loss, and of every layer the share of each expert; null without a line.
  var json: JSON {
    guard let last = lines.last else { return .null }
    let width = (lines.count + Self.most - 1) / Self.most
    let parts = stride(from: 0, to: lines.count, by: width).map { lines[$0..<min($0 + width, lines.count)] }
    return [
      "steps": JSON(last.step), "width": JSON(width), "at": .array(parts.map { JSON($0[$0.endIndex - 1].step) }),
      "loss": .array(parts.map { part in JSON(rounded(part.reduce(0) { $0 + $1.loss } / Double(part.count))) }),
      "load": .array(parts.compactMap(load)),
    ]
  }

  private func load(_ part: ArraySlice<Metrics>) -> JSON? {
    let loads = part.compactMap(\.expertLoad)
    guard let shape = loads.first, loads.allSatisfy({ $0.map(\.count) == shape.map(\.count) }) else { return nil }
    return .array(
      shape.indices.map { layer in
        .array(shape[layer].indices.map { e in JSON(rounded(loads.reduce(0) { $0 + $1[layer][e] } / Double(loads.count))) })
      })
  }

  /// Five digits behind the point, which is more than a picture shows.
  private func rounded(_ value: Double) -> Double { (value * 1e5).rounded() / 1e5 }
}
