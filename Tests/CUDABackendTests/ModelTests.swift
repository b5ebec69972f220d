import CPUBackend
import CUDABackend
import CUDAEmulator
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces
import Training

/// Whole models on the emulator: PyTorch's and other programs' numbers, finite differences, and what a step costs.
@Suite struct ModelTests {
  @Test(arguments: Golden.cases, ExpertEvaluation.allCases)
  func float64EqualsPyTorchInEveryTensor(_ name: String, _ evaluation: ExpertEvaluation) throws {
    let backend = try CUDADouble(EmulatedDevice.open(seed: 1), isPoisoned: true)
    let trace = try Golden.trace(name, evaluation: evaluation, on: backend)
    let expected = try Golden.expected(name)
    let now = Agreement(of: trace.tensors.firstPass(), with: expected.firstPass())
    #expect(now.holds(to: 1e-12), "\(now)")
    let after = Agreement(of: trace.tensors.steps(), with: expected.steps())
    #expect(after.holds(to: 1e-9), "\(after)")
  }

  /// The limits are those of the CPU's float32.
  @Test(arguments: Golden.cases)
  func float32EqualsPyTorchToSinglePrecision(_ name: String) throws {
    let trace = try Golden.trace(name, on: CUDAFloat(EmulatedDevice.open(seed: 2), isPoisoned: true))
    let expected = try Golden.expected(name)
    let now = Agreement(of: trace.tensors.firstPass(), with: expected.firstPass())
    #expect(now.holds(to: 5.6e-6), "\(now)")
    let after = Agreement(of: trace.tensors.steps(), with: expected.steps())
    #expect(after.holds(to: 2.9e-6), "\(after)")
  }

  @Test(arguments: PeerCase.all)
  func float64EqualsTheDefinitionOfEveryPeer(_ peer: PeerCase) throws {
    let backend = try CUDADouble(EmulatedDevice.open(seed: 3), isPoisoned: true)
    let trace = try Trace.withThreeSteps(peer.decoder(on: backend), peer.batch(), on: backend)
    let expected = try Fixture.tensors(peer.float64)
    let first = Agreement(of: trace.tensors.firstPass(), with: expected.firstPass())
    #expect(first.holds(to: 1e-12), "\(peer): \(first)")
    let after = Agreement(of: trace.tensors.steps(), with: expected.steps())
    #expect(after.holds(to: 1e-9), "\(peer): \(after)")
  }

  @Test func gradientsEqualFiniteDifferences() throws {
    let backend = try CUDADouble(EmulatedDevice.open(seed: 1), isPoisoned: true)
    let decoder = try SmallModel.decoder(dropout: 0.25, on: backend)
    let results = try ModelGradientCheck(decoder, SmallModel.sequences, isTraining: true, on: backend).run(directions: 1)
    #expect(results.count > 5)
    for result in results { #expect(result.worst <= 1e-7 && result.gradientNorm > 0, "\(result)") }
  }

  @Test func aModelUnderTheWatchRacesNowhere() throws {
    let backend = try CUDAFloat(EmulatedDevice.open(seed: 5, isWatched: true), isPoisoned: true)
    let decoder = try SmallModel.decoder(dropout: 0.25, on: backend)
    _ = try SmallModel.trainingTensors(decoder, on: backend)
  }

  /// The order of threads and blocks changes no bit.
  @Test func everyOrderGivesTheSameBits() throws {
    func gradients(_ seed: UInt64) throws -> [[Float]] {
      let backend = try CUDAFloat(EmulatedDevice.open(seed: seed), isPoisoned: true)
      return try SmallModel.trainingTensors(SmallModel.decoder(dropout: 0.25, on: backend), on: backend).map(\.values)
    }
    let first = try gradients(0)
    for seed in [1, 2, 3] as [UInt64] { #expect(try gradients(seed) == first) }
  }

  /// What is formed again in the backward pass has the same bits; they are the processor's to rounding.
  @Test func aPassThatRecomputesHasTheSameBits() throws {
    func pass<B: Backend>(recomputes: Recomputation = .none, on backend: B) throws -> [Trace<B.Scalar>.NamedTensor] {
      try SmallModel.trainingTensors(SmallModel.decoder(dropout: 0.25, on: backend), recomputes: recomputes, on: backend)
    }
    let backend = try CUDADouble(EmulatedDevice.open(seed: 4), isPoisoned: true)
    let recomputed = try pass(recomputes: .all, on: backend)
    #expect(try pass(on: backend).map(\.values) == recomputed.map(\.values))
    let agreement = Agreement(of: recomputed, with: try pass(on: CPUDouble(threads: 1, isPoisoned: true)))
    #expect(agreement.count > 100 && agreement.holds(to: 1e-12), "\(agreement)")
  }

  /// The rows of each adapter, and of none, lie together in a batch: gradients are the processor's, formed again or not.
  @Test func severalAdaptersHaveTheProcessorsGradients() throws {
    let backend = try CUDADouble(EmulatedDevice.open(seed: 4), isPoisoned: true)
    let found = try PluralModel.gradients(on: backend)
    #expect(try PluralModel.gradients(recomputes: .all, on: backend) == found)
    func named(_ gradients: [[Double]]) -> [Trace<Double>.NamedTensor] {
      gradients.enumerated().map { .init(name: "\($0)", shape: [$1.count], values: $1) }
    }
    let agreement = Agreement(of: named(found), with: named(try PluralModel.gradients(on: CPUDouble(threads: 1, isPoisoned: true))))
    #expect(agreement.count > 20 && agreement.holds(to: 1e-12), "\(agreement)")
  }

  /// What a plan of memory counts without a number is what the pool counts, but for a few kilobytes that sums over blocks take.
  @Test(arguments: [Recomputation.none, .all]) func arithmeticIsWhatThePoolCounts(_ recomputes: Recomputation) throws {
    func added<B: Backend>(on backend: B) throws -> Int {
      let decoder = try SmallModel.decoder(dropout: 0.25, on: backend)
      let before = backend.counters.poolBytes
      let step = TrainingStep(decoder, key: RandomKey(seed: 1), recomputes: recomputes, on: backend)
      try step.warmUp([PackedBatch(SmallModel.sequences, on: backend)])
      return backend.counters.poolBytes - before
    }
    func backend() throws -> CUDAFloat { try CUDAFloat(EmulatedDevice.open(seed: 4)) }
    let head = try SmallModel.decoder(on: backend()).head.weight
    let (counted, planned) = (try added(on: backend()), try added(on: ShapeBackend(like: backend(), head: head)))
    #expect(abs(counted - planned) < counted / 10, "\(counted) counted, \(planned) planned")
  }

  /// A step of SmolLM2's shape: 2880 launches were counted; one copy to the device, one back.
  @Test func aTrainingStepIsLaunchesAndNothingElse() throws {
    let (device, counts) = try EmulatedDevice.counted(isIdle: true, hasProducts: true)
    let backend = try CUDAFloat(device)
    let configuration = try DecoderConfiguration(contentsOf: Fixture.path("smollm2-shape/config.json"))
    let lora = AdapterConfiguration.LoRA(rank: 16, alpha: 32, dropout: 0.05)
    let adapter = AdapterConfiguration(lora: lora, mixture: .init(experts: 8, expertsPerToken: 2, lora: lora))
    let weights = InitialWeights(seed: 1, on: backend)
    let decoder = try Decoder(configuration, weights: weights, adapters: [AdapterSource(adapter, weights)], on: backend)
    let ids = (0..<256).map { Int32($0) }
    let training = TrainingStep(decoder, key: RandomKey(seed: 1), on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 1e-3, on: backend)
    for step in 1...3 {
      let (before, start) = (backend.counters, counts())
      let batch = PackedBatch([PackedSequence(ids: ids, labels: ids), PackedSequence(ids: ids, labels: ids)], on: backend)
      let result = try training.run([batch], number: step, &optimizer)
      _ = try backend.download([result.loss, result.gradientNorm] + result.expertCounts)
      if step < 3 { continue }  // the pool is warm
      let (cost, moved) = (backend.counters - before, counts())
      #expect(moved.launches - start.launches <= 2880, "\(moved.launches - start.launches) launches")
      #expect(moved.uploads - start.uploads == 1 && moved.downloads - start.downloads == 1)
      #expect(cost.poolMisses == 0 && cost.sharedCopies == 0 && cost.waits == 1)
    }
  }
}
