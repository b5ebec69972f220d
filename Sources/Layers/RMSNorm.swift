import Tensors

/// Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467, equation 4).
///
/// N rows, C channels, w (C), all sums over the channels of one row:
///
///     ρ = 1 / √(Σ x² / C + ε)         (N)
///     y = ρ x ⊙ w                     (N,C)       dw += Σ_n ρ_n dy_n ⊙ x_n                         (C)
///                                                 dx += ρ (dy ⊙ w) − x ρ³ ⟨dy ⊙ w, x⟩ / C          (N,C)
///
/// - Complexity: about 4·N·C flops forward, 8·N·C backward.
public struct RMSNorm<B: Backend> {
  /// Module path: `model.layers.3.input_layernorm`.
  public let path: String
  /// w (C).
  public let weight: Weight<B>
  /// ε, the model's `rms_norm_eps`.
  public let epsilon: Double

  /// N scalars; x is shared with the residual stream. y is not needed again.
  public struct Cache {
    let x: Tensor<B>  // (N,C)
    let inverseRMS: Tensor<B>  // (N)    ρ
  }

  /// A norm with the given weight.
  public init(path: String, weight: Weight<B>, epsilon: Double) {
    self.path = path
    self.weight = weight
    self.epsilon = epsilon
  }

  /// y = ρ x ⊙ w: (N,C) → (N,C).
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    var (y, inverseRMS) = run.backend.rmsNorm(x, run.vector(weight), epsilon: epsilon)  // (N,C), (N)
    run.hook(&y, path, "output")
    return (y, Cache(x: x, inverseRMS: inverseRMS))
  }

  /// Adds to dx, the gradient of the residual stream.
  public func backward(_ dy: Tensor<B>, _ cache: consuming Cache, into dx: inout Tensor<B>, _ run: Run<B>) {
    var dy = dy
    run.hook(&dy, path, "output")
    // forward: y = ρ x ⊙ w
    if let w = weight.parameter {
      run.backend.rmsNormWeightGradient(dy, cache.x, cache.inverseRMS, into: &w.gradient)  // (C)  + Σ ρ dy ⊙ x
    }
    run.backend.rmsNormBackward(dy, cache.x, run.vector(weight), cache.inverseRMS, into: &dx)  // (N,C)
  }
}
