import CPUBackend
import Conformance
import Decoders
import MixLoRA
import Tensors
import Testing
import Traces

@Suite struct EvaluationTests {
  @Test(arguments: Golden.cases, [1, 2, 3])
  func theEvaluationsAgreeInEveryTensorWithAnyNumberOfThreads(_ name: String, threads: Int) throws {
    let shared = try Golden.trace(name, evaluation: .sharedBase, on: CPUDouble(threads: threads))
    let definition = try Golden.trace(name, evaluation: .perExpert, on: CPUDouble(threads: 1))
    let now = Agreement(
      of: shared.tensors.only("logits", "loss", "aux", "router", "grad."),
      with: definition.tensors.only("logits", "loss", "aux", "router", "grad."))
    #expect(now.holds(to: 1e-12), "\(now)")
  }

  @Test(arguments: [1, 2, 3])
  func theSameRunGivesTheSameBits(_ threads: Int) throws {
    func bits() throws -> [[UInt32]] {
      try Golden.trace("topk", on: CPUFloat(threads: threads)).tensors.map { $0.values.map(\.bitPattern) }
    }
    let first = try bits()
    for _ in 0..<3 { #expect(try bits() == first) }
  }

  /// Biases, dropout, rank-stabilised branches and every kind of target, which the golden cases leave out.
  @Test(arguments: [
    ["q_proj"], ["gate_proj"], ["up_proj"], ["down_proj"], ["gate_proj", "down_proj"], [],
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
  ])
  func theEvaluationsAgreeUnderDropoutWithBiasesAndAnyTargets(_ targets: [String]) throws {
    func gradients(_ evaluation: ExpertEvaluation) throws -> [Trace<Double>.NamedTensor] {
      let backend = CPUDouble(threads: 2, isPoisoned: true)
      let decoder = try SmallModel.decoder(targets: targets, dropout: 0.3, evaluation: evaluation, on: backend)
      return try SmallModel.trainingTensors(decoder, on: backend)
    }
    let agreement = Agreement(of: try gradients(.sharedBase), with: try gradients(.perExpert))
    #expect(agreement.holds(to: 1e-12), "\(agreement)")
  }
}

/// A model with everything that the golden ones lack: biases, three layers, odd sizes.
enum SmallModel {
  static var configuration: DecoderConfiguration {
    get throws {
      try DecoderConfiguration(
        [
          "model_type": "llama", "hidden_size": 12, "intermediate_size": 19, "num_hidden_layers": 3, "num_attention_heads": 3,
          "num_key_value_heads": 1, "vocab_size": 23, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
        ], file: "small model")
    }
  }

  static let sequences = [
    PackedSequence(ids: [3, 1, 4, 1, 5], labels: [1, 4, nil, 5, nil]),
    PackedSequence(ids: [], labels: []),
    PackedSequence(ids: [9, 2, 6, 5, 3, 5, 8], firstPosition: 2, labels: [2, nil, 5, 3, 5, 8, nil]),
    PackedSequence(ids: [7], labels: [nil]),
  ]

  static func decoder<B: Backend>(
    targets: [String] = LinearName.allCases.map(\.rawValue), dropout: Double = 0, experts: Int = 5, topK: Int = 2,
    evaluation: ExpertEvaluation = .sharedBase, on backend: B
  ) throws -> Decoder<B> {
    var mixture = AdapterConfiguration.Mixture(
      experts: experts, expertsPerToken: topK, lora: .init(rank: 2, alpha: 5, dropout: dropout, isRankStabilised: true))
    mixture.balanceCoefficient = 0.02
    let adapter = AdapterConfiguration(
      lora: .init(rank: 3, alpha: 5, dropout: dropout, isRankStabilised: true), targets: Set(targets.compactMap(LinearName.init)),
      mixture: mixture)
    let weights = RandomWeights(seed: 7, on: backend)
    return try Decoder(configuration, weights: weights, adapter: (adapter, weights), evaluation: evaluation, positions: 16, on: backend)
  }

  static func baseDecoder<B: Backend>(on backend: B) throws -> Decoder<B> {
    try Decoder(configuration, weights: RandomWeights(seed: 7, on: backend), trainsBase: true, positions: 16, on: backend)
  }

  /// One training pass: hidden rows, losses and all gradients.
  static func trainingTensors<B: Backend>(_ decoder: Decoder<B>, hooks: [any Hook<B>] = [], isTraining: Bool = true, on backend: B) throws
    -> [Trace<B.Scalar>.NamedTensor]
  {
    let batch = PackedBatch(sequences, on: backend)
    let run = Run(backend, isTraining: isTraining, key: RandomKey(seed: 11), hooks: hooks)
    run.rows = batch.identity(step: 5)
    for parameter in decoder.parameters { backend.scale(0, &parameter.gradient) }
    let output = decoder.forward(batch, run, caches: .all)
    let (loss, dhidden) = decoder.loss(output.hidden, batch, run)
    var tensors = [
      Trace<B.Scalar>.NamedTensor(name: "hidden", shape: output.hidden.shape.sizes, values: try backend.download(output.hidden)),
      Trace<B.Scalar>.NamedTensor(name: "loss", shape: [1], values: try backend.download(loss)),
    ]
    if let balance = output.balanceLoss { tensors.append(.init(name: "aux_loss", shape: [1], values: try backend.download(balance))) }
    decoder.backward(dhidden, output, batch, run)
    try run.finish()
    for tensor in decoder.trainedTensors {
      let part = tensor.view(of: tensor.parameter.gradient)
      tensors.append(.init(name: "grad." + tensor.name, shape: part.shape.sizes, values: try backend.download(part)))
    }
    return tensors
  }
}
