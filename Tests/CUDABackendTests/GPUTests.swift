import CUDABackend
import Conformance
import Foundation
import TestModels
import Testing
import Traces

/// A GPU of this machine, where it has one. Where not, each test is skipped and counted, and says what was looked for.
@Suite struct GPUTests {
  /// Tests share what was compiled.
  static let cache = NSTemporaryDirectory() + "mixlora-kernels-\(ProcessInfo.processInfo.processIdentifier)"

  static func device() throws -> CUDADevice {
    try CUDADevice(path: ProcessInfo.processInfo.environment["MIXLORA_CUDA_PATH"], cache: cache)
  }
  static let missing: CUDAError? = {
    do {
      _ = try device()
      return nil
    } catch {
      return error as? CUDAError
    }
  }()
  static let isThere = missing == nil
  static let why = Comment(rawValue: "no GPU: not run. " + (missing?.description ?? ""))

  @Test(.enabled(if: isThere, why)) func float64MeetsEveryBound() throws {
    let report = ConformanceReport(try CUDADouble(Self.device(), isPoisoned: true))
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(.enabled(if: isThere, why)) func float32MeetsEveryBound() throws {
    let operations = Set(OperationCase<CUDAFloat>.operations).subtracting(["gradient"])
    let report = ConformanceReport(try CUDAFloat(Self.device(), isPoisoned: true), operations: operations)
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(.enabled(if: isThere, why), arguments: Golden.cases)
  func float64EqualsPyTorchInEveryTensor(_ name: String) throws {
    let trace = try Golden.trace(name, on: CUDADouble(Self.device(), isPoisoned: true))
    let agreement = Agreement(of: trace.tensors.firstPass(), with: try Golden.expected(name).firstPass())
    #expect(agreement.holds(to: 1e-12), "\(agreement)")
  }
}
