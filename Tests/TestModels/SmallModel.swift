import Conformance
import Decoders
import Layers
import Tensors
import Traces

/// A model with everything that the golden ones lack: biases, three layers, odd sizes.
package enum SmallModel {
  package static var configuration: DecoderConfiguration {
    get throws {
      try DecoderConfiguration(
        [
          "model_type": "llama", "hidden_size": 12, "intermediate_size": 19, "num_hidden_layers": 3, "num_attention_heads": 3,
          "num_key_value_heads": 1, "vocab_size": 23, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
        ], file: "small model")
    }
  }

  package static let sequences = [
    PackedSequence(ids: [3, 1, 4, 1, 5], labels: [1, 4, nil, 5, nil]),
    PackedSequence(ids: [], labels: []),
    PackedSequence(ids: [9, 2, 6, 5, 3, 5, 8], firstPosition: 2, labels: [2, nil, 5, 3, 5, 8, nil]),
    PackedSequence(ids: [7], labels: [nil]),
  ]
  /// Tokens of `sequences`.
  package static let tokens = 13

  /// MixLoRA with rank-stabilized branches of rank 3 on attention and 2 in the experts.
  package static func adapter(
    targets: [String] = LinearName.allCases.map(\.rawValue), dropout: Double = 0, experts: Int = 5, topK: Int = 2,
    coefficient: Double = 0.02
  ) -> AdapterConfiguration {
    var mixture = AdapterConfiguration.Mixture(
      experts: experts, expertsPerToken: topK, lora: .init(rank: 2, alpha: 5, dropout: dropout, isRankStabilized: true))
    mixture.balanceCoefficient = coefficient
    return AdapterConfiguration(
      lora: .init(rank: 3, alpha: 5, dropout: dropout, isRankStabilized: true), targets: Set(targets.compactMap(LinearName.init)),
      mixture: mixture)
  }

  /// The model with an adapter, all values random under one seed; `edit` may change any of them.
  package static func decoder<B: Backend>(
    _ adapter: AdapterConfiguration, evaluation: ExpertEvaluation = .sharedBase, balanceLoss: BalanceLossForm = .pooledTopK,
    trainsBase: Bool = false, edit: @escaping EditedWeights<B>.Edit = { _, _ in nil }, on backend: B
  ) throws -> Decoder<B> {
    let weights = EditedWeights(seed: 7, on: backend, edit)
    return try Decoder(
      configuration, weights: weights, adapters: [AdapterSource(adapter, weights)], trainsBase: trainsBase, evaluation: evaluation,
      balanceLoss: balanceLoss, on: backend)
  }

  package static func decoder<B: Backend>(
    targets: [String] = LinearName.allCases.map(\.rawValue), dropout: Double = 0, experts: Int = 5, topK: Int = 2,
    evaluation: ExpertEvaluation = .sharedBase, on backend: B
  ) throws -> Decoder<B> {
    try decoder(adapter(targets: targets, dropout: dropout, experts: experts, topK: topK), evaluation: evaluation, on: backend)
  }

  package static func baseDecoder<B: Backend>(on backend: B) throws -> Decoder<B> {
    try Decoder(configuration, weights: RandomWeights(seed: 7, on: backend), trainsBase: true, on: backend)
  }

  /// One training pass: hidden rows, logits, losses and all gradients.
  package static func trainingTensors<B: Backend>(
    _ decoder: Decoder<B>, hooks: [any Hook<B>] = [], isTraining: Bool = true, recomputes: Recomputation = .none,
    sequences: [PackedSequence] = sequences, on backend: B
  ) throws -> [Trace<B.Scalar>.NamedTensor] {
    let batch = PackedBatch(sequences, on: backend)
    let run = Run(backend, training: isTraining ? TrainingPass(key: RandomKey(seed: 11), step: 5) : nil, hooks: hooks)
    for part in decoder.trained { backend.fill(0, &part.arena.gradients) }
    var tensors: [Trace<B.Scalar>.NamedTensor] = []
    let losses = try decoder.gradients(of: batch, run, recomputes: recomputes) { hidden in
      let logits = decoder.logits(hidden, Run(backend))
      tensors += [
        .init(name: "hidden", shape: hidden.shape.sizes, values: try backend.download(hidden)),
        .init(name: "logits", shape: logits.shape.sizes, values: try backend.download(logits)),
      ]
    }[0]
    tensors.append(.init(name: "loss", shape: [1], values: try backend.download(losses.crossEntropy)))
    if let balance = losses.balance { tensors.append(.init(name: "aux_loss", shape: [1], values: try backend.download(balance))) }
    for tensor in decoder.trainedTensors {
      let part = tensor.view(of: tensor.parameter.gradient)
      tensors.append(.init(name: "grad." + tensor.name, shape: part.shape.sizes, values: try backend.download(part)))
    }
    return tensors
  }
}

/// Another source's values, some of them changed.
package struct EditedWeights<B: Backend>: WeightSource {
  /// What takes the place of the tensor of this name; nil for the value as it is. `original` asks for any tensor of the same shape.
  package typealias Edit = (_ name: String, _ original: (String) throws -> [B.Scalar]) throws -> [B.Scalar]?
  private let source: RandomWeights<B>
  private let backend: B
  private let edit: Edit

  package init(seed: UInt64, on backend: B, _ edit: @escaping Edit = { _, _ in nil }) {
    source = RandomWeights(seed: seed, on: backend)
    self.backend = backend
    self.edit = edit
  }

  package func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Tensor<B> {
    let original = { try backend.download(source.tensor($0, shape, initial)) }
    guard let values = try edit(name, original) else { return source.tensor(name, shape, initial) }
    return backend.upload(values, shape)
  }

  package func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> B.FrozenMatrix {
    backend.freeze(try tensor(name, shape, initial))
  }
}
