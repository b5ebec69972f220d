import Checkpoints
import Platform

/// The middle of repeated measurements, and how far they lie apart; NaN of none.
struct Spread {
  /// The middle one, or the mean of the two in the middle.
  let median: Double
  let least: Double
  let most: Double

  init(_ values: some Sequence<Double>) {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    median = sorted.isEmpty ? .nan : sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    (least, most) = (sorted.first ?? .nan, sorted.last ?? .nan)
  }

  /// `least to most`, times a unit.
  func range(_ digits: Int, times unit: Double = 1) -> String { "\(fixed(unit * least, digits)) to \(fixed(unit * most, digits))" }
}

extension JSON.Object {
  /// Puts in a median by its key, and its neighbours under `<key>_least` and `<key>_most`.
  mutating func add(_ key: String, _ spread: Spread) {
    self[key] = JSON(spread.median)
    self[key + "_least"] = JSON(spread.least)
    self[key + "_most"] = JSON(spread.most)
  }
}
