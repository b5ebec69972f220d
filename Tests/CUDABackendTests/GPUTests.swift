import CUDABackend
import Conformance
import Foundation
import TestModels
import Testing
import Traces

/// A GPU of this machine, where it has one. Where not, each test is skipped and counted, and says why.
@Suite struct GPUTests {
  static func device() throws -> CUDADevice {
    try CUDADevice(path: ProcessInfo.processInfo.environment["MIXLORA_CUDA_PATH"])
  }
  static let isThere = (try? device()) != nil

  @Test(.enabled(if: isThere, "no GPU: not run")) func float64MeetsEveryBound() throws {
    let report = ConformanceReport(try CUDADouble(Self.device(), isPoisoned: true))
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(.enabled(if: isThere, "no GPU: not run")) func float32MeetsEveryBound() throws {
    let operations = Set(OperationCase<CUDAFloat>.operations).subtracting(["gradient"])
    let report = ConformanceReport(try CUDAFloat(Self.device(), isPoisoned: true), operations: operations)
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(.enabled(if: isThere, "no GPU: not run"), arguments: Golden.cases)
  func float64EqualsPyTorchInEveryTensor(_ name: String) throws {
    let trace = try Golden.trace(name, on: CUDADouble(Self.device(), isPoisoned: true))
    let agreement = Agreement(of: trace.tensors.firstPass(), with: try Golden.expected(name).firstPass())
    #expect(agreement.holds(to: 1e-12), "\(agreement)")
  }
}
