import CPUBackend
import Decoders
import Foundation
import Layers
import Tensors
import TestModels
import Testing
import Training

/// What a training step costs beside arithmetic, pinned.
@Suite struct StepCostTests {
  @Test(arguments: ExpertEvaluation.allCases, [0, 0.1])
  func aStepAllocatesNothingCopiesNothingAndMovesOnlyItsLoss(_ evaluation: ExpertEvaluation, dropout: Double) throws {
    let backend = CPUFloat(threads: 2)
    let decoder = try SmallModel.decoder(dropout: dropout, evaluation: evaluation, on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 1e-3, on: backend)
    let batch = PackedBatch(SmallModel.sequences, on: backend)
    func step(_ number: Int) throws {
      let result = try TrainingStep(decoder, key: RandomKey(seed: 1), on: backend).run([batch], number: number, &optimizer)
      #expect(try backend.download(result.loss)[0].isFinite)
    }
    for number in 1...3 { try step(number) }  // expert loads change with the weights; three steps see their sizes
    let before = backend.counters
    try step(4)
    let cost = backend.counters - before
    #expect(cost.poolMisses == 0)
    #expect(cost.sharedCopies == 0)
    #expect(cost.bytesToDevice == 0)
    #expect(cost.bytesToHost == 4)
  }

  /// Sums over micro-batches wait in buffers that the warm-up has made, and are added where they lie.
  @Test func aStepOfSeveralMicroBatchesAllocatesAndCopiesNothingEither() throws {
    let backend = CPUFloat(threads: 1)
    let decoder = try SmallModel.decoder(dropout: 0.1, on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 0, weightDecay: 0, on: backend)  // loads stay the same
    let sequence = SmallModel.sequences[0]
    let batches = (0..<5).map { PackedBatch([sequence], firstSamples: [$0], on: backend) }
    let training = TrainingStep(decoder, key: RandomKey(seed: 1), on: backend)
    try training.warmUp([batches[0]], microBatches: 5)
    _ = try training.run([batches[0]], number: 1, &optimizer)  // what norm, clipping and update need
    let before = backend.counters
    _ = try training.run(batches, number: 1, &optimizer)
    let cost = backend.counters - before
    #expect(cost.poolMisses == 0 && cost.sharedCopies == 0 && cost.bytesToDevice == 0 && cost.bytesToHost == 0, "\(cost)")
  }

  @Test func shorterBatchesLiveFromTheBuffersOfTheLongest() throws {
    let backend = CPUFloat(threads: 1)
    let decoder = try SmallModel.decoder(on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 1e-3, on: backend)
    func step(_ tokens: Int, _ number: Int) throws {
      let ids = (0..<tokens).map { Int32($0 % 20) }
      let batch = PackedBatch([PackedSequence(ids: ids, labels: ids.dropFirst().map { $0 } + [nil])], on: backend)
      _ = try TrainingStep(decoder, key: RandomKey(seed: 1), on: backend).run([batch], number: number, &optimizer)
    }
    for number in 1...2 { try step(16, number) }
    backend.endWarmUp()
    let before = backend.counters
    for (number, tokens) in [12, 9, 7, 5, 2, 16, 11].enumerated() { try step(tokens, number + 3) }
    #expect((backend.counters - before).poolMisses == 0)
  }

  @Test func aBaseModelsStepCopiesNothingEither() throws {
    let backend = CPUFloat(threads: 1)
    let decoder = try SmallModel.baseDecoder(on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 1e-3, on: backend)
    let batch = PackedBatch(SmallModel.sequences, on: backend)
    var cost = Counters()
    for step in 1...3 {
      let before = backend.counters
      _ = try decoder.gradients(of: batch, Run(backend))
      optimizer.step(step)
      cost = backend.counters - before
    }
    cost.operations = 0
    #expect(cost == Counters())
  }

  @Test func aBatchComesToTheDeviceInOnePiece() {
    let backend = CPUFloat(threads: 1)
    let before = backend.counters
    let batch = PackedBatch(SmallModel.sequences, on: backend)
    let cost = backend.counters - before
    // ids, positions and samples of N tokens; row and label of n labels; three numbers a sequence and one more; 4 bytes each.
    #expect(cost.bytesToDevice == 4 * (3 * batch.tokens + 2 * batch.labels(of: 0).count + 3 * batch.plan.sequences + 1))
    #expect(cost.operations == 1)
  }

  @Test func aWrongShapeStopsWithNamesAndShapes() async {
    setenv("SWIFT_BACKTRACE", "enable=no", 1)  // the process that stops inherits it; a backtrace of it can hang for minutes
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let backend = CPUFloat(threads: 1)
      let linear = Linear<CPUFloat>(weight: .frozen(backend.freeze(backend.zeros(Shape(4, 3)))))
      _ = linear.forward(backend.zeros(Shape(2, 5)), Run(backend))
    }
    let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(message.contains("gemm: b is (3,4), expected (5,4)"), "\(message)")
  }
}
