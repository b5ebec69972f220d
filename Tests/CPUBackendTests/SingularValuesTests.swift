import CPUBackend
import Conformance
import Tensors
import Testing

/// ``CPUDouble/singularValues(_:_:_:)`` against the definition and against what must hold.
@Suite struct SingularValuesTests {
  private let backend = CPUDouble(threads: 1, isPoisoned: true)

  private func random(_ rows: Int, _ columns: Int, seed: UInt64) -> Matrix {
    let values = try? backend.download(backend.random(Shape(rows, columns), .normal(deviation: 1), RandomKey(seed: seed)))
    return Matrix(rows, columns, values ?? [])
  }

  private func values(_ s: Double, _ b: Matrix, _ a: Matrix) -> [Double]? {
    backend.singularValues(s, backend.upload(b.values, Shape(b.rows, b.columns)), backend.upload(a.values, Shape(a.rows, a.columns)))
  }

  /// Both methods are backward stable: an error of some 10 max(O,I) ε ‖M‖; measured 2e-15 ‖M‖.
  @Test(arguments: [(7, 3, 5), (3, 3, 3), (1, 1, 1), (4, 1, 9), (2, 5, 7), (7, 5, 2), (1, 4, 1), (40, 16, 33), (16, 17, 16)])
  func theyAreThoseOfTheWholeProduct(_ o: Int, _ r: Int, _ i: Int) throws {
    let (b, a) = (random(o, r, seed: 1), random(r, i, seed: 2))
    for s in [1, -0.5, 2.25] {
      let found = try #require(values(s, b, a))
      let product = Naive.product(b, a).map { s * $0 }
      let expected = Naive.singularValues(product) + [Double](repeating: 0, count: r)
      #expect(found.count == r)
      for (j, value) in found.enumerated() { #expect(abs(value - expected[j]) <= 1e-13 * expected[0], "\(j): \(found) \(expected)") }
      #expect(zip(found, found.dropFirst()).allSatisfy { $0 >= $1 })
      let squares = product.values.reduce(0) { $0 + $1 * $1 }
      #expect(abs(found.reduce(0) { $0 + $1 * $1 } - squares) <= 1e-13 * squares, "Σσ² is ‖sBA‖²")
    }
  }

  @Test func aZeroBHasZerosAlone() { #expect(values(2, Matrix(6, 3), random(3, 4, seed: 3)) == [0, 0, 0]) }

  @Test func anElementThatIsNotFiniteHasNone() {
    for bad in [Double.nan, .infinity] {
      var a = random(3, 4, seed: 3)
      a[1, 2] = bad
      #expect(values(1, random(5, 3, seed: 4), a) == nil)
      #expect(values(1, a.transposed, random(3, 4, seed: 4)) == nil)
    }
    #expect(values(1e200, random(5, 3, seed: 4).map { $0 * 1e200 }, random(3, 4, seed: 3)) == nil, "an overflow")
  }

  @Test func aRowRangeOfALargerTensorIsReadInPlace() throws {
    let (b, a) = (random(5, 3, seed: 4), random(8, 4, seed: 5))
    let whole = backend.upload(a.values, Shape(8, 4))
    let found = backend.singularValues(1, backend.upload(b.values, Shape(5, 3)), whole.rows(2..<5))
    #expect(found == values(1, b, a.rows(2..<5)))
  }
}
