import Conformance
import Tensors
import Testing

@Suite struct SuiteTests {
  @Test(arguments: OperationCase<NaiveBackend<Double>>.operations)
  func theDefinitionsPassInFloat64(_ operation: String) {
    let report = ConformanceReport(NaiveBackend<Double>(), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(arguments: OperationCase<NaiveBackend<Float>>.operations.filter { $0 != "gradient" })
  func theDefinitionsPassRoundedToFloat32(_ operation: String) {
    let report = ConformanceReport(NaiveBackend<Float>(), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test func gradientChecksInFloat32AreCountedAsNotRun() {
    let report = ConformanceReport(NaiveBackend<Float>(), operations: ["gradient"])
    #expect(report.notRun.count == report.entries.count && report.notRun.count >= 15)
    #expect(!report.isPassed)
  }

  @Test(arguments: Fault.allCases)
  func everySeededFaultIsFoundByEachOfItsOperations(_ fault: Fault) {
    let backend = NaiveBackend<Double>(fault)
    for operation in fault.operations {
      let cases = OperationCase<NaiveBackend<Double>>.all.filter { $0.operation == operation }
      #expect(cases.contains { $0.run(backend).isFailed }, "\(fault) passes \(cases.count) cases of \(operation)")
    }
  }

  @Test func everyOperationOfTheProtocolHasCases() {
    let operations = Set(OperationCase<NaiveBackend<Double>>.operations)
    for name in [
      "upload", "zeros", "copy", "copyInto", "freeze", "vector", "random", "add", "scale", "addBias", "addColumnSums", "sum", "dot",
      "rowDots", "scaleRows", "gemm", "rmsNorm", "rmsNormBackward", "rmsNormWeightGradient", "rope", "attention", "attentionBackward",
      "swiGLU", "swiGLUBackward", "embedding", "addEmbeddingGradient", "crossEntropy", "gather", "addScattered", "dropout", "softmax",
      "topK", "route", "routerBackward", "dispatch", "combine", "dispatchBlocks", "combineBlocks", "groupedGemm", "groupedOuter",
      "routedDropout", "adamW", "sgd", "clipFactor", "NaN", "repetition", "gradient", "sharing", "counters",
    ] { #expect(operations.contains(name), "no case of \(name)") }
  }

  @Test func noTwoCasesShareAName() {
    let names = OperationCase<NaiveBackend<Double>>.all.map(\.name)
    #expect(Set(names).count == names.count)
  }

  @Test func floatAgreesWithDoubleToRounding() {
    let report = ConformanceReport(NaiveBackend<Float>(), against: NaiveBackend<Double>())
    #expect(report.isPassed && report.entries.count == 4, "\(report)")
  }

  @Test(arguments: [Fault.rmsNormBackwardWithoutMean, .ropePairsNeighbours, .weightsNotRenormalised, .crossEntropyIgnoresScale])
  func floatWithAFaultDisagreesWithDouble(_ fault: Fault) {
    let report = ConformanceReport(NaiveBackend<Float>(fault), against: NaiveBackend<Double>())
    #expect(!report.failed.isEmpty, "\(fault) passes")
  }
}
