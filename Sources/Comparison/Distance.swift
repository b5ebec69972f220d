/// How far a candidate's values are from the reference's, in the norm: of all of them, and of the worst row.
///
/// What is not finite on both sides in the same way is no difference, and not in the norm.
struct Distance {
  /// ‖candidate − reference‖₂ and ‖reference‖₂.
  private(set) var difference = 0.0, norm = 0.0
  /// The same of the row with the largest difference, and of the largest row.
  private(set) var largestRow = 0.0, largestRowNorm = 0.0
  /// Elements.
  let count: Int
  /// Whether the user's rule holds for every element; nil without one.
  var agrees: Bool?

  /// - Precondition: as many values on both sides.
  init(of a: [Double], from b: [Double], width: Int = 0) {
    count = b.count
    let width = width > 0 ? width : max(1, b.count)
    var (differences, squares) = (0.0, 0.0)
    a.withUnsafeBufferPointer { a in
      b.withUnsafeBufferPointer { b in
        for begin in stride(from: 0, to: b.count, by: width) {
          var (d, n) = (0.0, 0.0)
          for i in begin..<min(begin + width, b.count) {
            let (x, y) = (a[i], b[i])
            if y.isFinite { n += y * y }
            if x == y || (x.isNaN && y.isNaN) { continue }
            d += (x - y) * (x - y)
          }
          differences += d
          squares += n
          largestRow = max(largestRow, d.isNaN ? .infinity : d)
          largestRowNorm = max(largestRowNorm, n)
        }
      }
    }
    difference = differences.isNaN ? .infinity : differences.squareRoot()
    norm = squares.squareRoot()
    (largestRow, largestRowNorm) = (largestRow.squareRoot(), largestRowNorm.squareRoot())
  }

  /// ‖candidate − reference‖₂ / ‖reference‖₂.
  var relative: Double { difference == 0 ? 0 : norm > 0 ? difference / norm : .infinity }

  /// Whether it is right: by the user's rule where there is one, else within a budget. Only a finite error within a finite budget passes.
  func isWithin(_ budget: Double) -> Bool { agrees ?? (difference.isFinite && budget.isFinite && difference <= budget) }
}
