import Tensors

/// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in torch's order: decay first, then moments and update.
///
/// With g the gradient, λ the decay, t the step counted from 1:
///
///     x ← x (1 − lr λ)
///     m ← m + (g − m)(1 − β₁)          v ← β₂ v + (1 − β₂) g²
///     x ← x − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
///
/// A parameter without a gradient (an expert that no token chose) has a zero one: it still decays and its moments
/// still fade.
public struct AdamW<B: Backend> {
  /// The numbers of the step; `step` counts up.
  public private(set) var settings: AdamWSettings
  private let parameters: [Parameter<B>]
  private var m: [Tensor<B>]
  private var v: [Tensor<B>]
  private let backend: B

  /// An optimiser of the given parameters, before its first step.
  public init(_ parameters: [Parameter<B>], learningRate: Double, weightDecay: Double = 0.01, on backend: B) {
    self.parameters = parameters
    self.backend = backend
    settings = AdamWSettings(learningRate: learningRate, weightDecay: weightDecay, step: 0)
    m = parameters.map { backend.zeros($0.value.shape) }
    v = parameters.map { backend.zeros($0.value.shape) }
  }

  /// Updates every parameter from its gradient and sets the gradients to zero.
  public mutating func step() {
    settings.step += 1
    for (i, parameter) in parameters.enumerated() {
      backend.adamW(&parameter.value, gradient: parameter.gradient, factor: nil, &m[i], &v[i], settings)
      backend.scale(0, &parameter.gradient)
    }
  }
}
