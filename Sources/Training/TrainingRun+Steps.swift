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
    if !isWarm { try training.warmUp(longestMicroBatches()) }
    isWarm = true
    let start = clock()
    let learningRate = recipe.schedule.learningRate(
      atStep: step, of: steps, warmup: Int((recipe.warmup * Double(steps)).rounded(.up)), base: recipe.learningRate)
    optimizer!.learningRate = learningRate
    let batches = batches(ofStep: step)
    let result = try training.run(batches, number: number, &optimizer!)
    let balance = result.balanceLoss.map { [$0] } ?? []
    let values = try backend.download([result.loss, result.gradientNorm] + balance + result.expertCounts).map { $0.map { Double($0) } }
    let (loss, norm, auxiliary) = (values[0][0], values[1][0], balance.isEmpty ? 0 : values[2][0])
    guard (loss + auxiliary).isFinite, norm.isFinite else {
      throw NonFiniteValue(
        try training.findNonFinite(batches, number: number) ?? "the gradient's norm", at: "step \(number)",
        "is the first tensor with a value that is not finite; the parameters are those before the step")
    }
    let load = values[(2 + balance.count)...].map { counts in
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

  /// The micro-batches of a step, their samples numbered through.
  private func batches(ofStep step: Int) -> [PackedBatch<B>] { packed(plan.microBatches(step: step)) }

  private func packed(_ parts: [[Int]]) -> [PackedBatch<B>] {
    var first = 0
    return parts.map { part in
      defer { first += part.count }
      return PackedBatch(part.map { samples[$0].sequence }, firstSample: first, on: backend)
    }
  }

  /// The longest samples together: no shuffle makes a micro-batch of more tokens, of more labels or of a longer sequence, so what any
  /// step needs is there from the first one on.
  private func longestMicroBatches() -> [PackedBatch<B>] {
    let size = min(recipe.batch / recipe.accumulate, samples.count)
    func longest(_ length: (EncodedSample) -> Int) -> [Int] {
      let lengths = samples.map(length)
      return Array(lengths.indices.sorted { (lengths[$0], $1) > (lengths[$1], $0) }.prefix(size))
    }
    let byTokens = longest { $0.ids.count }
    let byLabels = longest { $0.isLabel.count { $0 } }
    return packed(byTokens == byLabels ? [byTokens] : [byTokens, byLabels])
  }
}
