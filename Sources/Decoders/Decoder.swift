import Layers
import Tensors

/// A causal language model: embedding, blocks, norm, head; with adapters inside, with its base weights trained, or both.
///
///     x = embedding(ids)                        (N,C)
///     x = block(x), for every block             (N,C)
///     hidden = norm(x)                          (N,C)
///     loss = cross-entropy of head(hidden) + balance loss of the adapter's routers        for every adapter, over its own rows
///
/// A batch is N real tokens of packed sequences; padding does not exist in here. One pass is one call: ``loss(of:_:reading:)``, or with
/// backward ``gradients(of:_:dividing:recomputes:reading:)``.
public struct Decoder<B: Backend> {
  /// Sizes and rules.
  public let configuration: DecoderConfiguration
  /// The adapters, by number; one, several, or none.
  public let adapters: [Adapter<B>]
  /// The trained weights of the base; nil where it is frozen.
  public let base: TrainedPart<B>?
  /// From ids to the residual stream.
  public let embedding: Embedding<B>
  /// The blocks in order.
  public let blocks: [any DecoderBlock<B>]
  /// What the head reads is normalized by it.
  public let norm: RMSNorm<B>
  /// Logits and cross-entropy.
  public let head: LanguageModelHead<B>

  /// The settings of the first adapter; nil without one.
  public var adapter: AdapterConfiguration? { adapters.first?.configuration }
  /// What is trained, base first.
  public var trained: [TrainedPart<B>] { (base.map { [$0] } ?? []) + adapters.map(\.trained) }
  /// Every trained tensor by the name that files give it.
  public var trainedTensors: [TrainedTensor<B>] { trained.flatMap(\.tensors) }
  /// The parameters, each once.
  public var parameters: [Parameter<B>] { trained.flatMap(\.parameters) }
  /// The matrices of the blocks' linear layers, trained ones too, in the order of the model: what every token is multiplied with.
  public var blockMatrices: [Weight<B>] { blocks.flatMap { $0.linears.map(\.weight) } }

  /// What a forward pass keeps for backward.
  private struct Caches {
    var blocks: [BlockPass<B>]
    let norm: RMSNorm<B>.Cache
  }

  // MARK: One pass

  /// The losses of each adapter over its own rows (without an adapter one entry, over all rows); no gradient is formed.
  ///
  /// - Parameter look: sees the normalized residual stream (N,C) that the head reads.
  /// - Throws: the first error that a hook threw, and what `look` throws.
  public func loss(
    of batch: PackedBatch<B>, _ run: Run<B>, reading look: (_ hidden: Tensor<B>) throws -> Void = { _ in }
  ) throws -> [Losses<B>] {
    let hidden = forward(batch, run)  // (N,C)
    try run.throwFirstError()
    try look(hidden)
    let balances = balanceLosses(batch, run, StepTotals.own(of: batch, owners))
    let losses = (0..<owners).map { owner in
      Losses(
        crossEntropy: head.loss(hidden, batch.labels(of: owner), run), balance: balances[owner],
        expertCounts: run.loads.filter { $0.adapter == owner }.map(\.counts))
    }
    try run.finish()
    return losses
  }

  /// −log of the probability of every label of each adapter's rows, in order, on the host: for scoring answers. Without an adapter there
  /// is one list.
  ///
  /// - Throws: what the device reports, and the first error that a hook threw.
  public func labelLosses(of batch: PackedBatch<B>, _ run: Run<B>) throws -> [[B.Scalar]] {
    let hidden = forward(batch, run)  // (N,C)
    let losses = (0..<owners).map { head.losses(hidden, batch.labels(of: $0), run) }
    try run.finish()
    return try losses.map { try run.backend.download($0).flatMap { $0 } }
  }

  /// The losses, and their gradients added to those of everything trained.
  ///
  /// - Parameters:
  ///   - totals: for each adapter, of how many labels and tokens in the optimizer step this batch is a part; its own by default.
  ///   - recomputes: which blocks form their caches again in backward: less memory, more time, the same bits.
  ///   - look: sees the normalized residual stream (N,C) that the head reads.
  /// - Precondition: `totals` has an entry for each adapter, or one without any.
  /// - Throws: the first error that a hook threw, and what `look` throws.
  public func gradients(
    of batch: PackedBatch<B>, _ run: Run<B>, dividing totals: [StepTotals]? = nil, recomputes: Recomputation = .none,
    reading look: (_ hidden: Tensor<B>) throws -> Void = { _ in }
  ) throws -> [Losses<B>] {
    let totals = totals ?? StepTotals.own(of: batch, owners)
    var (hidden, caches) = forwardKeeping(batch, run, recomputes: recomputes)
    try run.throwFirstError()
    try look(hidden)
    // forward: loss = cross-entropy of head(hidden) + balance loss
    let balances = balanceLosses(batch, run, totals)
    var dhidden = run.backend.zeros(hidden.shape)  // (N,C)
    let crossEntropies = head.gradients(
      hidden, (0..<owners).map { (batch.labels(of: $0), totals[$0].labels) }, into: &dhidden, run)
    let losses = (0..<owners).map { owner in
      Losses(
        crossEntropy: crossEntropies[owner], balance: balances[owner], expertCounts: run.loads.filter { $0.adapter == owner }.map(\.counts))
    }
    // forward: hidden = norm(x)
    var dx: Tensor<B>?
    norm.backward(dhidden, caches.norm, into: &dx, run)  // (N,C)
    // forward: x = block(x), in reverse
    while let block = caches.blocks.popLast(), let dy = dx.take() { dx = block.backward(consume dy, batch, run) }  // (N,C)
    // forward: x = embedding(ids)
    if let dx { embedding.backward(dx, batch.ids, run) }
    try run.finish()
    return losses
  }

  /// The normalized residual stream that the head reads, (N,C); nothing is kept for a backward.
  ///
  /// The caller ends the run, and may read its `loads` before.
  ///
  /// - Parameter earlier: what each layer keeps of the rows before the batch's; the batch's rows join it.
  public func forward(_ batch: PackedBatch<B>, _ run: Run<B>, earlier: [KeyValueCache<B>]? = nil) -> Tensor<B> {
    var x = embedding.forward(batch.ids, run)  // (N,C)
    for (layer, block) in blocks.enumerated() { x = block.output(x, batch, run, earlier: earlier?[layer]) }  // (N,C)
    return norm.forward(x, run).y
  }

  /// The logits of rows of `hidden`: (n,C) → (n,V).
  public func logits(_ hidden: Tensor<B>, _ run: Run<B>) -> Tensor<B> { head.logits(hidden, run) }

  // MARK: Parts

  /// Adapters, or the base where there is none: who has losses.
  private var owners: Int { max(1, adapters.count) }

  private func forwardKeeping(_ batch: PackedBatch<B>, _ run: Run<B>, recomputes: Recomputation) -> (hidden: Tensor<B>, caches: Caches) {
    var passes: [BlockPass<B>] = []
    var x = embedding.forward(batch.ids, run)  // (N,C)
    for (layer, block) in blocks.enumerated() {
      let (y, pass) = block.pass(x, batch, run, recomputes: recomputes.contains(layer))  // (N,C)
      passes.append(pass)
      x = y
    }
    let (hidden, normCache) = norm.forward(x, run)  // (N,C)
    return (hidden, Caches(blocks: passes, norm: normCache))
  }

  /// Each adapter's balance loss (1), and in the run its gradients for the routers.
  private func balanceLosses(_ batch: PackedBatch<B>, _ run: Run<B>, _ totals: [StepTotals]) -> [Tensor<B>?] {
    (0..<owners).map { owner in
      let loads = run.loads.filter { $0.adapter == owner }
      guard owner < adapters.count, let balanceLoss = adapters[owner].balanceLoss, !loads.isEmpty else { return nil }
      let share = totals[owner].tokens > 0 ? Double(batch.rows(of: owner).count) / totals[owner].tokens : 0
      let (loss, balances) = balanceLoss.forward(loads, weight: share, run)
      for (load, balance) in zip(loads, balances) { run.balances[load.path] = balance }
      return loss
    }
  }
}

/// Which blocks keep only their input and the thin part of their caches, and form the rest again in backward: the first ones.
///
/// Backward comes to these last, when the caches of all others are gone, and forms the first of theirs where another's was. So of all
/// choices of as many blocks this one needs the least memory.
public enum Recomputation: Equatable, Sendable {
  /// No block.
  case none
  /// So many blocks, from the first on.
  case first(Int)
  /// Every block.
  case all

  /// Whether a block, counted from 0, is one of them.
  public func contains(_ block: Int) -> Bool {
    switch self {
    case .none: false
    case .first(let count): block < count
    case .all: true
    }
  }
}

/// What one pass leaves on the device of an adapter, or of the base where there is none.
public struct Losses<B: Backend> {
  /// The cross-entropy of the adapter's labeled rows, divided by their number in the step: (1).
  public let crossEntropy: Tensor<B>
  /// The balance loss, coefficient applied: (1); nil without a router.
  public let balance: Tensor<B>?
  /// How many rows each expert had, router by router: (E) each; empty without a router.
  public let expertCounts: [Tensor<B>]
}

/// Of how many labels and tokens a batch is a part: those of the optimizer step.
public struct StepTotals: Equatable, Sendable {
  /// Labelled rows, by which the cross-entropy is divided.
  public var labels: Double
  /// Tokens; the batch's share of them weighs its balance loss.
  public var tokens: Double

  /// So many of each.
  public init(labels: Double, tokens: Double) {
    self.labels = labels
    self.tokens = tokens
  }

  /// The totals of each adapter over the batches of a step.
  public static func of<B: Backend>(_ batches: [PackedBatch<B>], adapters: Int) -> [StepTotals] {
    (0..<max(1, adapters)).map { adapter in
      StepTotals(
        labels: Double(batches.reduce(0) { $0 + $1.labels(of: adapter).count }),
        tokens: Double(batches.reduce(0) { $0 + $1.rows(of: adapter).count }))
    }
  }

  fileprivate static func own<B: Backend>(of batch: PackedBatch<B>, _ owners: Int) -> [StepTotals] { of([batch], adapters: owners) }
}

/// A block's pass that waits for its backward, whatever the block's type.
private struct BlockPass<B: Backend> {
  let backward: (_ dy: consuming Tensor<B>, PackedBatch<B>, Run<B>) -> Tensor<B>
}

/// Holds a cache until backward takes it, so that what it holds is given back as it is used.
private final class Kept<Cache> {
  private var cache: Cache?

  init(_ cache: Cache) { self.cache = cache }

  func take() -> Cache {
    guard let taken = cache.take() else { trap("a block's backward runs twice") }
    return taken
  }
}

extension DecoderBlock {
  /// y alone.
  fileprivate func output(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>?) -> Tensor<B> {
    forward(x, batch, run, earlier: earlier).y
  }

  /// y, and what is needed to come back: the caches, or x and the thin part of them, from which they are formed again.
  fileprivate func pass(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, recomputes: Bool) -> (y: Tensor<B>, pass: BlockPass<B>) {
    let (y, cache) = forward(x, batch, run, earlier: nil)
    if recomputes {
      let thin = Kept(self.thin(cache))
      return (
        y,
        BlockPass { dy, batch, run in
          self.backward(consume dy, run.recomputing { self.cache(x, keeping: thin.take(), batch, run) }, batch, run)
        }
      )
    }
    let kept = Kept(cache)
    return (y, BlockPass { dy, batch, run in self.backward(consume dy, kept.take(), batch, run) })
  }
}
