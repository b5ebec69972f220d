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

  /// Loss and gradients of each adapter, after three steps its values: together and each alone with its own rows, the same keys, and
  /// dropout on.
  @Test(arguments: ExpertEvaluation.allCases)
  func togetherEachIsWhatItIsAlone(_ evaluation: ExpertEvaluation) throws {
    let (settings, seeds) = (PluralModel.adapters(), [11, 12, 13] as [UInt64])
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
    let together = try steps(PluralModel.decoder(settings, seeds: seeds, evaluation, on: backend), PluralModel.sequences(), keys)
    for i in settings.indices {
      let own = PluralModel.sequences().filter { $0.adapter == i }.map { sequence in
        var sequence = sequence
        sequence.adapter = 0
        return sequence
      }
      let alone = try steps(PluralModel.decoder([settings[i]], seeds: [seeds[i]], evaluation, on: backend), own, [keys[i]])[0]
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
    let decoder = try PluralModel.decoder(PluralModel.adapters(), seeds: [11, 12, 13], evaluation, on: backend)
    let batch = PackedBatch(PluralModel.sequences(), on: backend)
    let hidden = decoder.forward(batch, Run(backend)).rows(batch.baseRows)
    let base = try Decoder(SmallModel.configuration, weights: RandomWeights(seed: 7, on: backend), on: backend)
    let alone = PluralModel.sequences().filter { $0.adapter == nil }.map {
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
    for evaluation in ExpertEvaluation.allCases {
      #expect(try PluralModel.gradients(evaluation, recomputes: .all, on: backend) == PluralModel.gradients(evaluation, on: backend))
    }
    let plain = try PluralModel.gradients(on: backend)
    let recorder = Recorder(on: backend) { _ in true }
    #expect(try PluralModel.gradients(hooks: [recorder], on: backend) == plain)
    #expect(recorder.records.keys.contains("adapter.0.model.layers.1.mlp.hidden"))
    #expect(recorder.records.keys.contains("adapter.2.grad.model.layers.1.mlp.moe_gate.output"))
  }
}
