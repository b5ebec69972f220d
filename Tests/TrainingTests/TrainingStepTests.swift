import CPUBackend
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces
import Training

@Suite struct TrainingStepTests {
  let backend = CPUDouble(threads: 2, isPoisoned: true)
  typealias Named = Trace<Double>.NamedTensor

  private func values(_ decoder: Decoder<CPUDouble>) throws -> [Named] {
    try decoder.trainedTensors.map { tensor in
      let part = tensor.view(of: tensor.parameter.value)
      return Named(name: tensor.name, shape: part.shape.sizes, values: try backend.download(part))
    }
  }

  /// Loss, balance loss and gradient norm of `steps` steps over the batch, cut before the given samples, and the values after them.
  private func train(
    _ adapter: AdapterConfiguration, cutBefore cuts: [Int], sgd: Bool, steps: Int = 2, evaluation: ExpertEvaluation = .sharedBase,
    recomputes: Recomputation = .none
  ) throws -> [Named] {
    let decoder = try SmallModel.decoder(adapter, evaluation: evaluation, on: backend)
    let bounds = [0] + cuts + [SmallModel.sequences.count]
    let batches = zip(bounds, bounds.dropFirst()).map { from, to in
      PackedBatch(Array(SmallModel.sequences[from..<to]), firstSamples: [from], on: backend)
    }
    #expect(batches.count == cuts.count + 1)
    let step = TrainingStep(decoder, key: RandomKey(seed: 4), clip: 0.5, recomputes: recomputes, on: backend)
    var optimizer: any Optimizer<CPUDouble> =
      sgd
      ? SGD(decoder.parameters, learningRate: 0.05, momentum: 0.9, on: backend)
      : AdamW(decoder.parameters, learningRate: 1e-3, on: backend)
    var found: [Named] = []
    for number in 1...steps {
      let result = try step.run(batches, number: number, &optimizer)
      for (name, value) in [("loss", result.loss), ("balance", result.balanceLoss), ("norm", result.gradientNorm)] {
        if let value { found.append(Named(name: "\(number).\(name)", shape: [1], values: try backend.download(value))) }
      }
    }
    return try found + values(decoder)
  }

  /// Cross-entropy is a sum over the step's labeled columns, so it does not know where the step is cut; a sample's masks
  /// go with its number. One part here has no token, one no label.
  @Test(arguments: [0, 0.3], [true, false])
  func aStepInMicroBatchesIsTheStepOfOneBatch(_ dropout: Double, sgd: Bool) throws {
    let adapter = SmallModel.adapter(dropout: dropout, coefficient: 0)
    let whole = try train(adapter, cutBefore: [], sgd: sgd)
    for cuts in [[2], [3], [1, 2, 3]] {
      let agreement = Agreement(of: try train(adapter, cutBefore: cuts, sgd: sgd), with: whole)
      #expect(agreement.holds(to: 1e-13), "\(cuts): \(agreement)")
    }
  }

  @Test func plainLoRAsStepKnowsNoCutEither() throws {
    var adapter = SmallModel.adapter(dropout: 0.3)
    adapter.mixture = nil
    let agreement = Agreement(of: try train(adapter, cutBefore: [2], sgd: true), with: try train(adapter, cutBefore: [], sgd: true))
    #expect(agreement.holds(to: 1e-13), "\(agreement)")
  }

  @Test(arguments: ExpertEvaluation.allCases) func aStepThatRecomputesHasTheSameBits(_ evaluation: ExpertEvaluation) throws {
    func bits(_ recomputes: Recomputation) throws -> [[Double]] {
      try train(
        SmallModel.adapter(dropout: 0.3), cutBefore: [2], sgd: false, evaluation: evaluation, recomputes: recomputes
      ).map(\.values)
    }
    let kept = try bits(.none)
    for recomputes in [Recomputation.first(1), .first(2), .all] { #expect(try bits(recomputes) == kept) }
  }

  /// A product of means depends on the cut: Σ_m (n_m/n) aux_m, and gradients alike; here by its own formula from passes
  /// over each part, with and without the balance loss.
  @Test(arguments: BalanceLossForm.allCases)
  func theBalanceLossOfAStepIsWeightedByItsPartsTokens(_ form: BalanceLossForm) throws {
    let parts = [Array(SmallModel.sequences[..<2]), Array(SmallModel.sequences[2...])]
    let tokens = parts.map { Double($0.reduce(0) { $0 + $1.ids.count }) }
    let labels = parts.map { Double($0.reduce(0) { $0 + $1.labels.count { $0 != nil } }) }
    func decoder(_ coefficient: Double) throws -> Decoder<CPUDouble> {
      try SmallModel.decoder(SmallModel.adapter(coefficient: coefficient), balanceLoss: form, on: backend)
    }
    func pass(_ coefficient: Double, _ part: [PackedSequence]) throws -> [Named] {
      try SmallModel.trainingTensors(decoder(coefficient), sequences: part, on: backend)
    }
    let (with, without) = (try parts.map { try pass(2, $0) }, try parts.map { try pass(0, $0) })
    func weighted(_ i: Int) -> [Double] {  // Σ (l_m/l) ce_m + (n_m/n) aux_m, of the i-th tensor
      with[0][i].values.indices.map { j in
        (0..<2).reduce(0.0) { sum, m in
          let crossEntropy = without[m][i].values[j]
          return sum + labels[m] / (labels[0] + labels[1]) * crossEntropy
            + tokens[m] / (tokens[0] + tokens[1]) * (with[m][i].values[j] - crossEntropy)
        }
      }
    }
    // One step of plain descent with rate 1 leaves x − g.
    let trained = try decoder(2)
    let before = try values(trained)
    var optimizer = SGD(trained.parameters, learningRate: 1, on: backend)
    let step = TrainingStep(trained, key: RandomKey(seed: 4), clip: 0, on: backend)
    let result = try step.run(parts.map { PackedBatch($0, on: backend) }, number: 1, &optimizer)
    let after = try values(trained)
    var found: [Named] = []
    var expected: [Named] = []
    for (i, tensor) in with[0].enumerated() where tensor.name.hasPrefix("grad.") {
      let name = String(tensor.name.dropFirst(5))
      let (x, y) = (try #require(before.first { $0.name == name }), try #require(after.first { $0.name == name }))
      found.append(Named(name: tensor.name, shape: x.shape, values: x.values.indices.map { x.values[$0] - y.values[$0] }))
      expected.append(Named(name: tensor.name, shape: x.shape, values: weighted(i)))
    }
    let agreement = Agreement(of: found, with: expected)
    #expect(agreement.count > 80 && agreement.holds(to: 1e-12), "\(agreement)")
    let auxiliary = try #require(with[0].firstIndex { $0.name == "aux_loss" })
    let balance = try backend.download(#require(result.balanceLoss))[0]
    #expect(abs(balance - weighted(auxiliary)[0]) <= 1e-14)
    let whole = try #require(pass(2, SmallModel.sequences).first { $0.name == "aux_loss" }).values[0]
    #expect(abs(balance - whole) > 1e-3, "the split made no difference, so nothing was shown")
    let loss = try #require(with[0].firstIndex { $0.name == "loss" })
    let crossEntropy = (0..<2).reduce(0.0) { $0 + labels[$1] / (labels[0] + labels[1]) * with[$1][loss].values[0] }
    #expect(abs(try backend.download(result.loss)[0] - crossEntropy) <= 1e-14)
    let norm = expected.reduce(0.0) { $0 + $1.values.reduce(0) { $0 + $1 * $1 } }.squareRoot()
    #expect(abs(try backend.download(result.gradientNorm)[0] - norm) <= 1e-12 * norm)
  }

  // MARK: Steps that are not finite

  /// Puts `value` into the first element of a trained tensor.
  private func put<B: Backend>(_ value: B.Scalar, into name: String, of decoder: Decoder<B>, on backend: B) throws {
    let trained = try #require(decoder.trainedTensors.first { $0.name == name })
    var values = try backend.download(trained.parameter.value)
    values[trained.view(of: trained.parameter.value).offset - trained.parameter.value.offset] = value
    trained.parameter.value = backend.upload(values, trained.parameter.value.shape)
  }

  @Test(arguments: [
    ("mixlora.layers.1.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.q_proj.output"),
    ("mixlora.layers.0.mlp.moe_gate.weight", "model.layers.0.mlp.moe_gate.output"),
    ("mixlora.layers.2.self_attn.o_proj.lora_B.weight", "model.layers.2.self_attn.o_proj.output"),
  ])
  func aStepThatIsNotFiniteChangesNothingAndItsFirstTensorIsNamed(_ tensor: String, _ path: String) throws {
    let batches = [PackedBatch(SmallModel.sequences, on: backend)]
    /// A good step, perhaps a bad one, and another good one: with SGD, whose moments show in the next step.
    func run(bad: Bool) throws -> [[Double]] {
      let decoder = try SmallModel.decoder(SmallModel.adapter(dropout: 0.2), on: backend)
      let step = TrainingStep(decoder, key: RandomKey(seed: 4), on: backend)
      var optimizer = SGD(decoder.parameters, learningRate: 0.01, weightDecay: 0.1, momentum: 0.9, on: backend)
      _ = try step.run(batches, number: 1, &optimizer)
      #expect(try step.findNonFinite(batches, number: 1) == nil)
      if bad {
        let good = try decoder.parameters.map { try backend.download($0.value) }
        try put(.infinity, into: tensor, of: decoder, on: backend)
        let before = try values(decoder).map(\.values)
        let result = try step.run(batches, number: 2, &optimizer)
        let numbers = [result.loss, try #require(result.balanceLoss), result.gradientNorm]
        #expect(try numbers.contains { try !backend.download($0)[0].isFinite })
        #expect(try values(decoder).map(\.values) == before)
        #expect(try step.findNonFinite(batches, number: 2) == path)
        #expect(try decoder.parameters.allSatisfy { try backend.download($0.gradient).allSatisfy { $0 == 0 } })
        for (parameter, values) in zip(decoder.parameters, good) { parameter.value = backend.upload(values, parameter.value.shape) }
      }
      _ = try step.run(batches, number: 3, &optimizer)
      return try values(decoder).map(\.values)
    }
    #expect(try run(bad: true) == run(bad: false))
  }

  /// Everything is finite but the norm: B is 0, so a huge A shows in the gradient of B alone, whose square overflows float32.
  @Test func aNormThatOverflowsChangesNothingAndIsNamedToo() throws {
    let backend = CPUFloat(threads: 1)
    let name = "mixlora.layers.1.self_attn.q_proj.lora_A.weight"
    let decoder = try SmallModel.decoder(
      SmallModel.adapter(), edit: { name, original in name.contains("lora_B") ? try original(name).map { _ in 0 } : nil }, on: backend)
    try put(1e25, into: name, of: decoder, on: backend)
    let batches = [PackedBatch(SmallModel.sequences, on: backend)]
    let step = TrainingStep(decoder, key: RandomKey(seed: 4), on: backend)
    var optimizer = SGD(decoder.parameters, learningRate: 0.01, on: backend)
    let before = try decoder.parameters.map { try backend.download($0.value) }
    let result = try step.run(batches, number: 1, &optimizer)
    #expect(try backend.download(result.loss)[0].isFinite)
    #expect(try !backend.download(result.gradientNorm)[0].isFinite)
    #expect(try decoder.parameters.map { try backend.download($0.value) } == before)
    #expect(try step.findNonFinite(batches, number: 1) == "grad_norm")
  }
}
