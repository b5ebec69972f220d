import CPUBackend
import Conformance
import Tensors
import Testing

@testable import Comparison

/// The backend under the oracle, which hands every operation on.
@Suite struct RoundingTests {
  @Test func withoutAPrecisionItIsTheBackendBelow() {
    let report = ConformanceReport(RoundingBackend(CPUDouble(threads: 1)))
    #expect(report.isPassed, "\(report)")
  }

  /// Scales are stored in the lower precision, codes are what they are.
  @Test func numbersIn8BitsAreRoundedAsTheirScalesAre() throws {
    let backend = RoundingBackend(CPUDouble(threads: 1))
    backend.precision = .float32
    let map = DynamicMap.values(isSigned: true).map { Double($0) }
    var kept = ByteBlocks(Shape(300), backend.upload(map, Shape(256)), isSigned: true, on: backend)
    let x = backend.random(Shape(300), .normal(deviation: 1), RandomKey(seed: 1))
    backend.encode(x, into: &kept, factor: nil)
    #expect(try backend.download(kept.scales).allSatisfy { $0 > 0 && Double(Float($0)) == $0 })
    let (found, exact) = (try backend.download(backend.decoded(kept)), try backend.download(x))
    // The widest parts of [0.1, 1] are 0.9 / 64 wide, half of which is the most that a number is off, the rounded scale apart.
    let largest = exact.map(abs).max() ?? 0
    #expect(zip(found, exact).allSatisfy { abs($0 - $1) <= 0.45 / 64 * largest * (1 + 1e-5) })
  }
}
