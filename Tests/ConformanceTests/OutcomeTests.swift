import Conformance
import Tensors
import Testing

/// Each way in which a comparison must be able to fail.
@Suite struct OutcomeTests {
  private typealias B = NaiveBackend<Double>
  private let backend = NaiveBackend<Double>()

  private func outcome(isEmpty: Bool = false, expectsNaN: Bool = false, _ body: @escaping (inout Trial<B>) throws -> Void) -> Outcome {
    OperationCase<B>("test", "", .contiguous, isEmpty: isEmpty, expectsNaN: expectsNaN, body).run(backend)
  }

  private let m = Matrix(2, 3, [1, 2, 3, 4, 5, 6])

  @Test func equalValuesPass() {
    #expect(outcome { try $0.expectExactly("x", $0.device(m), m) } == .passed(error: 0, bound: 0))
  }

  @Test func aFoundNaNFails() {
    var bad = m
    bad[1, 2] = .nan
    let matrix = bad
    #expect(outcome { try $0.expect("x", $0.device(matrix), m, 1000, of: m) }.isFailed)
    #expect(outcome { $0.expect("x", error: .nan, within: 1) }.isFailed)
    #expect(outcome { $0.expect("x", error: 0, within: .nan) }.isFailed)
  }

  @Test func anExpectedNaNFailsUnlessTheCaseIsAboutNaN() {
    let nan = Matrix(1, 1, [.nan])
    #expect(outcome { try $0.expect("x", $0.device(nan), nan, 1000, of: nan) }.isFailed)
    #expect(outcome(expectsNaN: true) { try $0.expect("x", $0.device(nan), nan, 1000, of: nan) }.isPassed)
    #expect(outcome(expectsNaN: true) { try $0.expect("x", $0.device(Matrix(1, 1)), nan, 1000, of: nan) }.isFailed)
    #expect(outcome(expectsNaN: true) { try $0.expectExactly("x", $0.device(m), m) }.isFailed)
  }

  @Test func aBoundOfNaNFails() {
    let bound = Matrix(2, 3, repeating: .nan)
    #expect(outcome { try $0.expect("x", $0.device(m.map { $0 + 1e-9 }), m, within: bound) }.isFailed)
  }

  @Test func anotherShapeOfTheSameCountFails() {
    #expect(outcome { try $0.expectExactly("x", $0.device(m.values), m) }.isFailed)
    #expect(outcome { try $0.expectExactly("x", $0.device(Matrix(3, 2, m.values)), m) }.isFailed)
    #expect(outcome { try $0.expectExactly("x", $0.device(Matrix(1, 6, m.values)), m.values) }.isFailed)
  }

  @Test func nothingComparedFailsUnlessDeclaredEmpty() {
    #expect(outcome { _ in } == .failed("nothing was compared"))
    #expect(outcome { try $0.expectExactly("x", $0.device(Matrix(0, 3)), Matrix(0, 3)) }.isFailed)
    #expect(outcome(isEmpty: true) { try $0.expectExactly("x", $0.device(Matrix(0, 3)), Matrix(0, 3)) }.isPassed)
  }

  @Test func aThrowingBackendFails() {
    struct Broken: Error {}
    #expect(outcome { _ in throw Broken() }.isFailed)
  }

  @Test func anInfiniteErrorFailsAndEqualInfinitiesDoNot() {
    let infinite = Matrix(1, 1, [.infinity])
    #expect(outcome { try $0.expect("x", $0.device(infinite), Matrix(1, 1, [1]), 10, of: Matrix(1, 1, [1])) }.isFailed)
    #expect(outcome { try $0.expectExactly("x", $0.device(infinite), infinite) }.isPassed)
  }

  @Test func anEmptyReportFails() {
    #expect(!ConformanceReport([]).isPassed)
    #expect("\(ConformanceReport([]))".contains("no case passed"))
    #expect(!ConformanceReport(backend, operations: ["no such operation"]).isPassed)
  }

  @Test func whatDidNotRunIsNamed() {
    let (x, y) = (Outcome.notRun(reason: "no GPU"), Outcome.passed(error: 0, bound: 1))
    let report = ConformanceReport([.init(name: "x", outcome: x), .init(name: "y", outcome: y)])
    #expect("\(report)" == "1 passed, 0 failed, 1 not run\nnot run: x: no GPU")
  }

  @Test func gammaIsHighamsBound() {
    let u = 0x1p-24
    let found = Tolerance(NaiveBackend<Float>()).gamma(10)
    #expect(abs(found - 10 * u / (1 - 10 * u)) <= 20 * 0x1p-53)
    #expect(Tolerance(NaiveBackend<Float>()).gamma(1 << 24) == .infinity)
    #expect(Tolerance(NaiveBackend<Float>()).bound(10, of: 0) == 0)
  }
}
