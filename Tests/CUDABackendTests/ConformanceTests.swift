import CUDABackend
import Conformance
import Foundation
import Testing

/// The whole suite on the emulator, with fresh buffers full of NaN: threads and blocks in an order of its own in each precision, in a
/// third one under the watch. `MIXLORA_EMULATOR_SEEDS=1,2,3` runs both precisions in these orders.
@Suite struct ConformanceTests {
  static let operations = OperationCase<CUDADouble>.operations
  static let seeds = ProcessInfo.processInfo.environment["MIXLORA_EMULATOR_SEEDS"].map {
    $0.split(separator: ",").compactMap { UInt64($0) }
  }

  @Test(arguments: operations, seeds ?? [1])
  func float64MeetsEveryBound(_ operation: String, _ seed: UInt64) throws {
    let report = ConformanceReport(try CUDADouble(EmulatedDevice.open(seed: seed), isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(arguments: operations.filter { $0 != "gradient" }, seeds ?? [2])
  func float32MeetsEveryBound(_ operation: String, _ seed: UInt64) throws {
    let report = ConformanceReport(try CUDAFloat(EmulatedDevice.open(seed: seed), isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(arguments: operations.filter { $0 != "gradient" })
  func watchedKernelsStayInBoundsAndDoNotRace(_ operation: String) throws {
    let report = ConformanceReport(
      try CUDAFloat(EmulatedDevice.open(seed: 3, isWatched: true), isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }
}
