import Tensors

/// Root-mean-square normalization (Zhang & Sennrich 2019, arXiv:1910.07467, equation 4).
///
/// N rows, C channels, g (C) the gain, all sums over the channels of one row:
///
///     ρ = 1 / √(Σ x² / C + ε)         (N)
///     y = ρ x ⊙ g                     (N,C)       dg += Σ_n ρ_n dy_n ⊙ x_n                         (C)
///                                                 dx += ρ (dy ⊙ g) − x ρ³ ⟨dy ⊙ g, x⟩ / C          (N,C)
///
/// g is the stored weight w, or 1 + w where the family (Gemma) stores how far the gain is from 1; dw = dg either way.
///
/// - Complexity: about 4·N·C flops forward, 8·N·C backward.
public struct RMSNorm<B: Backend> {
  /// Module path: `model.layers.3.input_layernorm`.
  public let path: String
  /// w (C).
  public let weight: Weight<B>
  /// What is added to w: 0 or 1.
  public let offset: Double
  /// ε, the model's `rms_norm_eps`.
  public let epsilon: Double

  /// N scalars; x is shared with the residual stream. y is not needed again.
  public struct Cache {
    let x: Tensor<B>  // (N,C)
    let rho: Tensor<B>  // (N)    ρ
  }

  /// A norm with the given weight.
  public init(path: String, weight: Weight<B>, offset: Double = 0, epsilon: Double) {
    self.path = path
    self.weight = weight
    self.offset = offset
    self.epsilon = epsilon
  }

  /// y = ρ x ⊙ g: (N,C) → (N,C).
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    var (y, rho) = run.backend.rmsNorm(x, run.backend.vector(weight), offset: offset, epsilon: epsilon)  // (N,C), (N)
    run.hook(&y, path, "output", "y = ρ x ⊙ g,  ρ = 1 / √(Σ x² / C + ε)")
    return (y, Cache(x: x, rho: rho))
  }

  /// Adds to dx (nil counts as zero), the gradient of a stream that others read as well.
  public func backward(_ dy: Tensor<B>, _ cache: consuming Cache, into dx: inout Tensor<B>?, _ run: Run<B>) {
    var dy = dy
    run.hook(gradient: &dy, path, "output")
    // forward: y = ρ x ⊙ g
    if let w = weight.parameter {
      run.backend.rmsNormWeightGradient(dy, cache.x, rho: cache.rho, into: &w.gradient)  // (C)  + Σ ρ dy ⊙ x
    }
    var sum = dx.take() ?? run.backend.zeros(dy.shape)
    run.backend.rmsNormBackward(dy, cache.x, run.backend.vector(weight), offset: offset, rho: cache.rho, into: &sum)  // (N,C)
    dx = sum
  }
}
