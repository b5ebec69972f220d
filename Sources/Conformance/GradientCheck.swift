import Tensors

/// Checks a backward against central differences of the naive forward, in float64.
///
/// With L(x) = ⟨dy, f(x)⟩ for a random dy (never Σ f, whose gradient through a softmax vanishes) and random
/// directions d,
///
///     D(h) = (L(x + h d) − L(x − h d)) / 2h        fd = (4 D(h/2) − D(h)) / 3        |fd − ⟨g, d⟩| ≤ ε max(|⟨g, d⟩|, ‖g‖‖d‖/√n)
///
/// Richardson's extrapolation leaves an error of order h⁴: at h = 2⁻⁹ about 1e-11 from the fifth derivative and
/// 1e-13 from rounding, both well below ε = 1e-7 and far below what any wrong term would leave.
enum GradientCheck {
  /// ε.
  static let tolerance = 1e-7
  /// h. The naive forwards vary on a scale of 1.
  static let step = 0x1p-9
  /// Directions per gradient.
  static let directions = 8
}

extension Trial {
  /// `gradient` is that of `loss` at x, in every direction tried.
  public mutating func expectGradient(_ name: String, _ gradient: Tensor<B>, at x: Matrix, _ loss: (Matrix) -> Double) throws {
    let g = try backend.download(gradient).map { Double($0) }
    guard g.count == x.values.count, !g.isEmpty else {
      return expect(false, "\(name) has \(g.count) elements, its input \(x.values.count)")
    }
    for direction in 0..<GradientCheck.directions {
      let d = source.matrix(x.rows, x.columns)
      func difference(_ h: Double) -> Double {
        (loss(Naive.add(h, d, to: x)) - loss(Naive.add(-h, d, to: x))) / (2 * h)
      }
      let fd = (4 * difference(GradientCheck.step / 2) - difference(GradientCheck.step)) / 3
      var (slope, gg, dd) = (0.0, 0.0, 0.0)
      for i in 0..<g.count {
        slope += g[i] * d.values[i]
        gg += g[i] * g[i]
        dd += d.values[i] * d.values[i]
      }
      let scale = max(abs(slope), (gg * dd / Double(g.count)).squareRoot())
      let bound = GradientCheck.tolerance * scale
      expect("\(name) in direction \(direction): slope \(slope), differences \(fd)", error: abs(fd - slope), within: bound)
    }
  }

  /// The same for a vector.
  public mutating func expectGradient(_ name: String, _ gradient: Tensor<B>, at x: [Double], _ loss: ([Double]) -> Double) throws {
    try expectGradient(name, gradient, at: Matrix(1, x.count, x)) { loss($0.values) }
  }
}
