import CPUBackend
import CUDAEmulator
import Conformance
import Tensors
import Testing

@testable import CUDABackend

/// What the conformance suite's sizes are too small for: large tiles, bands of them, sums in parts, matrices expanded in parts.
@Suite struct ProductTests {
  /// Rows and columns of c, terms, and launches.
  static let large = [(1030, 1400, 19, 1), (2100, 700, 9, 1)]  // fewer and more rows of large tiles than a band has
  static let small = [
    (600, 40, 33, 1),  // more rows of small tiles
    (40, 33, 4101, 2), (3, 70, 4101, 2), (65, 1, 2048, 2),  // sums in parts
    (33, 34, 2047, 1), (700, 65, 2050, 1),  // in one
  ]

  @Test(arguments: zip(large, [(false, true), (true, false)]))
  func largeTilesMeetTheirBounds(_ size: (Int, Int, Int, Int), _ transposed: (Bool, Bool)) throws {
    let problem = Problem(size.0, size.1, size.2, transposed)
    try problem.check(CUDAFloat(EmulatedDevice.open(seed: 5), isPoisoned: true))
    try problem.check(CUDADouble(EmulatedDevice.open(seed: 6), isPoisoned: true))
  }

  @Test(arguments: small, [(false, false), (true, false), (false, true), (true, true)])
  func longSumsAndBandsMeetTheirBounds(_ size: (Int, Int, Int, Int), _ transposed: (Bool, Bool)) throws {
    let problem = Problem(size.0, size.1, size.2, transposed)
    try problem.check(CUDAFloat(EmulatedDevice.open(seed: 5), isPoisoned: true))
    try problem.check(CUDADouble(EmulatedDevice.open(seed: 6), isPoisoned: true))
  }

  @Test(arguments: large + small)
  func onlyLongSumsTakeASecondLaunch(_ m: Int, _ n: Int, _ k: Int, _ launches: Int) throws {
    let opened = emulator_open(emulator_options(seed: 0, is_watched: false, is_idle: true, has_products: false))
    let backend = try CUDAFloat(CUDADevice(opened))
    var c = backend.zeros(Shape(m, n))
    let (a, b) = (backend.zeros(Shape(m, k)), backend.zeros(Shape(k, n)))
    let before = emulator_counts(opened.device!).launches
    backend.gemm(1, a.operand, b.operand, 0, into: &c, rows: nil)
    #expect(emulator_counts(opened.device!).launches - before == launches)
  }

  @Test func watchedLargeTilesStayInBoundsAndDoNotRace() throws {
    try Problem(1030, 1400, 9, (false, true)).check(CUDAFloat(EmulatedDevice.open(seed: 7, isWatched: true), isPoisoned: true))
    try Problem(40, 33, 4101, (true, false)).check(CUDAFloat(EmulatedDevice.open(seed: 8, isWatched: true), isPoisoned: true))
  }

  /// OpenBLAS in the place of the vendor's library: the translation into its column-major words.
  @Test func productsOfTheVendorMeetEveryBound() throws {
    let float64 = ConformanceReport(try CUDADouble(EmulatedDevice.open(hasProducts: true), isPoisoned: true), operations: ["gemm"])
    #expect(float64.isPassed && float64.notRun.isEmpty, "\(float64)")
    let float32 = ConformanceReport(try CUDAFloat(EmulatedDevice.open(hasProducts: true), isPoisoned: true), operations: ["gemm"])
    #expect(float32.isPassed && float32.notRun.isEmpty, "\(float32)")
  }

  @Test func productsWithEncodedMatricesExpandThemInParts() throws {
    let backend = try CUDAFloat(EmulatedDevice.open(seed: 9), isPoisoned: true)
    backend.core.expandedCount = 100  // three rows of 33 at a time
    let report = ConformanceReport(backend, operations: ["gemm"])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test func productsWithFewRowsReadTheEncodedMatrixInOneLaunch() throws {
    let opened = emulator_open(emulator_options(seed: 1, is_watched: false, is_idle: false, has_products: true))
    let backend = try CUDAFloat(CUDADevice(opened), isPoisoned: true)
    let frozen = [UInt8](repeating: 0, count: 34 * 4 * 64).withUnsafeBytes { backend.freeze($0, .q8_0, Shape(64, 128)) }
    for (rows, launches) in [(1, 1), (8, 1), (9, 2)] {
      var c = backend.zeros(Shape(rows, 64))
      let a = backend.zeros(Shape(rows, 128))
      let before = emulator_counts(opened.device!).launches
      backend.gemm(1, a.operand, .frozen(frozen, transposed: true), 0, into: &c, rows: nil)
      #expect(emulator_counts(opened.device!).launches - before == launches, "\(rows) rows")
    }
  }

  @Test func aRowThatAnEncodedTableHasNotIsReported() throws {
    let backend = try CUDAFloat(EmulatedDevice.open(isWatched: true), isPoisoned: true)
    let table = [UInt8](repeating: 0, count: 2 * 4 * 9).withUnsafeBytes { backend.freeze($0, .bfloat16, Shape(4, 9)) }
    for id in [-1, 4] as [Int32] {
      let rows = backend.embedding(backend.upload([3, id]), .frozen(table, transposed: false))
      #expect(throws: CUDAError("embedding: index \(id), expected 0 ..< 4")) { try backend.download(rows) }
    }
  }
}

/// A product with random factors, and what the processor makes of it in double precision.
private struct Problem {
  let m: Int
  let n: Int
  let k: Int
  let transposed: (Bool, Bool)
  let a: Matrix
  let b: Matrix
  let c: Matrix

  init(_ m: Int, _ n: Int, _ k: Int, _ transposed: (Bool, Bool)) {
    var source = RandomSource("product")
    (self.m, self.n, self.k, self.transposed) = (m, n, k, transposed)
    a = transposed.0 ? source.matrix(k, m) : source.matrix(m, k)
    b = transposed.1 ? source.matrix(n, k) : source.matrix(k, n)
    c = source.matrix(m, n)
  }

  func operands<B: Backend>(_ backend: B, _ map: (Double) -> Double = { $0 }) -> (Operand<B>, Operand<B>) {
    func device(_ x: Matrix, _ isTransposed: Bool) -> Operand<B> {
      .dense(backend.upload(x.values.map { B.Scalar(map($0)) }, Shape(x.rows, x.columns)), transposed: isTransposed)
    }
    return (device(a, transposed.0), device(b, transposed.1))
  }

  /// −½ a b + 2 c.
  func result<B: Backend>(_ backend: B, _ alpha: Double = -0.5, _ map: (Double) -> Double = { $0 }) throws -> [Double] {
    let (x, y) = operands(backend, map)
    var z = backend.upload(c.values.map { B.Scalar(map($0)) }, Shape(m, n))
    backend.gemm(alpha, x, y, 2, into: &z, rows: nil)
    return try backend.download(z).map { Double($0) }
  }

  /// Every element within γ of k + 3 roundings of its terms' magnitudes.
  func check<B: Backend>(_ backend: B) throws {
    let oracle = CPUDouble(threads: 1)
    let (found, expected, magnitude) = (try result(backend), try result(oracle), try result(oracle, 0.5, { abs($0) }))
    let tolerance = Tolerance(backend)
    let worst = found.indices.filter { !(abs(found[$0] - expected[$0]) <= tolerance.bound(Double(k + 3), of: magnitude[$0])) }
    #expect(
      worst.isEmpty,
      "\(worst.count) of \(found.count), first \(worst.first.map { "(\($0 / n),\($0 % n)): \(found[$0]), expected \(expected[$0])" } ?? "")"
    )
  }
}
