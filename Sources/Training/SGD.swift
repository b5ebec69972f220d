import Tensors

/// Stochastic gradient descent with momentum, in torch's form.
///
/// With g the gradient, λ the decay, μ the momentum:
///
///     b ← μ b + g + λ x          x ← x − lr b
public struct SGD<B: Backend>: Optimizer {
  /// The learning rate lr of the next step.
  public var learningRate: Double
  private let weightDecay: Double
  private let momentum: Double
  private let parameters: [Parameter<B>]
  private let rateFactors: [Double]
  private var b: [Tensor<B>]
  private let backend: B

  /// An optimiser of the given parameters, before its first step; `loraPlusRatio` is what every B's rate is multiplied with.
  public init(
    _ parameters: [Parameter<B>], learningRate: Double, weightDecay: Double = 0, momentum: Double = 0, loraPlusRatio: Double = 1,
    on backend: B
  ) {
    self.parameters = parameters
    self.backend = backend
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.momentum = momentum
    rateFactors = parameters.map { loraPlusFactor($0, ratio: loraPlusRatio) }
    b = parameters.map { backend.zeros($0.value.shape) }
  }

  /// `momentum.<parameter>`.
  public var moments: [(name: String, value: Tensor<B>)] { parameters.indices.map { ("momentum." + parameters[$0].name, b[$0]) } }

  /// See ``Optimizer/restore(_:)``.
  public mutating func restore(_ moment: (_ name: String, _ shape: Shape) throws -> Tensor<B>) throws {
    for (i, parameter) in parameters.enumerated() { b[i] = try moment("momentum." + parameter.name, parameter.value.shape) }
  }

  /// One step; see ``Optimizer/step(_:factor:)``.
  public mutating func step(_ number: Int, factor: Tensor<B>? = nil) {
    for (i, parameter) in parameters.enumerated() {
      let settings = SGDSettings(learningRate: learningRate * rateFactors[i], weightDecay: weightDecay, momentum: momentum)
      backend.sgd(&parameter.value, gradient: parameter.gradient, factor: factor, momentum: &b[i], settings)
      backend.scale(0, &parameter.gradient)
    }
  }
}
