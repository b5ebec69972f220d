import Platform
import Tensors

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), in Hugging Face's pairing.
///
/// A head of width D is D/2 planes; at position p, plane j turns by the angle p·θ_j with θ_j = base^(−2j/D):
///
///     y_j       = x_j cos − x_{j+D/2} sin
///     y_{j+D/2} = x_j sin + x_{j+D/2} cos          backward: dx is dy turned back by the same angle
///
/// With ``RotaryScaling`` the θ_j are stretched first. The plane is made of elements j and j + D/2 ("halves"). The paper and GGUF files of
/// Llama pair 2j with 2j + 1; Hugging Face permutes the rows of q and k instead, so one kind's weights are wrong for the other's pairing
/// although everything still runs.
///
/// cos and sin are computed in float64 and kept, as scalars of the backend, for the positions below a batch's limit; the table at least
/// doubles when a batch asks for more. A class, because all layers of a model share it.
///
/// - Complexity: 3·N·H·D flops a call, and now and then a larger table.
public final class RotaryEmbedding<B: Backend> {
  /// Width D of a head.
  public let headWidth: Int
  private let theta: [Double]  // D/2
  private let backend: B
  /// (P,D): cos of positions 0 ..< P in the first D/2 columns, sin in the others; nil until a batch asks.
  private var table: Tensor<B>?

  /// Angles of heads of width D.
  ///
  /// - Parameter divisors: what θ_j is divided by, D/2 numbers, as GGUF files keep a stretching; nil for 1.
  /// - Precondition: D is even.
  public init(base: Double, scaling: RotaryScaling? = nil, divisors: [Double]? = nil, headWidth: Int, on backend: B) {
    self.headWidth = headWidth
    self.backend = backend
    let half = headWidth / 2
    if let divisors, divisors.count != half { trap("RotaryEmbedding: \(divisors.count) divisors for heads of width \(headWidth)") }
    theta = (0..<half).map { j in
      let theta = Double.pow(base, -2 * Double(j) / Double(headWidth)) / (divisors?[j] ?? 1)
      return scaling?.scaled(theta) ?? theta
    }
  }

  /// Turns every head of x (N,H·D) by the angle of its row's position; in place where nobody else holds x.
  public func forward(_ x: consuming Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var y = consume x
    run.backend.rope(&y, positions: batch.positions, table: table(upTo: batch.positionLimit), inverse: false)
    return y
  }

  /// Turns the gradient back: a rotation's transpose is its inverse.
  public func backward(_ dy: consuming Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var dx = consume dy
    run.backend.rope(&dx, positions: batch.positions, table: table(upTo: batch.positionLimit), inverse: true)
    return dx
  }

  /// The table for positions below `limit` at least.
  private func table(upTo limit: Int) -> Tensor<B> {
    if let table, table.rowCount >= limit { return table }
    let (count, half) = (max(limit, 2 * (table?.rowCount ?? 0)), headWidth / 2)
    var values = [B.Scalar](repeating: 0, count: count * headWidth)
    for p in 0..<count {
      for j in 0..<half {
        values[p * headWidth + j] = B.Scalar(Double.cos(Double(p) * theta[j]))
        values[p * headWidth + half + j] = B.Scalar(Double.sin(Double(p) * theta[j]))
      }
    }
    let larger = backend.upload(values, Shape(count, headWidth))
    table = larger
    return larger
  }
}

/// How Llama 3.1 stretches the rotary angles for contexts longer than those it was first trained on
/// (Hugging Face's `rope_type` "llama3").
///
/// A plane whose wavelength λ = 2π/θ is short turns as before, a long one `factor` times slower, and between the two
/// bounds the share of the old speed falls from 1 to 0. T positions of the first training:
///
///     λ < T / high:  θ       λ > T / low:  θ / factor       else  θ (share + (1 − share) / factor)
///                                                                 share = (T/λ − low) / (high − low)
public struct RotaryScaling: Equatable, Sendable {
  /// How many times slower long waves turn.
  public var factor: Double
  /// Waves longer than T / low are slowed down fully.
  public var lowFrequencyFactor: Double
  /// Waves shorter than T / high are left alone.
  public var highFrequencyFactor: Double
  /// T, the positions of the first training: `original_max_position_embeddings`.
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
