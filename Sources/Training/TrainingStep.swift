import Decoders
import Layers
import Tensors

/// One optimizer step: forward and backward over its micro-batches, clipping, update.
///
///     loss = Σ of the cross-entropies of all labeled rows / their number  +  Σ_m (n_m / n) aux_m
///     norm = √Σ ‖g‖²        factor = min(1, clip / (norm + 10⁻⁶))        update from factor · g
///
/// n_m real tokens of n are in micro-batch m. Loss, norm and factor stay on the device: nothing waits inside a step.
/// If loss or norm is not finite the update changes nothing; ``findNonFinite(_:number:)`` then runs the step again with a
/// hook that looks and names the first such tensor.
///
/// The model has one adapter, or none and a trained base.
public struct TrainingStep<B: Backend> {
  private let decoder: Decoder<B>
  private let backend: B
  private let key: RandomKey
  private let recomputes: Bool
  private let clip: Double

  /// Steps of `decoder`; `clip` is the largest norm of the gradient, 0 for no limit.
  public init(_ decoder: Decoder<B>, key: RandomKey, clip: Double = 1, recomputes: Bool = false, on backend: B) {
    self.decoder = decoder
    self.backend = backend
    self.key = key
    self.clip = clip
    self.recomputes = recomputes
  }

  /// What a step leaves on the device, vectors of one element each.
  public struct Result {
    /// The mean cross-entropy of the labeled rows.
    public let loss: Tensor<B>
    /// The balance loss, coefficient applied; nil without a router.
    public let balanceLoss: Tensor<B>?
    /// How many rows each expert had, layer by layer: (E) each; empty without a router.
    public let expertCounts: [Tensor<B>]
    /// The norm of the gradient before clipping.
    public let gradientNorm: Tensor<B>
  }

  /// The parts of a step that a clock may tell apart.
  public enum Phase: Sendable, CaseIterable {
    /// Up to the hidden rows that the head reads.
    case forward
    /// The head, and everything on the way back.
    case backward
    /// Norm, clipping and update.
    case update
  }

  /// Runs step `number` (counted from 1, the counter of random masks) and updates.
  ///
  /// - Parameter onEnd: hears the end of each phase, forward and backward once a micro-batch.
  /// - Throws: what the device reports.
  public func run(
    _ batches: [PackedBatch<B>], number: Int, _ optimizer: inout some Optimizer<B>, onEnd: (Phase) -> Void = { _ in }
  ) throws -> Result {
    let (loss, balance, counts) = try forwardBackward(batches, number: number, hooks: [], onEnd: onEnd)
    let squared = squaredNorm()
    var total = backend.copy(loss)
    if let balance { backend.add(1, balance, into: &total) }
    let (factor, norm) = backend.clipFactor(squared, loss: total, maximum: clip)
    optimizer.step(number, factor: factor)
    onEnd(.update)
    return Result(loss: loss, balanceLoss: balance, expertCounts: counts, gradientNorm: norm)
  }

  /// Runs forward and backward on batches at least as long as every step's and drops the result, so that no later step allocates a
  /// buffer.
  ///
  /// - Throws: what the device reports.
  public func warmUp(_ batches: [PackedBatch<B>]) throws {
    _ = try forwardBackward(batches, number: 0, hooks: [])
    _ = squaredNorm()
    clearGradients()
    backend.endWarmUp()
  }

  /// The first tensor of step `number` that holds a value that is not finite, by its path; nil if there is none.
  ///
  /// Activations and their gradients come first, then `loss`, `aux_loss`, `grad.<name>` of a parameter and `grad_norm`.
  ///
  /// - Throws: what the device reports.
  public func findNonFinite(_ batches: [PackedBatch<B>], number: Int) throws -> String? {
    let finder = NonFiniteFinder(on: backend)
    let (loss, balance, _) = try forwardBackward(batches, number: number, hooks: [finder])
    defer { clearGradients() }
    if let first = finder.first { return first }
    for (name, value) in [("loss", loss), ("aux_loss", balance)] {
      if let value, try !backend.download(value)[0].isFinite { return name }
    }
    for parameter in decoder.parameters where try backend.download(parameter.gradient).contains(where: { !$0.isFinite }) {
      return "grad." + parameter.name
    }
    return try backend.download(squaredNorm())[0].isFinite ? nil : "grad_norm"  // squares of finite numbers may overflow
  }

  /// Σ ‖g‖² over all parameters: (1).
  private func squaredNorm() -> Tensor<B> {
    var squared = backend.zeros(Shape(1))
    for part in decoder.trained { backend.add(1, backend.dot(part.arena.gradients, part.arena.gradients), into: &squared) }
    return squared
  }

  private func clearGradients() {
    for part in decoder.trained { backend.fill(0, &part.arena.gradients) }
  }

  /// Adds the gradients of the step to the parameters.
  private func forwardBackward(
    _ batches: [PackedBatch<B>], number: Int, hooks: [any Hook<B>], onEnd: (Phase) -> Void = { _ in }
  ) throws -> (loss: Tensor<B>, balance: Tensor<B>?, counts: [Tensor<B>]) {
    guard decoder.adapters.count <= 1 else { trap("TrainingStep: the model has \(decoder.adapters.count) adapters, expected one") }
    let totals = StepTotals.of(batches, adapters: 1)
    var loss = backend.zeros(Shape(1))
    var balance: Tensor<B>?
    var counts: [Tensor<B>] = []
    for batch in batches {
      let run = Run(backend, training: TrainingPass(key: key, step: number), hooks: hooks)
      let losses = try decoder.gradients(of: batch, run, dividing: totals, recomputes: recomputes) { _ in onEnd(.forward) }[0]
      onEnd(.backward)
      backend.add(1, losses.crossEntropy, into: &loss)
      if let part = losses.balance { backend.add(part, into: &balance) }
      if counts.isEmpty {
        counts = losses.expertCounts
      } else {
        for (layer, part) in losses.expertCounts.enumerated() { backend.add(1, part, into: &counts[layer]) }
      }
    }
    return (loss, balance, counts)
  }
}

/// Looks at every value of a run until one is not finite.
final class NonFiniteFinder<B: Backend>: Hook {
  private(set) var first: String?
  private let backend: B

  init(on backend: B) { self.backend = backend }

  func listens(to path: String) -> Bool { first == nil }

  func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {
    if first == nil, try backend.download(value).contains(where: { !$0.isFinite }) { first = point.description }
  }
}
