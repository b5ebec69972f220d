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
/// The plane is made of elements j and j + D/2 ("halves"). The paper and GGUF files pair 2j with 2j + 1; Hugging
/// Face permutes the rows of q and k instead, so one kind's weights are wrong for the other's pairing although
/// everything still runs.
public struct RotaryEmbedding<B: Backend> {
  /// Width D of a head.
  public let headWidth: Int
  /// (P,D): cos of positions 0..<P in the first D/2 columns, sin in the others.
  let table: Tensor<B>

  /// Tabulates the angles of `positions` positions, in float64.
  public init(base: Double, headWidth: Int, positions: Int, on backend: B) {
    self.headWidth = headWidth
    let half = headWidth / 2
    let theta = (0..<half).map { pow(base, -2 * Double($0) / Double(headWidth)) }
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
