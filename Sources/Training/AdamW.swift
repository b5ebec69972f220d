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
public struct AdamW<B: Backend>: Optimizer {
  /// The learning rate lr of the next step.
  public var learningRate: Double
  private let weightDecay: Double
  private let parameters: [Parameter<B>]
  private let rateFactors: [Double]
  private var m: [Tensor<B>]
  private var v: [Tensor<B>]
  private let backend: B

  /// An optimiser of the given parameters, before its first step; `loraPlusRatio` is what every B's rate is multiplied with.
  public init(_ parameters: [Parameter<B>], learningRate: Double, weightDecay: Double = 0.01, loraPlusRatio: Double = 1, on backend: B) {
    self.parameters = parameters
    self.backend = backend
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    rateFactors = parameters.map { loraPlusFactor($0, ratio: loraPlusRatio) }
    m = parameters.map { backend.zeros($0.value.shape) }
    v = parameters.map { backend.zeros($0.value.shape) }
  }

  /// `m.<parameter>` and `v.<parameter>`.
  public var moments: [(name: String, value: Tensor<B>)] {
    parameters.indices.flatMap { [("m." + parameters[$0].name, m[$0]), ("v." + parameters[$0].name, v[$0])] }
  }

  /// See ``Optimizer/restore(_:)``.
  public mutating func restore(_ moment: (_ name: String, _ shape: Shape) throws -> Tensor<B>) throws {
    for (i, parameter) in parameters.enumerated() {
      m[i] = try moment("m." + parameter.name, parameter.value.shape)
      v[i] = try moment("v." + parameter.name, parameter.value.shape)
    }
  }

  /// One step; see ``Optimizer/step(_:factor:)``.
  public mutating func step(_ number: Int, factor: Tensor<B>? = nil) {
    for (i, parameter) in parameters.enumerated() {
      let settings = AdamWSettings(learningRate: learningRate * rateFactors[i], weightDecay: weightDecay, step: number)
      backend.adamW(&parameter.value, gradient: parameter.gradient, factor: factor, &m[i], &v[i], settings)
      backend.scale(0, &parameter.gradient)
    }
  }
}
