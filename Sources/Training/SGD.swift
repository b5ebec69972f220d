import Tensors

/// Stochastic gradient descent with momentum, in torch's form; `Backend.sgd(_:gradient:factor:momentum:_:range:)` has the equations.
public struct SGD<B: Backend>: Optimizer {
  /// The learning rate lr of the next step.
  public var learningRate: Double
  private let weightDecay: Double
  private let momentum: Double
  private let loraPlusRatio: Double
  private var b: ArenaVectors<B>
  private let backend: B

  /// An optimizer of the given parameters, before its first step; `loraPlusRatio` is what every B's rate is multiplied with.
  public init(
    _ parameters: [Parameter<B>], learningRate: Double, weightDecay: Double = 0, momentum: Double = 0, loraPlusRatio: Double = 1,
    on backend: B
  ) {
    self.backend = backend
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.momentum = momentum
    self.loraPlusRatio = loraPlusRatio
    b = ArenaVectors(parameters, on: backend)
  }

  /// `momentum.<parameter>`.
  public var moments: [Moment<B>] { b.named("momentum.") }

  /// See ``Optimizer/restore(_:)``.
  public mutating func restore(_ moment: (_ name: String, _ shape: Shape, _ isBytes: Bool) throws -> Tensor<B>) throws {
    try b.restore("momentum.", moment)
  }

  /// One step; see ``Optimizer/step(_:factor:)``.
  public mutating func step(_ number: Int, factor: Tensor<B>? = nil) {
    for (i, arena) in b.arenas.enumerated() {
      for range in RateRange.of(arena, loraPlusRatio: loraPlusRatio) {
        let settings = SGDSettings(learningRate: learningRate * range.factor, weightDecay: weightDecay, momentum: momentum)
        backend.sgd(
          &arena.values, gradient: arena.gradients, factor: factor, momentum: &b.vectors[i], settings, range: range.elements)
      }
      backend.fill(0, &arena.gradients)
    }
  }
}
