import Decoders
import Layers
import Tensors

/// One optimizer step: forward and backward over its micro-batches, and for each adapter clipping and update.
///
///     loss = Σ of the cross-entropies of all labeled rows / their number  +  Σ_m (n_m / n) aux_m
///     norm = √Σ ‖g‖²        factor = min(1, clip / (norm + 10⁻⁶))        update from factor · g
///
/// n_m real tokens of n are in micro-batch m. Adapters over one base share its products and nothing else: rows, loss, norm, factor,
/// optimizer and random masks are each one's own, so it learns what it would learn alone. Where there is none, the base is trained.
///
/// Loss, norm and factor stay on the device: nothing waits inside a step. If one of them is not finite no update changes anything, of
/// whatever adapter; ``findNonFinite(_:number:)`` then runs the step again with a hook that looks and names the first such tensor.
public struct TrainingStep<B: Backend> {
  private let decoder: Decoder<B>
  private let backend: B
  private let keys: [RandomKey]
  private let clips: [Double]
  private let recomputes: Bool

  /// Steps of `decoder`, of one adapter or a trained base; `clip` is the largest norm of the gradient, 0 for no limit.
  public init(_ decoder: Decoder<B>, key: RandomKey, clip: Double = 1, recomputes: Bool = false, on backend: B) {
    self.init(decoder, keys: [key], clips: [clip], recomputes: recomputes, on: backend)
  }

  /// Steps of `decoder`, with a key and a largest norm for each adapter.
  ///
  /// - Precondition: there are as many of both as adapters, or one without any; a base is trained alone or under one adapter.
  public init(_ decoder: Decoder<B>, keys: [RandomKey], clips: [Double], recomputes: Bool = false, on backend: B) {
    let count = max(1, decoder.adapters.count)
    guard keys.count == count, clips.count == count, count == 1 || decoder.base == nil else {
      trap("TrainingStep: \(keys.count) keys and \(clips.count) limits for \(decoder.adapters.count) adapters")
    }
    self.decoder = decoder
    self.backend = backend
    (self.keys, self.clips, self.recomputes) = (keys, clips, recomputes)
  }

  /// What a step leaves on the device of an adapter, vectors of one element each.
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

  /// Runs step `number` (counted from 1, the counter of random masks) and updates what the optimizer is of.
  ///
  /// - Parameter onEnd: hears the end of each phase, forward and backward once a micro-batch.
  /// - Precondition: the model has one adapter, or a trained base.
  /// - Throws: what the device reports.
  public func run(
    _ batches: [PackedBatch<B>], number: Int, _ optimizer: inout some Optimizer<B>, onEnd: (Phase) -> Void = { _ in }
  ) throws -> Result {
    let results = try results(batches, number: number, onEnd: onEnd) { _, factor in optimizer.step(number, factor: factor) }
    onEnd(.update)
    return results[0]
  }

  /// Runs step `number` of several adapters and updates each by its optimizer.
  ///
  /// - Parameter optimizers: one an adapter; nil where it takes no part and has no row in the batches.
  /// - Returns: a result for each of them, nil likewise.
  /// - Throws: what the device reports.
  public func run(
    _ batches: [PackedBatch<B>], number: Int, _ optimizers: inout [(any Optimizer<B>)?], onEnd: (Phase) -> Void = { _ in }
  ) throws -> [Result?] {
    let takesPart = optimizers.map { $0 != nil }
    for i in takesPart.indices where !takesPart[i] && batches.contains(where: { $0.labels(of: i).count > 0 }) {
      trap("TrainingStep: rows of adapter \(i), which takes no part")
    }
    let results = try results(batches, number: number, onEnd: onEnd) { i, factor in optimizers[i]?.step(number, factor: factor) }
    onEnd(.update)
    return zip(results, takesPart).map { $1 ? $0 : nil }
  }

  private func results(
    _ batches: [PackedBatch<B>], number: Int, onEnd: (Phase) -> Void, update: (_ owner: Int, _ factor: Tensor<B>) -> Void
  ) throws -> [Result] {
    let losses = try forwardBackward(batches, number: number, hooks: [], onEnd: onEnd)
    let squared = losses.indices.map { squaredNorm(of: $0) }
    let judged = sum(losses, squared)
    return losses.enumerated().map { i, part in
      let (factor, norm) = backend.clipFactor(squared[i], loss: judged, maximum: clips[i])
      update(i, factor)
      return Result(loss: part.loss, balanceLoss: part.balance, expertCounts: part.counts, gradientNorm: norm)
    }
  }

  /// Runs forward and backward on batches at least as long as every step's and drops the result, so that no later step allocates a
  /// buffer.
  ///
  /// - Throws: what the device reports.
  public func warmUp(_ batches: [PackedBatch<B>]) throws {
    let losses = try forwardBackward(batches, number: 0, hooks: [])
    _ = sum(losses, losses.indices.map { squaredNorm(of: $0) })
    clearGradients()
    backend.endWarmUp()
  }

  /// The first tensor of step `number` that holds a value that is not finite, by its path; nil if there is none.
  ///
  /// Activations and their gradients come first, then `loss`, `aux_loss`, `grad.<name>` of a parameter and `grad_norm`; where there are
  /// several adapters, `adapter.<number>.` stands before these.
  ///
  /// - Throws: what the device reports.
  public func findNonFinite(_ batches: [PackedBatch<B>], number: Int) throws -> String? {
    let finder = NonFiniteFinder(on: backend)
    let losses = try forwardBackward(batches, number: number, hooks: [finder])
    defer { clearGradients() }
    if let first = finder.first { return first }
    for (i, part) in losses.enumerated() {
      let prefix = losses.count > 1 ? "adapter.\(i)." : ""
      for (name, value) in [("loss", part.loss), ("aux_loss", part.balance)] {
        if let value, try !backend.download(value)[0].isFinite { return prefix + name }
      }
      for parameter in trained(by: i).flatMap(\.parameters) {
        if try backend.download(parameter.gradient).contains(where: { !$0.isFinite }) { return prefix + "grad." + parameter.name }
      }
      // Squares of finite numbers may overflow.
      if try !backend.download(squaredNorm(of: i))[0].isFinite { return prefix + "grad_norm" }
    }
    return nil
  }

  // MARK: Parts

  /// What belongs to an adapter; with one or none everything trained does.
  private func trained(by owner: Int) -> [TrainedPart<B>] {
    decoder.adapters.count > 1 ? [decoder.adapters[owner].trained] : decoder.trained
  }

  /// Σ ‖g‖² over an adapter's parameters: (1).
  private func squaredNorm(of owner: Int) -> Tensor<B> {
    var squared = backend.zeros(Shape(1))
    for part in trained(by: owner) { backend.add(1, backend.dot(part.arena.gradients, part.arena.gradients), into: &squared) }
    return squared
  }

  /// A number that is finite if all losses and all other norms are: (1). Squares are made small, so that a sum of finite ones does not
  /// overflow.
  private func sum(_ losses: [OwnLosses], _ squared: [Tensor<B>]) -> Tensor<B> {
    var sum = backend.copy(losses[0].loss)
    for part in losses.dropFirst() { backend.add(1, part.loss, into: &sum) }
    for balance in losses.compactMap(\.balance) { backend.add(1, balance, into: &sum) }
    if squared.count > 1 { for square in squared { backend.add(1e-30, square, into: &sum) } }
    return sum
  }

  private func clearGradients() {
    for part in decoder.trained { backend.fill(0, &part.arena.gradients) }
  }

  /// What the micro-batches of a step come to for an adapter.
  private struct OwnLosses {
    var loss: Tensor<B>
    var balance: Tensor<B>?
    var counts: [Tensor<B>] = []
  }

  /// Adds the gradients of the step to the parameters.
  private func forwardBackward(
    _ batches: [PackedBatch<B>], number: Int, hooks: [any Hook<B>], onEnd: (Phase) -> Void = { _ in }
  ) throws -> [OwnLosses] {
    let totals = StepTotals.of(batches, adapters: keys.count)
    var found = keys.map { _ in OwnLosses(loss: backend.zeros(Shape(1))) }
    for batch in batches {
      let run = Run(backend, training: TrainingPass(keys: keys, step: number), hooks: hooks)
      let losses = try decoder.gradients(of: batch, run, dividing: totals, recomputes: recomputes) { _ in onEnd(.forward) }
      onEnd(.backward)
      for (i, part) in losses.enumerated() {
        backend.add(1, part.crossEntropy, into: &found[i].loss)
        if let balance = part.balance { backend.add(balance, into: &found[i].balance) }
        if found[i].counts.isEmpty {
          found[i].counts = part.expertCounts
        } else {
          for (layer, counts) in part.expertCounts.enumerated() { backend.add(1, counts, into: &found[i].counts[layer]) }
        }
      }
    }
    return found
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
