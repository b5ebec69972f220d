import Collectives
import Decoders
import Evaluation
import Layers
import Tensors

extension TrainingRun {
  /// Makes the step after ``step`` and gives the line of each learner that takes part in it.
  ///
  /// - Throws: `NonFiniteValue` naming the first tensor that is not finite, the parameters being as before the step; what the device
  ///   reports.
  func nextStep(_ clock: () -> Double) throws -> [(learner: Int, line: Metrics)] {
    let number = step + 1
    let training = TrainingStep(
      decoder, keys: learners.map { RandomKey(seed: $0.recipe.ownSeed) }, clips: learners.map(\.recipe.clip),
      recomputes: recomputation, ranks: ranks, on: backend)
    if !isWarm {
      try training.warmUp(
        longestMicroBatches(on: backend), microBatches: mostMicroBatches, validation: longestValidationBatches(on: backend))
    }
    isWarm = true
    let start = clock()
    for i in learners.indices { optimizers[i]?.learningRate = learners[i].learningRate(atStep: step) }
    let parts = learners.indices.map { learners[$0].microBatches(ofStep: step) }
    let (whole, own) = share(of: parts)
    let batches = own.map { packed(parts, $0) }
    let results = try training.run(batches, of: whole, number: number, &optimizers)
    let values = try backend.download(results.flatMap { $0?.tensors ?? [] }).map { $0.map { Double($0) } }
    let seconds = max(clock() - start, 1e-9)
    var rest = values[...]
    var lines: [(learner: Int, line: Metrics)] = []
    for (i, result) in results.enumerated() {
      guard let result else { continue }
      let own = Array(rest.prefix(result.tensors.count))
      rest = rest.dropFirst(own.count)
      let (loss, norm, auxiliary) = (own[0][0], own[1][0], result.balanceLoss == nil ? 0 : own[2][0])
      guard (loss + auxiliary).isFinite, norm.isFinite else {
        diverged = i
        throw try nonFinite(training, batches, whole, number, learners[i])
      }
      let load = own.suffix(result.expertCounts.count).map { counts in
        let slots = counts.reduce(0, +)
        return counts.map { slots > 0 ? $0 / slots : 0 }
      }
      let tokens = Int(whole.totals[i].tokens)
      var line = Metrics(
        step: number, loss: loss, auxLoss: auxiliary, learningRate: learners[i].learningRate(atStep: step), gradientNorm: norm,
        tokens: tokens, tokensPerSecond: Double(tokens) / seconds, expertLoad: load.isEmpty ? nil : load)
      line.adapter = learners[i].place
      lines.append((i, line))
    }
    for n in lines.indices where learners[lines[n].learner].validates(after: number) {
      let learner = learners[lines[n].learner]
      lines[n].line.validationLoss =
        try decoder.meanLoss(
          of: learner.validation, adapter: learner.number, batch: learner.recipe.microBatch, ranks: ranks, on: backend
        ).loss
    }
    return lines
  }

  /// The blocks that form their caches again in backward.
  private var recomputation: Recomputation {
    if let memory { return .first(memory.recomputedBlocks) }
    return recipe.recomputes ? .all : .none
  }

  private func nonFinite(
    _ training: TrainingStep<B>, _ batches: [PackedBatch<B>], _ whole: WholeStep, _ number: Int, _ learner: Learner<B>
  ) throws -> NonFiniteValue {
    NonFiniteValue(
      try training.findNonFinite(batches, of: whole, number: number) ?? "the gradient's norm",
      at: "step \(number)" + (learner.place.map { " of \($0)" } ?? ""),
      "is the first tensor with a value that is not finite; the parameters are those before the step")
  }

  /// A step of each learner's micro-batches, the n-th ones of all together, and which of them this rank computes.
  private func share(of parts: [[[PackedSequence]]]) -> (whole: WholeStep, own: Range<Int>) {
    let totals = parts.map { part in
      let sequences = part.joined()
      return StepTotals(
        labels: Double(sequences.reduce(0) { $0 + $1.labels.count { $0 != nil } }),
        tokens: Double(sequences.reduce(0) { $0 + $1.ids.count }))
    }
    let count = parts.map(\.count).max() ?? 0
    let own = SumTree(leaves: count).leaves(of: ranks.rank, of: ranks.size)
    return (WholeStep(microBatches: count, first: own.lowerBound, totals: totals), own)
  }

  /// The n-th micro-batches of all together: of each learner's, sequence by sequence, its samples numbered through.
  private func packed(_ parts: [[[PackedSequence]]], _ n: Int) -> PackedBatch<B> {
    let first = parts.map { $0.prefix(n).reduce(0) { $0 + $1.count } }
    return PackedBatch(parts.flatMap { n < $0.count ? $0[n] : [] }, firstSamples: first, on: backend)
  }

  /// The most micro-batches that a step has.
  var mostMicroBatches: Int { learners.map(\.recipe.accumulate).max() ?? 1 }

  /// Buffers of gradients that the sum over a step's micro-batches takes on one rank, a = `accumulate`: ⌈log₂ a⌉ + 1.
  public var gradientBuffers: Int { SumTree(leaves: mostMicroBatches).values }

  /// Everyone's longest samples together, so that what any step needs is there from the first one on.
  func longestMicroBatches<Device: Backend>(on device: Device) -> [PackedBatch<Device>] {
    let longest = learners.filter { $0.steps > step }.map(\.longestMicroBatches)
    let (byTokens, byLabels) = (longest.flatMap(\.byTokens), longest.flatMap(\.byLabels))
    return (byTokens == byLabels ? [byTokens] : [byTokens, byLabels]).map { PackedBatch($0, on: device) }
  }

  /// The longest samples of each validation together, as many as a micro-batch has.
  func longestValidationBatches<Device: Backend>(on device: Device) -> [PackedBatch<Device>] {
    learners.filter { !$0.validation.isEmpty }.map { learner in
      let longest = learner.validation.sorted { $0.ids.count > $1.ids.count }.prefix(learner.recipe.microBatch)
      return PackedBatch(longest.map { $0.sequence.serving(learner.number) }, on: device)
    }
  }
}

extension TrainingStep.Result {
  /// All of it, for one way to the host.
  fileprivate var tensors: [Tensor<B>] { [loss, gradientNorm] + (balanceLoss.map { [$0] } ?? []) + expertCounts }
}
