import Conformance
import Decoders
import Layers
import Tensors

/// The small model under several adapters, whose rows lie mixed in one batch.
package enum PluralModel {
  /// LoRA, and two mixtures with other E, K and r; all values random.
  package static func adapters() -> [AdapterConfiguration] {
    var plain = SmallModel.adapter(dropout: 0.3)
    plain.mixture = nil
    plain.lora.rank = 4
    var second = SmallModel.adapter(targets: ["q_proj", "v_proj", "up_proj", "down_proj"], dropout: 0.2, experts: 3, topK: 3)
    second.mixture?.lora.rank = 5
    return [plain, SmallModel.adapter(dropout: 0.4), second]
  }

  package static func decoder<B: Backend>(
    _ settings: [AdapterConfiguration] = adapters(), seeds: [UInt64] = [11, 12, 13], _ evaluation: ExpertEvaluation = .sharedBase,
    on backend: B
  ) throws -> Decoder<B> {
    try Decoder(
      SmallModel.configuration, weights: RandomWeights(seed: 7, on: backend),
      adapters: zip(settings, seeds).map { AdapterSource($0, RandomWeights(seed: $1, on: backend)) }, evaluation: evaluation, on: backend)
  }

  private static let owners: [Int?] = [1, nil, 0, 2, 1, 0, nil]
  package static func sequences() -> [PackedSequence] {
    owners.enumerated().map { n, owner in
      let ids = (0..<3 + n).map { Int32(($0 * 7 + 3 * n) % 23) }
      return PackedSequence(ids: ids, firstPosition: n % 3, labels: ids.dropFirst().map { $0 == 4 ? nil : $0 } + [nil], adapter: owner)
    }
  }

  /// All gradients of a training pass, with dropout.
  package static func gradients<B: Backend>(
    _ evaluation: ExpertEvaluation = .sharedBase, recomputes: Recomputation = .none, hooks: [any Hook<B>] = [], on backend: B
  ) throws -> [[B.Scalar]] {
    let decoder = try decoder(adapters(), evaluation, on: backend)
    let pass = TrainingPass(keys: [1, 2, 3].map { RandomKey(seed: $0) }, step: 4)
    _ = try decoder.gradients(of: PackedBatch(sequences(), on: backend), Run(backend, training: pass, hooks: hooks), recomputes: recomputes)
    return try decoder.parameters.map { try backend.download($0.gradient) }
  }
}
