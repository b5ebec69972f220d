import Tensors

/// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in torch's order: decay first, then moments and update;
/// `Backend.adamW(_:gradient:factor:_:_:_:range:)` has the equations.
///
/// A parameter without a gradient (an expert that no token chose) has a zero one: it still decays and its moments
/// still fade.
public struct AdamW<B: Backend>: Optimizer {
  /// The learning rate lr of the next step.
  public var learningRate: Double
  private let weightDecay: Double
  private let loraPlusRatio: Double
  private var m: ArenaVectors<B>
  private var v: ArenaVectors<B>
  private let backend: B

  /// An optimizer of the given parameters, before its first step; `loraPlusRatio` is what every B's rate is multiplied with.
  public init(_ parameters: [Parameter<B>], learningRate: Double, weightDecay: Double = 0.01, loraPlusRatio: Double = 1, on backend: B) {
    self.backend = backend
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.loraPlusRatio = loraPlusRatio
    m = ArenaVectors(parameters, on: backend)
    v = ArenaVectors(parameters, on: backend)
  }

  /// `m.<parameter>` and `v.<parameter>`.
  public var moments: [Moment<B>] { zip(m.named("m."), v.named("v.")).flatMap { [$0, $1] } }

  /// The moments of one parameter, in its shape.
  public func moments(of parameter: Parameter<B>) -> (first: Tensor<B>, second: Tensor<B>) {
    (m.part(of: parameter), v.part(of: parameter))
  }

  /// See ``Optimizer/restore(_:)``.
  public mutating func restore(_ moment: (_ name: String, _ shape: Shape, _ isBytes: Bool) throws -> Tensor<B>) throws {
    try m.restore("m.", moment)
    try v.restore("v.", moment)
  }

  /// One step; see ``Optimizer/step(_:factor:)``.
  public mutating func step(_ number: Int, factor: Tensor<B>? = nil) {
    for (i, arena) in m.arenas.enumerated() {
      for range in RateRange.of(arena, loraPlusRatio: loraPlusRatio) {
        let settings = AdamWSettings(learningRate: learningRate * range.factor, weightDecay: weightDecay, step: number)
        backend.adamW(
          &arena.values, gradient: arena.gradients, factor: factor, &m.vectors[i], &v.vectors[i], settings, range: range.elements)
      }
      backend.fill(0, &arena.gradients)
    }
  }
}
