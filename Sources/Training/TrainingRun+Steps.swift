import Decoders
import Evaluation
import Layers
import Samples
import Tensors

extension TrainingRun {
  /// The optimizer before its first step.
  func newOptimizer() -> any Optimizer<B> {
    switch recipe.optimizer {
    case .adamw:
      AdamW(
        decoder.parameters, learningRate: recipe.learningRate, weightDecay: recipe.weightDecay, loraPlusRatio: recipe.loraPlus, on: backend)
    case .sgd:
      SGD(
        decoder.parameters, learningRate: recipe.learningRate, weightDecay: recipe.weightDecay, momentum: recipe.momentum,
        loraPlusRatio: recipe.loraPlus, on: backend)
    }
  }

  /// Makes the step after ``step`` and gives its line.
  ///
  /// - Throws: `NonFiniteValue` naming the first tensor that is not finite, the parameters being as before the step; what the device
  ///   reports.
  func nextStep(_ clock: () -> Double) throws -> Metrics {
    let number = step + 1
    let training = TrainingStep(
      decoder, key: RandomKey(seed: recipe.seed), clip: recipe.clip, recomputes: recipe.recomputes, on: backend)
    if !isWarm { try training.warmUp(batches(ofStep: longestStep())) }
    isWarm = true
    let start = clock()
    let learningRate = recipe.schedule.learningRate(
      atStep: step, of: steps, warmup: Int((recipe.warmup * Double(steps)).rounded(.up)), base: recipe.learningRate)
    optimizer!.learningRate = learningRate
    let batches = batches(ofStep: step)
    let result = try training.run(batches, number: number, &optimizer!)
    let zero = backend.zeros(Shape(1))
    let values = try downloaded([result.loss, result.balanceLoss ?? zero, result.gradientNorm] + result.expertCounts)
    let (loss, auxiliary, norm) = (values[0][0], values[1][0], values[2][0])
    guard (loss + auxiliary).isFinite, norm.isFinite else {
      throw NonFiniteValue(
        try training.findNonFinite(batches, number: number) ?? "the gradient's norm", at: "step \(number)",
        "is the first tensor with a value that is not finite; the parameters are those before the step")
    }
    let load = values[3...].map { counts in
      let slots = counts.reduce(0, +)
      return counts.map { slots > 0 ? $0 / slots : 0 }
    }
    let tokens = batches.reduce(0) { $0 + $1.tokens }
    var line = Metrics(
      step: number, loss: loss, auxLoss: auxiliary, learningRate: learningRate, gradientNorm: norm, tokens: tokens,
      tokensPerSecond: Double(tokens) / max(clock() - start, 1e-9), expertLoad: load.isEmpty ? nil : load)
    if !validation.isEmpty, number == steps || number % (recipe.evaluateEvery ?? steps) == 0 {
      line.validationLoss = try decoder.meanLoss(of: validation, batch: recipe.batch, on: backend).loss
    }
    return line
  }

  /// The values of vectors, by one download.
  private func downloaded(_ vectors: [Tensor<B>]) throws -> [[Double]] {
    var packed = backend.empty(Shape(vectors.reduce(0) { $0 + $1.columnCount }))
    var start = 0
    for vector in vectors {
      backend.copy(vector, into: &packed, rows: nil, columns: start..<start + vector.columnCount)
      start += vector.columnCount
    }
    var values = try backend.download(packed).map { Double($0) }[...]
    return vectors.map { vector in
      defer { values = values.dropFirst(vector.columnCount) }
      return Array(values.prefix(vector.columnCount))
    }
  }

  /// The micro-batches of a step, their samples numbered through.
  private func batches(ofStep step: Int) -> [PackedBatch<B>] {
    var first = 0
    return plan.microBatches(step: step).map { part in
      defer { first += part.count }
      return PackedBatch(part.map { samples[$0].sequence }, firstSample: first, on: backend)
    }
  }

  /// The step of this epoch that has the longest micro-batch.
  private func longestStep() -> Int {
    let start = step / plan.stepsPerEpoch * plan.stepsPerEpoch
    var longest = (step: start, tokens: 0)
    for step in start..<start + plan.stepsPerEpoch {
      let tokens = plan.microBatches(step: step).map { $0.reduce(0) { $0 + samples[$1].ids.count } }.max() ?? 0
      if tokens > longest.tokens { longest = (step, tokens) }
    }
    return longest.step
  }
}
