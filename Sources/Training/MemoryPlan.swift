import Collectives
import Decoders
import Layers
import Samples
import Tensors
import Traces

/// What memory a run needs, by arithmetic, and which blocks it recomputes for that.
///
///     total = what is held before the first step + what the steps add
///
/// The steps add gradients, moments, caches, and what comes and goes between. How much, a warm-up over ``/Traces/ShapeBackend`` tells:
/// the same passes over the longest samples together, in which no number is computed, from a pool that grows by the rules of the real one.
public struct MemoryPlan: Equatable, Sendable {
  /// Bytes that are held before the first step: the process's, with what its threads may take, or the device's.
  public let held: Int
  /// How many of them learners share: the base, and what else is held, of a process its program, data and threads. It is what running
  /// each learner by itself would take once more.
  public let shared: Int
  /// Bytes of each learner's own: its values, its gradients in all buffers that a step takes, its moments.
  public let own: [Int]
  /// Bytes that the steps add.
  public let added: Int
  /// Blocks that form their caches again in backward, from the first one on.
  public let recomputedBlocks: Int
  /// Blocks of the model.
  public let blocks: Int

  /// Bytes of all.
  public var total: Int { held + added }
}

extension TrainingRun {
  /// What the run needs by its settings: under a budget with as few recomputed blocks as it has room for.
  ///
  /// - Parameter held: what is held before the first step.
  /// - Throws: `SettingsError` if there is no room with all of them recomputed.
  /// - Complexity: some passes without arithmetic.
  public func memoryPlan(held: HeldMemory) throws -> MemoryPlan {
    let blocks = decoder.blocks.count
    let (shared, own) = (held.bytes - writtenParameterCount * MemoryLayout<B.Scalar>.size, try ownBytes())
    func plan(_ recomputed: Int) throws -> MemoryPlan {
      MemoryPlan(
        held: held.bytes, shared: shared, own: own, added: try addedBytes(recomputing: recomputed), recomputedBlocks: recomputed,
        blocks: blocks)
    }
    guard let budget = recipe.memory else { return try plan(recipe.recomputes ? blocks : 0) }
    var (fewest, most) = (0, blocks)  // the more are recomputed, the less is needed
    while fewest < most {
      let middle = (fewest + most) / 2
      if try plan(middle).total <= budget { most = middle } else { fewest = middle + 1 }
    }
    let chosen = try plan(fewest)
    guard chosen.total <= budget else {
      // The next run may hold a little more.
      let safe = held.spread > 0 ? ", and \(chosen.total + held.spread) to be safe" : ""
      throw SettingsError(
        "\(setting: "memory") is \(budget) bytes, expected at least \(chosen.total)\(safe): with all \(blocks) blocks recomputed the steps add \(chosen.added) to the \(held.bytes) that are held before the first one with what threads will need\(held.spread > 0 ? ", a little more or less from run to run" : "")."
      )
    }
    return chosen
  }

  private func ownBytes() throws -> [Int] {
    let shapes = ShapeBackend()
    let model = try shape(on: shapes)
    return learners.map { learner in
      let moments = learner.newOptimizer(model, on: shapes).moments.reduce(0) { $0 + $1.value.shape.count }
      return MemoryLayout<B.Scalar>.size * (parameterCount(of: learner) * (1 + gradientBuffers) + moments)
    }
  }

  /// Bytes that the steps add where so many blocks are recomputed.
  func addedBytes(recomputing blocks: Int) throws -> Int {
    let shapes = ShapeBackend(like: backend, head: decoder.head.weight)
    let model = try shape(on: shapes)
    let before = shapes.counters.poolBytes
    var optimizers = learners.map { $0.newOptimizer(model, on: shapes) }
    for i in optimizers.indices { optimizers[i].step(1, factor: nil) }  // moments take memory from the first step on
    let step = TrainingStep(
      model, keys: learners.map { RandomKey(seed: $0.recipe.seed) }, clips: learners.map(\.recipe.clip), recomputes: .first(blocks),
      on: shapes)
    try step.warmUp(
      longestMicroBatches(on: shapes), microBatches: mostMicroBatches, validation: longestValidationBatches(on: shapes))
    // The first step writes the zeros of new B's, too.
    let unwritten = (parameterCount - writtenParameterCount) * MemoryLayout<B.Scalar>.size
    let rows = learners.flatMap { $0.samples + $0.validation }.map(\.ids.count).max() ?? 0
    // Ranks exchange the gradients of one arena at a time over the host: every node that is handed on, what comes and the sum.
    let nodes = ranks.size > 1 ? SumTree(leaves: mostMicroBatches).nodes(of: ranks.rank, of: ranks.size).count + 2 : 0
    let exchanged = nodes * MemoryLayout<B.Scalar>.size * (decoder.trained.map(\.arena.shape.count).max() ?? 0)
    return withExtendedLifetime(optimizers) { shapes.counters.poolBytes - before + unwritten + exchanged }
      + backend.scratchBytes(rows: rows, decoder.blockMatrices + [decoder.head.weight])
  }

  /// The model without numbers.
  private func shape(on shapes: ShapeBackend) throws -> Decoder<ShapeBackend> {
    let none = NoWeights(backend: shapes)
    let adapters = decoder.adapters.map { adapter in
      var settings = adapter.configuration
      settings.lora.initialization = .kaiming  // nothing is there to be factorized
      return AdapterSource<ShapeBackend>(settings, none)
    }
    return try Decoder(
      decoder.configuration, weights: none, adapters: adapters, trainsBase: decoder.base != nil, evaluation: recipe.evaluation,
      balanceLoss: recipe.routerLoss, on: shapes)
  }
}

/// Weights of which nothing is there but the shape.
private struct NoWeights: WeightSource {
  let backend: ShapeBackend

  func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) -> Tensor<ShapeBackend> { backend.empty(shape) }

  func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) -> ShapeBackend.Frozen {
    backend.freeze(UnsafeRawBufferPointer(start: nil, count: 0), .float32, shape)
  }
}
