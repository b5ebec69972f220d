/// A rule of the user's for which numbers of a candidate agree with the reference's, element by element, whatever rounding explains.
///
/// NaN on both sides agrees under each of them, and so does the same infinity: the report says where there are any. What is not finite
/// on one side alone never agrees.
enum ElementRule {
  /// At most so many units in the last place of the candidate's element type.
  case ulp(Double)
  /// |candidate − reference| ≤ atol + rtol |reference|.
  case allclose(relative: Double, absolute: Double)
  /// The same numbers.
  case exact

  /// What a request holds elements against; nil where it holds norms against budgets.
  init?(_ request: ComparisonRequest) {
    switch request.mode {
    case .budget, .referenceRatio: return nil
    case .ulp: self = .ulp(request.relative ?? 4)
    case .allclose: self = .allclose(relative: request.relative ?? 1e-5, absolute: request.absolute ?? 1e-8)
    case .exact: self = .exact
    }
  }

  /// Whether every element agrees; `roundoff` is that of the candidate's element type.
  func agrees(_ found: [Double], _ expected: [Double], roundoff: Double) -> Bool {
    zip(found, expected).allSatisfy { x, y in
      if x == y || (x.isNaN && y.isNaN) { return true }
      guard x.isFinite, y.isFinite else { return false }
      return switch self {
      case .ulp(let units): abs(x - y) <= units * TensorMetrics.ulp(of: y, roundoff)
      case .allclose(let relative, let absolute): abs(x - y) <= absolute + relative * abs(y)
      case .exact: false
      }
    }
  }

  /// What it asks for, in words.
  var text: String {
    switch self {
    case .ulp(let units): "\(plain(units)) ulp"
    case .allclose(let relative, let absolute): "rtol \(relative), atol \(absolute)"
    case .exact: "the same numbers"
    }
  }
}
