import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), in Hugging Face's pairing.
///
/// A head of width D is D/2 planes; at position p, plane j turns by the angle p·θ_j with θ_j = base^(−2j/D):
///
///     y_j       = x_j cos − x_{j+D/2} sin
///     y_{j+D/2} = x_j sin + x_{j+D/2} cos          backward: dx is dy turned back by the same angle
///
/// With ``RotaryScaling`` the θ_j are stretched first. The plane is made of elements j and j + D/2 ("halves"). The paper and GGUF files pair 2j with 2j + 1; Hugging
/// Face permutes the rows of q and k instead, so one kind's weights are wrong for the other's pairing although
/// everything still runs.
public struct RotaryEmbedding<B: Backend> {
  /// Width D of a head.
  public let headWidth: Int
  /// (P,D): cos of positions 0..<P in the first D/2 columns, sin in the others.
  let table: Tensor<B>

  /// Tabulates the angles of `positions` positions, in float64.
  ///
  /// - Parameter divisors: what θ_j is divided by, D/2 numbers, as GGUF files keep a stretching; nil for 1.
  public init(base: Double, scaling: RotaryScaling? = nil, divisors: [Double]? = nil, headWidth: Int, positions: Int, on backend: B) {
    self.headWidth = headWidth
    let half = headWidth / 2
    if let divisors, divisors.count != half { trap("RotaryEmbedding: \(divisors.count) divisors for heads of width \(headWidth)") }
    let theta = (0..<half).map { j in
      let theta = pow(base, -2 * Double(j) / Double(headWidth)) / (divisors?[j] ?? 1)
      return scaling?.scaled(theta) ?? theta
    }
    var values = [B.Scalar](repeating: 0, count: positions * headWidth)
    for p in 0..<positions {
      for j in 0..<half {
        values[p * headWidth + j] = B.Scalar(cos(Double(p) * theta[j]))
        values[p * headWidth + half + j] = B.Scalar(sin(Double(p) * theta[j]))
      }
    }
    table = backend.upload(values, Shape(positions, headWidth))
  }

  /// Turns every head of x (N,H·D) by the angle of its row's position, in place.
  public func forward(_ x: inout Tensor<B>, positions: Indices<B>, _ run: Run<B>) {
    run.backend.rope(&x, positions: positions, table: table, inverse: false)
  }

  /// Turns the gradient back: a rotation's transpose is its inverse.
  public func backward(_ dx: inout Tensor<B>, positions: Indices<B>, _ run: Run<B>) {
    run.backend.rope(&dx, positions: positions, table: table, inverse: true)
  }
}

/// How Llama 3.1 stretches the rotary angles for contexts longer than those it was first trained on
/// (Hugging Face's `rope_type` "llama3").
///
/// A plane whose wavelength λ = 2π/θ is short turns as before, a long one `factor` times slower, and between the two
/// bounds the share s of the old speed falls from 1 to 0:
///
///     λ < P / high:  θ       λ > P / low:  θ / factor       else  θ (s + (1 − s) / factor),  s = (P/λ − low) / (high − low)
public struct RotaryScaling: Equatable, Sendable {
  /// How many times slower long waves turn.
  public var factor: Double
  /// Waves longer than P / low are slowed down fully.
  public var lowFrequencyFactor: Double
  /// Waves shorter than P / high are left alone.
  public var highFrequencyFactor: Double
  /// P, the positions of the first training: `original_max_position_embeddings`.
  public var originalPositions: Double

  /// A scaling by the keys of `rope_scaling`.
  public init(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalPositions: Double) {
    self.factor = factor
    self.lowFrequencyFactor = lowFrequencyFactor
    self.highFrequencyFactor = highFrequencyFactor
    self.originalPositions = originalPositions
  }

  /// The stretched angle of a plane.
  func scaled(_ theta: Double) -> Double {
    let wavelength = 2 * Double.pi / theta
    if wavelength < originalPositions / highFrequencyFactor { return theta }
    if wavelength > originalPositions / lowFrequencyFactor { return theta / factor }
    let share = (originalPositions / wavelength - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor)
    return theta * (share + (1 - share) / factor)
  }
}
