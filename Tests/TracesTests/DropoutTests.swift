import CPUBackend
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces

/// Dropout on what branches read.
@Suite struct DropoutTests {
  let backend = CPUDouble(threads: 1, isPoisoned: true)

  private func plainLoRA(dropout: Double) -> AdapterConfiguration {
    var adapter = SmallModel.adapter(dropout: dropout)
    adapter.mixture = nil
    return adapter
  }

  /// In float64 and with the masks held by their key, the loss is smooth and its differences give every gradient.
  @Test(arguments: ExpertEvaluation.allCases)
  func finiteDifferencesGiveTheGradientUnderDropout(_ evaluation: ExpertEvaluation) throws {
    let decoder = try SmallModel.decoder(SmallModel.adapter(dropout: 0.4), evaluation: evaluation, trainsBase: true, on: backend)
    try expectDifferences(decoder, groups: 15)
  }

  @Test func finiteDifferencesGivePlainLoRAsGradientUnderDropout() throws {
    try expectDifferences(SmallModel.decoder(plainLoRA(dropout: 0.4), on: backend), groups: 14)
  }

  private func expectDifferences(_ decoder: Decoder<CPUDouble>, groups: Int) throws {
    let results = try ModelGradientCheck(decoder, SmallModel.sequences, isTraining: true, on: backend).run(directions: 4)
    #expect(results.count >= groups)
    for result in results {
      #expect(result.worst <= 1e-7, "\(result)")
      #expect(result.gradientNorm > 0, "\(result)")
    }
  }

  @Test(arguments: ExpertEvaluation.allCases)
  func dropoutOfZeroAndDropoutOutsideTrainingAreNoneBitForBit(_ evaluation: ExpertEvaluation) throws {
    func bits(_ dropout: Double, isTraining: Bool, mixture: Bool) throws -> [[UInt64]] {
      let adapter = mixture ? SmallModel.adapter(dropout: dropout) : plainLoRA(dropout: dropout)
      let decoder = try SmallModel.decoder(adapter, evaluation: evaluation, on: backend)
      return try SmallModel.trainingTensors(decoder, isTraining: isTraining, on: backend).map { $0.values.map(\.bitPattern) }
    }
    for mixture in [true, false] {
      let none = try bits(0, isTraining: false, mixture: mixture)
      #expect(try bits(0, isTraining: true, mixture: mixture) == none)
      #expect(try bits(0.4, isTraining: false, mixture: mixture) == none)
      #expect(try bits(0.4, isTraining: true, mixture: mixture) != none)
    }
  }

  /// 300 rows of 67 columns: the share kept is within five deviations of 1 − p, what is kept is multiplied with 1/(1−p),
  /// backward has the same mask.
  @Test(arguments: [0.05, 0.3, 0.9], [1, 2, 3])
  func aMaskKeepsItsShareAndScalesItWhateverTheThreads(_ p: Double, threads: Int) throws {
    let backend = CPUDouble(threads: threads, isPoisoned: true)
    let (n, width) = (300, 67)
    let pass = TrainingPass(key: RandomKey(seed: 3), step: 2)
    let run = Run(backend, training: pass)
    let sequences = (0..<n / 50).map { _ in PackedSequence(ids: Array(repeating: 0, count: 50), labels: Array(repeating: nil, count: 50)) }
    let batch = PackedBatch(sequences, on: backend)
    let layer = InputDropout<CPUDouble>(path: "some.input", probabilities: [p])
    let ones = { backend.upload([Double](repeating: 1, count: n * width), Shape(n, width)) }
    let input = layer.forward(ones(), batch, run)
    #expect(try backend.download(input.x).allSatisfy { $0 == 1 })
    let mask = try backend.download(input.u[0])
    let drawn = (p * 65536).rounded() / 65536  // p in steps of 2⁻¹⁶
    #expect(mask.allSatisfy { $0 == 0 || $0 == 1 / (1 - drawn) })
    let share = Double(mask.count { $0 != 0 }) / Double(mask.count)
    #expect(abs(share - (1 - p)) <= 5 * (p * (1 - p) / Double(mask.count)).squareRoot(), "kept \(share)")
    var gradient = LoRAGradient<CPUDouble>(adapters: 1)
    gradient.dx = backend.zeros(Shape(n, width))
    gradient.du[0] = ones()
    #expect(try backend.download(layer.backward(&gradient, batch, run)) == mask)
    let single = CPUDouble(threads: 1)
    let ofOne = layer.forward(
      single.upload([Double](repeating: 1, count: n * width), Shape(n, width)), PackedBatch(sequences, on: single),
      Run(single, training: pass))
    #expect(try single.download(ofOne.u[0]) == mask)
  }

  /// Two experts alike, chosen by everybody: what they make of x is the same under the one mask of x, what A2 makes of
  /// their hidden rows is not, for each (token, expert) has a mask.
  @Test func expertsShareTheMaskOfTheirInputAndHaveTheirOwnOfTheirHiddenRow() throws {
    func outputs(targets: [String], _ name: String) throws -> [[Double]] {
      let decoder = try SmallModel.decoder(
        SmallModel.adapter(targets: targets, dropout: 0.4, experts: 2, topK: 2), evaluation: .perExpert,
        edit: { name, original in try original(name.replacing("experts.1.", with: "experts.0.")) }, on: backend)
      let recorder = Recorder(on: backend) { $0.hasPrefix("model.layers.1.mlp.experts.") && $0.hasSuffix(name) }
      _ = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
      return try (0..<2).map { try #require(recorder.records["model.layers.1.mlp.experts.\($0).\(name)"]).values }
    }
    let hidden = try outputs(targets: ["gate_proj", "up_proj"], "hidden")
    #expect(hidden[0].count == SmallModel.tokens * 19 && hidden[0] == hidden[1])
    let output = try outputs(targets: ["down_proj"], "down_proj.output")
    #expect(output[0].count == SmallModel.tokens * 12 && !zip(output[0], output[1]).contains { $0 == $1 })
  }

  @Test(arguments: ExpertEvaluation.allCases)
  func threadsChangeNoMaskOfAModel(_ evaluation: ExpertEvaluation) throws {
    func tensors(_ threads: Int) throws -> [Trace<Double>.NamedTensor] {
      let backend = CPUDouble(threads: threads)
      return try SmallModel.trainingTensors(
        SmallModel.decoder(SmallModel.adapter(dropout: 0.4), evaluation: evaluation, on: backend), on: backend)
    }
    let one = try tensors(1)
    for threads in [2, 3] {
      let agreement = Agreement(of: try tensors(threads), with: one)
      #expect(agreement.holds(to: 1e-13), "\(agreement)")
    }
  }

  /// A row's masks follow from its sample's number and its position, not from where it lies in the batch.
  @Test(arguments: ExpertEvaluation.allCases)
  func aSampleHasItsMasksWhereverTheBatchIsSplit(_ evaluation: ExpertEvaluation) throws {
    let decoder = try SmallModel.decoder(SmallModel.adapter(dropout: 0.4), evaluation: evaluation, on: backend)
    func hidden(_ sequences: ArraySlice<PackedSequence>) throws -> [Double] {
      let batch = PackedBatch(Array(sequences), firstSamples: [sequences.startIndex], on: backend)
      return try backend.download(decoder.forward(batch, Run(backend, training: TrainingPass(key: RandomKey(seed: 11), step: 5))))
    }
    let whole = try hidden(SmallModel.sequences[...])
    for split in 1...3 {
      let parts = try hidden(SmallModel.sequences[..<split]) + hidden(SmallModel.sequences[split...])
      #expect(parts.count == whole.count)
      #expect(zip(parts, whole).allSatisfy { abs($0 - $1) <= 1e-12 }, "split before sample \(split)")
    }
  }
}
