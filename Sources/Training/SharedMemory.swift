/// What several adapters need of memory over one base, by arithmetic: without activations, which each row needs wherever it is computed.
///
///     together = base + Σ_a own_a        apart = Σ_a (base + own_a)
public struct SharedMemory: Equatable, Sendable {
  /// Bytes of the base.
  public var base: Double
  /// Bytes of each adapter with its gradients and moments; ``MemoryPlan`` counts them.
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
