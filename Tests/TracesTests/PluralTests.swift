import CPUBackend
import Checkpoints
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces
import Training

/// Several adapters over one base in one batch.
@Suite struct PluralTests {
  let backend = CPUDouble(threads: 2, isPoisoned: true)

  /// LoRA, and two mixtures with other E, K and r; all values random.
  private func adapters() -> [AdapterConfiguration] {
    var plain = SmallModel.adapter(dropout: 0.3)
    plain.mixture = nil
    plain.lora.rank = 4
    var second = SmallModel.adapter(targets: ["q_proj", "v_proj", "up_proj", "down_proj"], dropout: 0.2, experts: 3, topK: 3)
    second.mixture?.lora.rank = 5
    return [plain, SmallModel.adapter(dropout: 0.4), second]
  }

  private func decoder(_ settings: [AdapterConfiguration], seeds: [UInt64], _ evaluation: ExpertEvaluation) throws -> Decoder<CPUDouble> {
    try Decoder(
      SmallModel.configuration, weights: RandomWeights(seed: 7, on: backend),
      adapters: zip(settings, seeds).map { AdapterSource($0, RandomWeights(seed: $1, on: backend)) }, evaluation: evaluation, on: backend)
  }

  private static let owners: [Int?] = [1, nil, 0, 2, 1, 0, nil]
  private func sequences() -> [PackedSequence] {
    Self.owners.enumerated().map { n, owner in
      let ids = (0..<3 + n).map { Int32(($0 * 7 + 3 * n) % 23) }
      return PackedSequence(ids: ids, firstPosition: n % 3, labels: ids.dropFirst().map { $0 == 4 ? nil : $0 } + [nil], adapter: owner)
    }
  }

  /// Loss and gradients of each adapter, after three steps its values: together and each alone with its own rows, the same keys, and
  /// dropout on.
  @Test(arguments: ExpertEvaluation.allCases)
  func togetherEachIsWhatItIsAlone(_ evaluation: ExpertEvaluation) throws {
    let (settings, seeds) = (adapters(), [11, 12, 13] as [UInt64])
    let keys = seeds.map { RandomKey(seed: $0) }
    func steps(_ decoder: Decoder<CPUDouble>, _ sequences: [PackedSequence], _ keys: [RandomKey]) throws -> [[Trace<Double>.NamedTensor]] {
      var optimizer = AdamW(decoder.parameters, learningRate: 0.01, on: backend)
      let batch = PackedBatch(sequences, on: backend)
      var found = decoder.adapters.map { _ in [Trace<Double>.NamedTensor]() }
      for number in 1...3 {
        let losses = try decoder.gradients(of: batch, Run(backend, training: TrainingPass(keys: keys, step: number)))
        for (i, adapter) in decoder.adapters.enumerated() {
          found[i].append(.init(name: "\(number).loss", shape: [1], values: try backend.download(losses[i].crossEntropy)))
          if let balance = losses[i].balance {
            found[i].append(.init(name: "\(number).aux", shape: [1], values: try backend.download(balance)))
          }
          for tensor in adapter.trained.tensors {
            let gradient = tensor.view(of: tensor.parameter.gradient)
            found[i].append(
              .init(name: "\(number).grad.\(tensor.name)", shape: gradient.shape.sizes, values: try backend.download(gradient)))
          }
        }
        optimizer.step(number)
      }
      for (i, adapter) in decoder.adapters.enumerated() {
        for tensor in adapter.trained.tensors {
          let value = tensor.view(of: tensor.parameter.value)
          found[i].append(.init(name: "after.\(tensor.name)", shape: value.shape.sizes, values: try backend.download(value)))
        }
      }
      return found
    }
    let together = try steps(decoder(settings, seeds: seeds, evaluation), sequences(), keys)
    for i in settings.indices {
      let own = sequences().filter { $0.adapter == i }.map { sequence in
        var sequence = sequence
        sequence.adapter = 0
        return sequence
      }
      let alone = try steps(decoder([settings[i]], seeds: [seeds[i]], evaluation), own, [keys[i]])[0]
      let agreement = Agreement(of: together[i], with: alone)
      #expect(agreement.count > 100 && agreement.holds(to: 1e-12), "adapter \(i): \(agreement)")
    }
  }

  /// Every point of a pass with several adapters, in every evaluation, holds at an adapter's rows what it holds where the adapter is alone.
  @Test(arguments: ExpertEvaluation.allCases)
  func everyPointIsWhatItIsAlone(_ evaluation: ExpertEvaluation) throws {
    let folder = Fixture.path("peers/plural/llama-plural")
    let files = try ModelFolder(Fixture.path("peers/models/llama"))
    let batch = try TraceBatch(contentsOf: folder + "/batch.safetensors", vocabulary: files.configuration.vocabulary, adapters: 3)
    func trace(_ adapters: [Int], _ batch: TraceBatch) throws -> [Trace<Double>.NamedTensor] {
      let decoder = try files.decoder(adapters: adapters.map { .folder("\(folder)/adapters/\($0)") }, evaluation: evaluation, on: backend)
      var request = TraceRequest()
      (request.backward, request.activations) = (true, { _ in true })
      return try Trace.record(decoder, batch, request, on: backend) { _ in }.tensors
    }
    let together = try trace([0, 1, 2], batch)
    #expect(Set(together.map(\.name)).count == together.count)
    for i in 0..<3 {
      let alone = try trace([i], batch.serving(batch.adapters.map { $0 == i ? 0 : nil }))
      var compared = 0
      for tensor in together where tensor.name.hasPrefix("adapter.\(i).") && tensor.name.contains("model.layers") {
        let name = String(tensor.name.dropFirst("adapter.0.".count))
        let other = try #require(alone.first { $0.name == name }, "\(name)")
        let same = Trace<Double>.NamedTensor(name: name, shape: tensor.shape, values: tensor.values)
        #expect(Agreement(of: [same], with: [other]).holds(to: 1e-12), "\(name)")
        compared += 1
      }
      #expect(compared > 30, "adapter \(i): \(compared) points")
    }
  }

  /// Rows of no adapter see the base alone, whatever else is in the batch.
  @Test(arguments: ExpertEvaluation.allCases) func rowsOfNoAdapterAreTheBases(_ evaluation: ExpertEvaluation) throws {
    let decoder = try decoder(adapters(), seeds: [11, 12, 13], evaluation)
    let batch = PackedBatch(sequences(), on: backend)
    let hidden = decoder.forward(batch, Run(backend)).rows(batch.baseRows)
    let base = try Decoder(SmallModel.configuration, weights: RandomWeights(seed: 7, on: backend), on: backend)
    let alone = sequences().filter { $0.adapter == nil }.map {
      PackedSequence(ids: $0.ids, firstPosition: $0.firstPosition, labels: $0.labels)
    }
    let expected = base.forward(PackedBatch(alone, on: backend), Run(backend))
    func named(_ x: Tensor<CPUDouble>) throws -> [Trace<Double>.NamedTensor] {
      [.init(name: "hidden", shape: x.shape.sizes, values: try backend.download(x))]
    }
    let agreement = Agreement(of: try named(hidden), with: try named(expected))
    #expect(batch.baseRows.count > 5 && agreement.holds(to: 1e-13), "\(agreement)")
  }

  /// Recomputation and hooks that look change no bit with several adapters either.
  @Test func formedAgainOrWatchedTheBitsAreTheSame() throws {
    func gradients(recomputes: Bool, hooks: [any Hook<CPUDouble>] = []) throws -> [[Double]] {
      let decoder = try decoder(adapters(), seeds: [11, 12, 13], .sharedBase)
      let pass = TrainingPass(keys: [1, 2, 3].map { RandomKey(seed: $0) }, step: 4)
      _ = try decoder.gradients(
        of: PackedBatch(sequences(), on: backend), Run(backend, training: pass, hooks: hooks), recomputes: recomputes)
      return try decoder.parameters.map { try backend.download($0.gradient) }
    }
    let plain = try gradients(recomputes: false)
    #expect(try gradients(recomputes: true) == plain)
    let recorder = Recorder(on: backend) { _ in true }
    #expect(try gradients(recomputes: false, hooks: [recorder]) == plain)
    #expect(recorder.records.keys.contains("adapter.0.model.layers.1.mlp.hidden"))
    #expect(recorder.records.keys.contains("adapter.2.grad.model.layers.1.mlp.moe_gate.output"))
  }
}
