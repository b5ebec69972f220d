/// What several adapters need of memory over one base, by arithmetic: without activations, which each row needs wherever it is computed.
///
///     together = base + Σ_a own_a        apart = Σ_a (base + own_a)
public struct SharedMemory: Equatable, Sendable {
  /// Bytes of the base.
  public var base: Double
  /// Bytes of each adapter with its gradients and moments.
  public var own: [Double]

  /// So many bytes of each.
  public init(base: Double, own: [Double]) { (self.base, self.own) = (base, own) }

  /// Bytes of all over one base.
  public var together: Double { base + own.reduce(0, +) }
  /// Bytes of all with a base each.
  public var apart: Double { Double(own.count) * base + own.reduce(0, +) }
  /// The share of memory that an adapter saves.
  public var saved: Double { 1 - together / apart }
}

extension Learner {
  /// Bytes of `count` trained numbers in single precision, with their gradients, in so many buffers, and the optimizer's moments.
  public func ownBytes(_ count: Int, gradientBuffers: Int) -> Int {
    let moments =
      switch recipe.optimizer {
      case .adamw: 8 * count
      case .adamw8bit: 2 * count + 8 * count / 256  // but for small parameters
      case .sgd: 4 * count
      }
    return 4 * count * (1 + gradientBuffers) + moments
  }
}
