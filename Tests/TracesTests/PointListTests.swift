import CPUBackend
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces

/// The list of points, made without computing, against what a run passes.
@Suite struct PointListTests {
  @Test(arguments: ExpertEvaluation.allCases)
  func theListHasThePointsOfARunInItsOrderWithTheirWidths(_ evaluation: ExpertEvaluation) throws {
    let shapes = ShapeBackend()
    let listed: [ListedPoint] = try Decoder(
      SmallModel.configuration, weights: InitialWeights(seed: 1, on: shapes),
      adapters: [AdapterSource(SmallModel.adapter(), InitialWeights(seed: 1, on: shapes))], evaluation: evaluation, on: shapes
    ).points()
    let backend = CPUDouble(threads: 1)
    let recorder = Recorder(on: backend) { _ in true }
    _ = try SmallModel.trainingTensors(SmallModel.decoder(evaluation: evaluation, on: backend), hooks: [recorder], on: backend)
    let values = listed.filter { $0.phase != "optimizer" && !$0.name.hasSuffix(".choice") && !$0.name.hasSuffix(".tokens") }
    #expect(values.map(\.name) == recorder.visits.map(\.point.description))
    #expect(values.map(\.shape.last) == recorder.visits.map { "\($0.shape.columns)" })
    #expect(values.count > 150 && values.allSatisfy { !$0.equation.isEmpty })
    #expect(listed.filter { $0.name.hasSuffix(".choice") }.count == 3)
    #expect(listed.filter { $0.name.hasSuffix(".tokens") }.count == 15)
  }
}
