import Layers
import Tensors

/// A causal language model: embedding, blocks, norm, head; with an adapter inside or with its base weights trained.
///
///     x = embedding(ids)                        (N,C)
///     x = block(x), for every block             (N,C)
///     hidden = norm(x)                          (N,C)
///     loss = cross-entropy of head(hidden) + balance loss of all routers
///
/// A batch is N real tokens of packed sequences; padding does not exist in here.
public struct Decoder<B: Backend> {
  /// Sizes and rules.
  public let configuration: DecoderConfiguration
  /// The adapter's settings, if there is one.
  public let adapter: AdapterConfiguration?
  /// Every trained tensor by the name that files give it, in the order of the model.
  public let trainedTensors: [TrainedTensor<B>]
  let embedding: Embedding<B>
  let blocks: [DecoderBlock<B>]
  let norm: RMSNorm<B>
  let head: LanguageModelHead<B>
  let balanceLoss: BalanceLoss<B>?

  /// The parameters, each once: what an optimiser updates.
  public var parameters: [Parameter<B>] {
    var seen: Set<ObjectIdentifier> = []
    return trainedTensors.map(\.parameter).filter { seen.insert(ObjectIdentifier($0)).inserted }
  }

  /// The matrices of the blocks' linear layers, in the order of the model: what every token has to be multiplied with.
  public var frozenMatrices: [Weight<B>] { blocks.flatMap(\.matrices) }
  /// The head's matrix (V,C).
  public var headMatrix: Weight<B> { head.weight }

  /// What a forward pass keeps for backward.
  public enum CachePolicy: Sendable {
    /// Nothing: no backward will follow.
    case none
    /// What each layer needs.
    case all
    /// The input of each block, from which backward forms the rest again: less memory, about a third more time, the same bits.
    case blockInputs
  }

  /// The end of a forward pass. Not copyable, so that backward is the only holder of the caches and frees each as it goes.
  public struct Output: ~Copyable {
    /// The normalised residual stream that the head reads: (N,C).
    public let hidden: Tensor<B>
    /// The balance loss (1), coefficient applied; nil without a router.
    public let balanceLoss: Tensor<B>?
    /// How many rows each expert had, layer by layer: (E) each; empty without a router.
    public let expertCounts: [Tensor<B>]
    let balances: [Tensor<B>]
    var cache: Cache?

    mutating func takeCache() -> Cache? { cache.take() }
  }

  struct Cache {
    var blocks: [DecoderBlock<B>.Cache]
    let norm: RMSNorm<B>.Cache
  }

  /// Runs the batch through the model, keeping what `caches` says for a backward to come.
  ///
  /// - Parameters:
  ///   - earlier: what each layer keeps of the rows before the batch's; the batch's rows join it. Then `caches` is `none`.
  ///   - balanceWeight: the batch's share of the step's tokens, with which its balance loss counts.
  public func forward(
    _ batch: PackedBatch<B>, _ run: Run<B>, caches keep: CachePolicy, earlier: [KeyValueCache<B>]? = nil, balanceWeight: Double = 1
  ) -> Output {
    if earlier != nil, keep != .none { trap("forward: no backward can follow where earlier rows are not formed again") }
    var caches: [DecoderBlock<B>.Cache] = []
    var loads: [Router<B>.Load] = []
    var x = embedding.forward(batch.ids, run)  // (N,C)
    for (layer, block) in blocks.enumerated() {
      let (y, load, cache) = block.forward(x, batch, run, earlier: earlier?[layer])  // (N,C)
      if let load { loads.append(load) }
      switch keep {
      case .none: break
      case .all: caches.append(.kept(cache))
      case .blockInputs: caches.append(.recomputed(x: x))
      }
      x = y
    }
    let (hidden, normCache) = norm.forward(x, run)  // (N,C)
    let balance = balanceLoss.map { $0.forward(loads, weight: balanceWeight, run) }
    return Output(
      hidden: hidden, balanceLoss: balance?.loss, expertCounts: loads.map(\.counts), balances: balance?.balances ?? [],
      cache: keep == .none ? nil : Cache(blocks: caches, norm: normCache))
  }

  /// The logits of every row: (N,C) → (N,V).
  public func logits(_ hidden: Tensor<B>, _ run: Run<B>) -> Tensor<B> { head.logits(hidden, run) }

  /// The logits (V) of each of some rows of `hidden` (N,C), on the host.
  ///
  /// - Throws: what the device reports.
  public func logits(_ hidden: Tensor<B>, rows: Indices<B>, _ run: Run<B>) throws -> [[B.Scalar]] {
    let values = try run.backend.download(logits(run.backend.gather(hidden, rows: rows), run))  // (n,V)
    let v = configuration.vocabulary
    return (0..<rows.count).map { Array(values[$0 * v..<($0 + 1) * v]) }
  }

  /// The mean cross-entropy over the labelled rows (1) and its gradient with respect to `hidden` (N,C).
  ///
  /// - Parameter labels: what the sum is divided by; the batch's own labelled rows unless it is one of several micro-batches.
  public func loss(_ hidden: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, labels: Double? = nil) -> (
    loss: Tensor<B>, dhidden: Tensor<B>
  ) {
    let (loss, dhidden) = head.loss(hidden, batch.labels, dividedBy: labels ?? Double(batch.labels.count), run)
    return (loss, dhidden)
  }

  /// The mean cross-entropy over the labelled rows (1), without any gradient: for evaluation.
  public func lossAlone(_ hidden: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    head.lossAlone(hidden, batch.labels, run)
  }

  /// −log of the probability of every label of the batch, in order: for scoring answers.
  ///
  /// - Throws: what the device reports.
  public func labelLosses(_ hidden: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) throws -> [B.Scalar] {
    try head.losses(hidden, batch.labels, run).flatMap { try run.backend.download($0) }
  }

  /// Adds the gradients of everything trained, from that of `hidden` (N,C) and of the balance loss.
  ///
  /// - Precondition: `output` comes from `forward` with caches, with the same batch and run.
  public func backward(_ dhidden: Tensor<B>, _ output: consuming Output, _ batch: PackedBatch<B>, _ run: Run<B>) {
    run.beginBackward()
    var balances = output.balances
    guard var cache = output.takeCache() else { trap("backward of a forward pass that kept no caches") }
    // forward: hidden = norm(x)
    var dx = run.backend.zeros(dhidden.shape)  // (N,C)
    norm.backward(dhidden, cache.norm, into: &dx, run)
    // forward: x = block(x), in reverse
    for block in blocks.reversed() {
      block.backward(&dx, balance: balances.popLast(), cache.blocks.removeLast(), batch, run)  // (N,C)
    }
    // forward: x = embedding(ids)
    embedding.backward(dx, batch.ids, run)
  }
}

/// A trained tensor as files know it: a parameter, or one expert's part of a parameter that holds all experts'.
public struct TrainedTensor<B: Backend> {
  /// Name in the adapter or checkpoint.
  public let name: String
  /// The parameter that holds it.
  public let parameter: Parameter<B>
  /// Which part of the parameter it is; nil for all of it.
  let part: (expert: Int, of: Int, axis: ExpertStack<B>.Axis)?

  /// This tensor's part of `whole`, which has the parameter's shape: its value, its gradient, a moment.
  public func view(of whole: Tensor<B>) -> Tensor<B> {
    guard let part else { return whole }
    return ExpertStack.block(part.expert, of: part.of, in: whole, along: part.axis)
  }

  /// Sets this tensor's part of the parameter to `value`, which has its shape.
  public func set(_ value: Tensor<B>, on backend: B) {
    guard let part else { return backend.copy(value, into: &parameter.value, rows: nil, columns: nil) }
    switch part.axis {
    case .rows:
      backend.copy(value, into: &parameter.value, rows: part.expert * value.rowCount..<(part.expert + 1) * value.rowCount, columns: nil)
    case .columns:
      backend.copy(
        value, into: &parameter.value, rows: nil, columns: part.expert * value.columnCount..<(part.expert + 1) * value.columnCount)
    }
  }
}
