/// What several adapters need of memory over one base, by arithmetic: without activations, which each row needs wherever it is computed.
///
///     together = shared + Σ_a own_a        apart = Σ_a (shared + own_a)
public struct SharedMemory: Equatable, Sendable {
  /// Bytes of what they share: the base, and what else is there once; ``MemoryPlan`` says what of a run's.
  public var shared: Double
  /// Bytes of each adapter with its gradients and moments; ``MemoryPlan`` counts them.
  public var own: [Double]

  /// So many bytes of each.
  public init(shared: Double, own: [Double]) { (self.shared, self.own) = (shared, own) }

  /// Bytes of all that share.
  public var together: Double { shared + own.reduce(0, +) }
  /// Bytes of all, each by itself.
  public var apart: Double { Double(own.count) * shared + own.reduce(0, +) }
  /// The share of memory that an adapter saves.
  public var saved: Double { 1 - together / apart }
}
