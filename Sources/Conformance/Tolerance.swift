import Tensors

/// Bounds on rounding errors, derived from the precision of a backend and never tuned.
///
/// A sum of products that goes through n roundings lies within
///
///     γ_n · Σ|terms|,   γ_n = n·u / (1 − n·u)        (Higham 2002, §3.1)
///
/// of the exact one in whatever order it is added, with u the unit roundoff, 2⁻²⁴ for `Float` and 2⁻⁵³ for `Double`; of products it is
/// what the backend says (`Backend.productRoundoff`).
/// The magnitude Σ|terms| is computed in float64 beside the naive definition, whose own error of γ_n(2⁻⁵³) is added.
/// A magnitude of 0 means that the element is exact (not written, masked out), and its bound is 0.
public struct Tolerance: Sendable {
  /// Unit roundoff u.
  public let unitRoundoff: Double
  /// Below this a result may come out as 0: subnormal numbers may be flushed, and an exponential's argument may be
  /// clamped 2¹⁰ short of the smallest normal number.
  public let underflow: Double

  /// The tolerance of a backend: of what its products reach, or of operations without any, which compute in its scalars.
  public init<B: Backend>(_ backend: B, products: Bool = true) {
    unitRoundoff = products ? backend.productRoundoff : Double(B.Scalar.ulpOfOne) / 2
    underflow = Double(B.Scalar.leastNormalMagnitude) * 1024
  }

  /// The tolerance of sums that are accumulated in a precision.
  public init(_ precision: Precision) {
    unitRoundoff = precision.unitRoundoff
    underflow = precision.leastNormalMagnitude * 1024
  }

  /// γ_n of the backend plus γ_n of the float64 definition. Infinite when n·u ≥ 1, where there is no bound.
  public func gamma(_ roundings: Int) -> Double { gamma(Double(roundings)) }

  /// γ_n for an n that is no whole number (an argument's magnitude enters an exponential's error linearly).
  public func gamma(_ roundings: Double) -> Double {
    func gamma(_ u: Double) -> Double { roundings * u < 1 ? roundings * u / (1 - roundings * u) : .infinity }
    return gamma(unitRoundoff) + gamma(0x1p-53)
  }

  /// The bound of one element.
  public func bound(_ roundings: Double, of magnitude: Double) -> Double {
    magnitude == 0 ? 0 : gamma(roundings) * magnitude + underflow
  }
}

/// Numbers of roundings on the way to one element, beside the length of its sums.
///
/// One rounding is a relative error of at most u. An elementary function counts with the worst error that a
/// careful vector implementation has, 4 ulp = 8 u; the C library's is below 1 ulp.
enum Roundings {
  /// e^x for an exact x.
  static let exponential = 8
  /// log x for an exact x, relative to the larger of 1 and the result.
  static let logarithm = 8
  /// 1/√(mean x² + ε): multiply by 1/C, add ε, root, reciprocal; the squares' C roundings count half under the root.
  static let inverseRoot = 5
  /// act(a) c: e^−z or a tanh, 1 + …, division, product, and the same again in a form with 1/(1 + e^−z); z itself has a few roundings.
  static let gated = exponential + 8
  /// act′(a) dh c: two sigmoids and five operations, relative to its terms' magnitudes.
  static let gatedSlope = 2 * exponential + 16
  /// cap · tanh(z / cap) relative to the cap: quotient, an exponential, 1 − 2/(1 + …), product.
  static let softcap = exponential + 8
  /// A softmax beside its sum: difference from the largest, e^x, sum, division, once more for a rescaled (online) sum.
  static let softmax = 2 * exponential + 8
  /// A product with a factor that the host rounds first: α x, or x / (1 − p).
  static let factor = 3
  /// AdamW's moments: difference, product with a rounded 1 − β, sum.
  static let moment = 6
  /// AdamW's update: two corrections, root, quotients, ε, lr, difference.
  static let update = 16
}
