import CPUBackend
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces

@Suite struct EvaluationTests {
  @Test(arguments: Golden.cases, [1, 2, 3])
  func theEvaluationsAgreeInEveryTensorWithAnyNumberOfThreads(_ name: String, threads: Int) throws {
    let definition = try Golden.trace(name, evaluation: .perExpert, on: CPUDouble(threads: 1))
    for evaluation in [ExpertEvaluation.sharedBase, .sharedGateUp] {
      let shared = try Golden.trace(name, evaluation: evaluation, on: CPUDouble(threads: threads))
      let now = Agreement(of: shared.tensors.firstPass(), with: definition.tensors.firstPass())
      #expect(now.holds(to: 1e-12), "\(evaluation): \(now)")
    }
  }

  @Test(arguments: [1, 2, 3])
  func theSameRunGivesTheSameBits(_ threads: Int) throws {
    func bits() throws -> [[UInt32]] {
      try Golden.trace("topk", on: CPUFloat(threads: threads)).tensors.map { $0.values.map(\.bitPattern) }
    }
    let first = try bits()
    for _ in 0..<3 { #expect(try bits() == first) }
  }

  /// Biases, dropout, rank-stabilized branches and every kind of target, which the golden cases leave out.
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
    let definition = try gradients(.perExpert)
    for evaluation in [ExpertEvaluation.sharedBase, .sharedGateUp] {
      let agreement = Agreement(of: try gradients(evaluation), with: definition)
      #expect(agreement.holds(to: 1e-12), "\(evaluation): \(agreement)")
    }
  }

  /// The naive backend forms the hidden rows in one pass, but for whoever looks at them: then the layer's own lines run.
  @Test(arguments: [0, 0.3])
  func theExpertStageInOnePassIsTheLayersLines(dropout: Double) throws {
    let backend = NaiveBackend<Double>()
    let decoder = try SmallModel.decoder(dropout: dropout, on: backend)
    let start = backend.counters
    let onePass = try SmallModel.trainingTensors(decoder, on: backend)
    let middle = backend.counters
    let recorder = Recorder(on: backend) { $0.hasSuffix(".hidden") }
    let lines = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
    let looks = recorder.visits.count  // a download each
    #expect(looks > 0)
    #expect((middle - start).operations < (backend.counters - middle).operations - looks, "nothing ran in one pass")
    let agreement = Agreement(of: onePass, with: lines)
    #expect(agreement.holds(to: 1e-13), "\(agreement)")
  }

  /// Every activation and gradient that a recorder sees in two evaluations, dropout on; and which it sees in one alone.
  @Test(arguments: [1, 2, 3])
  func whatTwoEvaluationsFormIsTheSameOnTheWay(_ threads: Int) throws {
    func recording(_ evaluation: ExpertEvaluation) throws -> (records: [String: Recorder<CPUDouble>.Record], choices: [String: [Int32]]) {
      let backend = CPUDouble(threads: threads, isPoisoned: true)
      let recorder = Recorder(on: backend) { _ in true }
      let decoder = try SmallModel.decoder(dropout: 0.3, evaluation: evaluation, on: backend)
      _ = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
      return (recorder.records, recorder.choices)
    }
    let definition = try recording(.perExpert)
    let gateUp = try recording(.sharedGateUp)
    let base = try recording(.sharedBase)
    for (one, other) in [(base, definition), (gateUp, definition), (base, gateUp)] {
      let names = Set(one.records.keys).intersection(other.records.keys).sorted()
      func tensors(_ records: [String: Recorder<CPUDouble>.Record]) -> [Trace<Double>.NamedTensor] {
        names.compactMap { name in records[name].map { .init(name: name, shape: $0.shape.sizes, values: $0.values) } }
      }
      let agreement = Agreement(of: tensors(one.records), with: tensors(other.records))
      #expect(agreement.count > 150 && agreement.holds(to: 1e-12), "\(agreement)")
      #expect(one.choices == other.choices && one.choices.count == 3)
    }
    func surplus(_ one: [String: Recorder<CPUDouble>.Record], over other: [String: Recorder<CPUDouble>.Record]) -> Set<String> {
      Set(Set(one.keys).subtracting(other.keys).map { $0.split(separator: ".").suffix(3).filter { Int($0) == nil }.joined(separator: ".") })
    }
    #expect(surplus(definition.records, over: base.records) == ["down_proj.output"])
    #expect(surplus(base.records, over: definition.records) == ["gate_proj.base.output", "up_proj.base.output", "mlp.down_proj.input"])
    #expect(surplus(gateUp.records, over: base.records) == ["down_proj.output"])
    #expect(surplus(base.records, over: gateUp.records) == ["mlp.down_proj.input"])
  }
}
