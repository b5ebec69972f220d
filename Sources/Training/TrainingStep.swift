import Collectives
import Decoders
import Layers
import Tensors

/// One optimizer step: forward and backward over its micro-batches, and for each adapter clipping and update.
///
///     loss = Σ of the cross-entropies of all labeled rows / their number  +  Σ_m (n_m / n) aux_m
///     norm = √Σ ‖g‖²        factor = min(1, clip / (norm + 10⁻⁶))        update from factor · g
///
/// n_m real tokens of n are in micro-batch m. Losses and gradients of micro-batches are added in the order of a `SumTree`, whoever
/// computes them: one process, or ranks that exchange what they added. Adapters over one base share its products and nothing else: rows,
/// loss, norm, factor, optimizer and random masks are each one's own, so it learns what it would learn alone. Where there is none, the
/// base is trained.
///
/// Loss, norm and factor stay on the device: nothing waits inside a step. If one of them is not finite no update changes anything, of
/// whatever adapter; ``findNonFinite(_:of:number:)`` then runs the step again with a hook that looks and names the first such tensor.
public struct TrainingStep<B: Backend> {
  let decoder: Decoder<B>
  let backend: B
  let keys: [RandomKey]
  let ranks: any Collective
  private let clips: [Double]
  private let recomputes: Recomputation

  /// Steps of `decoder`, of one adapter or a trained base; `clip` is the largest norm of the gradient, 0 for no limit.
  public init(_ decoder: Decoder<B>, key: RandomKey, clip: Double = 1, recomputes: Recomputation = .none, on backend: B) {
    self.init(decoder, keys: [key], clips: [clip], recomputes: recomputes, on: backend)
  }

  /// Steps of `decoder`, with a key and a largest norm for each adapter; `ranks` share out a step's micro-batches.
  ///
  /// - Precondition: there are as many of both as adapters, or one without any; a base is trained alone or under one adapter.
  public init(
    _ decoder: Decoder<B>, keys: [RandomKey], clips: [Double], recomputes: Recomputation = .none, ranks: any Collective = Solo(),
    on backend: B
  ) {
    let count = max(1, decoder.adapters.count)
    guard keys.count == count, clips.count == count, count == 1 || decoder.base == nil else {
      trap("TrainingStep: \(keys.count) keys and \(clips.count) limits for \(decoder.adapters.count) adapters")
    }
    self.decoder = decoder
    self.backend = backend
    (self.keys, self.clips, self.recomputes, self.ranks) = (keys, clips, recomputes, ranks)
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
    let results = try results(batches, of: nil, number: number, onEnd: onEnd) { _, factor in optimizer.step(number, factor: factor) }
    onEnd(.update)
    return results[0]
  }

  /// Runs step `number` of several adapters and updates each by its optimizer.
  ///
  /// - Parameters:
  ///   - whole: the step that the batches are this rank's part of; nil if they are all of it.
  ///   - optimizers: one an adapter; nil where it takes no part and has no row in the batches.
  ///   - hooks: see the values of the passes.
  /// - Returns: a result for each of them, nil likewise.
  /// - Throws: what the device reports.
  public func run(
    _ batches: [PackedBatch<B>], of whole: WholeStep? = nil, number: Int, _ optimizers: inout [(any Optimizer<B>)?],
    hooks: [any Hook<B>] = [], onEnd: (Phase) -> Void = { _ in }
  ) throws -> [Result?] {
    let takesPart = optimizers.map { $0 != nil }
    for i in takesPart.indices where !takesPart[i] && batches.contains(where: { $0.labels(of: i).count > 0 }) {
      trap("TrainingStep: rows of adapter \(i), which takes no part")
    }
    let results = try results(batches, of: whole, number: number, hooks: hooks, onEnd: onEnd) { i, factor in
      optimizers[i]?.step(number, factor: factor)
    }
    onEnd(.update)
    return zip(results, takesPart).map { $1 ? $0 : nil }
  }

  private func results(
    _ batches: [PackedBatch<B>], of whole: WholeStep?, number: Int, hooks: [any Hook<B>] = [], onEnd: (Phase) -> Void,
    update: (_ owner: Int, _ factor: Tensor<B>) -> Void
  ) throws -> [Result] {
    let losses = try forwardBackward(batches, of: whole, number: number, hooks: hooks, onEnd: onEnd)
    let squared = losses.indices.map { squaredNorm(of: $0) }
    let judged = sum(losses, squared)
    return losses.enumerated().map { i, part in
      let (factor, norm) = backend.clipFactor(squared[i], loss: judged, maximum: clips[i])
      update(i, factor)
      return Result(loss: part.loss, balanceLoss: part.balance, expertCounts: part.counts, gradientNorm: norm)
    }
  }

  /// Runs forward and backward on batches at least as long as every step's and drops the result, so that no later step of so many
  /// micro-batches allocates a buffer; then forward on batches as long as every validation's, in what of these buffers is free.
  ///
  /// - Throws: what the device reports.
  public func warmUp(_ batches: [PackedBatch<B>], microBatches: Int = 1, validation: [PackedBatch<B>] = []) throws {
    let waiting = decoder.trained.map(\.arena.shape) + keys.indices.flatMap { figures(of: $0) }.map { Shape($0) }
    var sums = (0..<SumTree(leaves: microBatches).values - 1).flatMap { _ in waiting.map { backend.zeros($0) } }
    for i in sums.indices { backend.fill(1, &sums[i]) }  // as full as they are in a step
    for batch in batches {
      let losses = try leaf(batch, StepTotals.of([batch], adapters: keys.count), number: 0, hooks: [])
      _ = sum(losses, losses.indices.map { squaredNorm(of: $0) })
    }
    clearGradients()
    withExtendedLifetime(sums) {}
    backend.endWarmUp()
    for batch in validation { _ = try decoder.loss(of: batch, Run(backend)) }
  }

  /// The first tensor of step `number` that holds a value that is not finite, by its path; nil if there is none.
  ///
  /// Activations and their gradients come first, then `loss`, `aux_loss`, `grad.<name>` of a parameter and `grad_norm`; where there are
  /// several adapters, `adapter.<number>.` stands before these.
  ///
  /// - Throws: what the device reports.
  public func findNonFinite(_ batches: [PackedBatch<B>], of whole: WholeStep? = nil, number: Int) throws -> String? {
    let finder = NonFiniteFinder(on: backend)
    let losses = try forwardBackward(batches, of: whole, number: number, hooks: [finder])
    defer { clearGradients() }
    let lowest = try ranks.minimum(finder.first == nil ? .max : Int64(ranks.rank))  // who has the earliest micro-batch that has one
    if lowest < .max { return try ranks.broadcast(finder.first ?? "", from: Int(lowest)) }
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
  func trained(by owner: Int) -> [TrainedPart<B>] {
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
  private func sum(_ losses: [OwnLosses<B>], _ squared: [Tensor<B>]) -> Tensor<B> {
    var sum = backend.copy(losses[0].loss)
    for part in losses.dropFirst() { backend.add(1, part.loss, into: &sum) }
    for balance in losses.compactMap(\.balance) { backend.add(1, balance, into: &sum) }
    if squared.count > 1 { for square in squared { backend.add(1e-30, square, into: &sum) } }
    return sum
  }

  private func clearGradients() {
    for part in decoder.trained { backend.fill(0, &part.arena.gradients) }
  }

  /// Adds the gradients of the step to the parameters, those of all ranks.
  private func forwardBackward(
    _ batches: [PackedBatch<B>], of whole: WholeStep?, number: Int, hooks: [any Hook<B>], onEnd: (Phase) -> Void = { _ in }
  ) throws -> [OwnLosses<B>] {
    let whole = whole ?? WholeStep(of: batches, adapters: keys.count)
    var sums = TreeSums<StepSum<B>>()
    for (i, batch) in batches.enumerated() {
      // Nobody else may hold what is added to, so nothing here has a name.
      sums.add(
        StepSum(
          losses: try leaf(batch, whole.totals, number: number, hooks: hooks) { onEnd(.forward) },
          gradients: decoder.trained.map { $0.arena.takeGradients() }),
        at: SumTree.Node(leaf: whole.first + i), add)
      onEnd(.backward)
    }
    let total = try ranks.size > 1 ? exchanged(sums.nodes, of: whole.tree) : sums.root(add)
    guard let total else { return keys.map { _ in OwnLosses(loss: backend.zeros(Shape(1))) } }
    for (part, gradients) in zip(decoder.trained, total.gradients) { part.arena.putGradients(gradients) }
    return total.losses
  }

  /// Adds the gradients of a micro-batch to those that the arenas hold.
  private func leaf(
    _ batch: PackedBatch<B>, _ totals: [StepTotals], number: Int, hooks: [any Hook<B>], onForward: () -> Void = {}
  ) throws -> [OwnLosses<B>] {
    let run = Run(backend, training: TrainingPass(keys: keys, step: number), hooks: hooks)
    let losses = try decoder.gradients(of: batch, run, dividing: totals, recomputes: recomputes) { _ in onForward() }
    return losses.map { part in
      var own = OwnLosses(loss: backend.zeros(Shape(1)), counts: part.expertCounts)
      backend.add(1, part.crossEntropy, into: &own.loss)
      if let balance = part.balance { backend.add(balance, into: &own.balance) }
      return own
    }
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
