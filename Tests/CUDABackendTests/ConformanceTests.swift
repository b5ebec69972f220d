import CUDABackend
import Conformance
import Foundation
import Testing

/// The whole suite on the emulator: fresh buffers full of NaN, threads and blocks in three orders, and once under the watch.
@Suite struct ConformanceTests {
  static let operations = OperationCase<CUDADouble>.operations.filter { wanted?.contains($0) ?? written.contains($0) }
  static let wanted = ProcessInfo.processInfo.environment["CUDA_OPERATIONS"].map { Set($0.split(separator: ",").map(String.init)) }
  static let written: Set = [
    "upload", "zeros", "empty", "fill", "copy", "sharing", "synchronize", "endWarmUp", "headRows", "add", "scale", "addBias", "scaleRows",
    "softcap", "gated", "gatedBackward", "dropout", "random",
    "addColumnSums", "sum", "dot", "rowDots", "rmsNorm", "rmsNormBackward", "rmsNormWeightGradient", "rope", "embedding",
    "addEmbeddingGradient", "crossEntropy", "gather", "addScattered", "clipFactor", "adamW", "sgd", "softmax", "choose", "route",
    "routerBackward", "dispatch", "combine", "dispatchBlocks", "combineBlocks", "counters",
    "attention", "attentionBackward", "expertHidden", "expertHiddenBackward", "NaN", "repetition", "gradient",
    "gemm", "groupedGemm", "groupedOuter", "freeze", "freezeTensor", "vector",
  ]

  @Test(arguments: operations, [1, 2, 3] as [UInt64])
  func float64MeetsEveryBound(_ operation: String, _ seed: UInt64) throws {
    let report = ConformanceReport(try CUDADouble(EmulatedDevice.open(seed: seed), isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(arguments: operations.filter { $0 != "gradient" }, [1, 2, 3] as [UInt64])
  func float32MeetsEveryBound(_ operation: String, _ seed: UInt64) throws {
    let report = ConformanceReport(try CUDAFloat(EmulatedDevice.open(seed: seed), isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(arguments: operations.filter { $0 != "gradient" })
  func watchedKernelsStayInBoundsAndDoNotRace(_ operation: String) throws {
    let report = ConformanceReport(
      try CUDAFloat(EmulatedDevice.open(seed: 4, isWatched: true), isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }
}
