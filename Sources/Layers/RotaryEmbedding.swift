import Platform
import Tensors

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), in Hugging Face's pairing.
///
/// A head of width D is D/2 planes; at position p, plane j turns by the angle p·θ_j with θ_j = base^(−2j/D):
///
///     y_j       = x_j cos − x_{j+D/2} sin
///     y_{j+D/2} = x_j sin + x_{j+D/2} cos          backward: dx is dy turned back by the same angle
///
/// With ``RotaryScaling`` the θ_j are stretched first, and cos and sin may have a factor, which backward has too. The plane is made of elements j and j + D/2 ("halves"). The paper and GGUF files of
/// Llama pair 2j with 2j + 1; Hugging Face permutes the rows of q and k instead, so one kind's weights are wrong for the other's pairing
/// although everything still runs.
///
/// cos and sin are computed in float64 and kept, as scalars of the backend, for the positions below a batch's limit; the table at least
/// doubles when a batch asks for more. A class, because all layers of a model share it.
///
/// - Complexity: 3·N·H·D flops a call, and now and then a larger table; a new one for every length beyond T where the angles grow with it.
public final class RotaryEmbedding<B: Backend> {
  /// Width D of a head.
  public let headWidth: Int
  private let base: Double
  private let scaling: RotaryScaling?
  private let theta: [Double]  // D/2
  private let backend: B
  /// (P,D): cos of positions 0 ..< P in the first D/2 columns, sin in the others; nil until a batch asks. What it depends on of the limit.
  private var table: (values: Tensor<B>, dependence: Int)?

  /// Angles of heads of width D.
  ///
  /// - Parameter divisors: what θ_j is divided by, D/2 numbers, as GGUF files keep a stretching; nil for 1.
  /// - Precondition: D is even.
  public init(base: Double, scaling: RotaryScaling? = nil, divisors: [Double]? = nil, headWidth: Int, on backend: B) {
    self.headWidth = headWidth
    self.base = base
    self.scaling = scaling
    self.backend = backend
    let half = headWidth / 2
    if let divisors, divisors.count != half { trap("RotaryEmbedding: \(divisors.count) divisors for heads of width \(headWidth)") }
    if case .longRoPE(let long) = scaling, long.short.count != half || long.long.count != half {
      trap("RotaryEmbedding: \(long.short.count) and \(long.long.count) divisors for heads of width \(headWidth)")
    }
    theta = (0..<half).map { j in Double.pow(base, -2 * Double(j) / Double(headWidth)) / (divisors?[j] ?? 1) }
  }

  /// Turns every head of x (N,H·D) by the angle of its row's position; in place where nobody else holds x.
  public func forward(_ x: consuming Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var y = consume x
    run.backend.rope(&y, positions: batch.positions, table: table(upTo: batch.positionLimit), inverse: false)
    return y
  }

  /// Turns the gradient back: a rotation's transpose is its inverse, and a factor's is the factor.
  public func backward(_ dy: consuming Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    var dx = consume dy
    run.backend.rope(&dx, positions: batch.positions, table: table(upTo: batch.positionLimit), inverse: true)
    return dx
  }

  /// cos and sin of the angle by which plane j < D/2 is turned at position p of a batch whose positions are below `limit`, with the
  /// factor of the scaling.
  ///
  /// - Precondition: the position is below the limit.
  public func turn(plane j: Int, position p: Int, limit: Int) -> (cos: Double, sin: Double) {
    let angles = scaling?.stretched(theta, base: base, limit: limit) ?? theta
    let magnitude = scaling?.magnitude ?? 1
    return (magnitude * Double.cos(Double(p) * angles[j]), magnitude * Double.sin(Double(p) * angles[j]))
  }

  /// The table for positions below `limit` at least.
  private func table(upTo limit: Int) -> Tensor<B> {
    let dependence = scaling?.dependence(on: limit) ?? 0
    let kept = table?.dependence == dependence ? table?.values : nil
    if let kept, kept.rowCount >= limit { return kept }
    let (count, half, magnitude) = (max(limit, 2 * (kept?.rowCount ?? 0)), headWidth / 2, scaling?.magnitude ?? 1)
    let angles = scaling?.stretched(theta, base: base, limit: limit) ?? theta
    var values = [B.Scalar](repeating: 0, count: count * headWidth)
    for p in 0..<count {
      for j in 0..<half {
        values[p * headWidth + j] = B.Scalar(magnitude * Double.cos(Double(p) * angles[j]))
        values[p * headWidth + half + j] = B.Scalar(magnitude * Double.sin(Double(p) * angles[j]))
      }
    }
    let larger = backend.upload(values, Shape(count, headWidth))
    table = (larger, dependence)
    return larger
  }
}
