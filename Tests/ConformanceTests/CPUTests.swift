import CPUBackend
import Conformance
import Tensors
import Testing

/// The suite on both CPU backends, with fresh buffers full of NaN.
@Suite struct CPUTests {
  static let operations = OperationCase<CPUDouble>.operations

  @Test(arguments: operations.filter { !OperationCase<CPUDouble>.optional.contains($0) }, [1, 2, 3])
  func float64MeetsEveryBound(_ operation: String, _ threads: Int) {
    let report = ConformanceReport(CPUDouble(threads: threads, isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(arguments: operations.filter { $0 != "gradient" }, [1, 2, 3])
  func float32MeetsEveryBound(_ operation: String, _ threads: Int) {
    let report = ConformanceReport(CPUFloat(threads: threads, isPoisoned: true), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  /// The oracle has no pass over the experts' hidden rows: the layer's lines run.
  @Test(arguments: OperationCase<CPUDouble>.optional)
  func whatTheOracleDoesWithoutIsCountedAsNotRun(_ operation: String) {
    let report = ConformanceReport(CPUDouble(threads: 1), operations: [operation])
    #expect(report.notRun.count == report.entries.count && report.notRun.count > 50, "\(report)")
  }

  @Test(arguments: [1, 2, 3])
  func float32AgreesWithFloat64ToRounding(_ threads: Int) {
    let (low, high) = (CPUFloat(threads: threads, isPoisoned: true), CPUDouble(threads: threads, isPoisoned: true))
    let report = ConformanceReport(low, against: high)
    #expect(report.isPassed && report.entries.count == 4, "\(report)")
  }
}
