// What the lessons' cells use beside the library: tensors from numbers and back, numbers as text, small pictures, expectations.
import Conformance
import MixLoRA

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

// MARK: Numbers in and out

/// A matrix of the given rows.
func matrix(_ rows: [Double]...) -> Matrix { Matrix(rows.count, rows[0].count, rows.flatMap { $0 }) }

extension Backend {
  /// The matrix where the backend computes.
  func tensor(_ m: Matrix) -> Tensor<Self> { upload(m.values.map { Scalar($0) }, Shape(m.rows, m.columns)) }
  /// The vector where the backend computes.
  func tensor(_ v: [Double]) -> Tensor<Self> { upload(v.map { Scalar($0) }, Shape(v.count)) }
  /// The tensor's numbers; a vector is one row.
  func matrix(_ x: Tensor<Self>) throws -> Matrix { Matrix(x.shape.rows, x.shape.columns, try download(x).map { Double($0) }) }
}

/// A number with so many digits behind the point.
func number(_ x: Double, _ digits: Int = 3) -> String {
  guard x.isFinite else { return "\(x)" }
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let whole = Int((abs(x) * scale).rounded())
  let (before, behind) = whole.quotientAndRemainder(dividingBy: Int(scale))
  let fraction = String(repeating: "0", count: digits - (digits == 0 ? 0 : "\(behind)".count)) + (digits == 0 ? "" : "\(behind)")
  return (x < 0 && whole > 0 ? "-" : "") + "\(before)" + (digits == 0 ? "" : "." + fraction)
}

/// Text with blanks before it up to a width.
func right(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
/// Text with blanks behind it up to a width.
func left(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }

/// Prints a matrix under its name, a line a row.
func show(_ name: String, _ m: Matrix, _ digits: Int = 3) {
  let cells = m.values.map { number($0, digits) }
  let width = cells.map(\.count).max() ?? 0
  for i in 0..<m.rows {
    let row = cells[i * m.columns..<(i + 1) * m.columns].map { right($0, width) }.joined(separator: "  ")
    print((i == 0 ? name + " = " : String(repeating: " ", count: name.count + 3)) + row)
  }
}

/// Prints a list of numbers under its name.
func show(_ name: String, _ values: [Double], _ digits: Int = 3) { show(name, Matrix(1, values.count, values), digits) }

// MARK: Checks

/// The largest difference of two matrices; NaN if a number of either is none.
func difference(_ a: Matrix, _ b: Matrix) -> Double {
  guard a.rows == b.rows, a.columns == b.columns, !a.values.isEmpty else { return .nan }
  return zip(a.values, b.values).reduce(0) { largest, pair in
    let d = abs(pair.0 - pair.1)
    return d.isNaN || largest.isNaN ? .nan : max(largest, d)
  }
}

/// True if two matrices are equal but for rounding. (NaN is not: a comparison with it is false.)
func agree(_ a: Matrix, _ b: Matrix, within tolerance: Double = 1e-12) -> Bool { difference(a, b) <= tolerance }

/// The slope of `f` in each element of x, by central differences: (f(x + h) − f(x − h)) / 2h.
func slopes(at x: Matrix, _ f: (Matrix) throws -> Double) rethrows -> Matrix {
  let h = 1e-5
  var slopes = x
  for i in x.values.indices {
    var (more, less) = (x, x)
    more.values[i] += h
    less.values[i] -= h
    slopes.values[i] = (try f(more) - f(less)) / (2 * h)
  }
  return slopes
}

/// The sum of the products of two matrices' elements.
func dot(_ a: Matrix, _ b: Matrix) -> Double { zip(a.values, b.values).reduce(0) { $0 + $1.0 * $1.1 } }

// MARK: Exercises

nonisolated(unsafe) private var expectations = 0

/// What the hidden test of an exercise expects.
func expect(_ isTrue: Bool, _ what: String) {
  expectations += 1
  if !isTrue { mark("failed " + what) }
}

/// Tells the tool which part of the lesson the next lines belong to; what was printed is out, should the next part trap.
func mark(_ text: String) {
  print("\u{1}" + text)
  fflush(nil)
}

func endExercise() {
  mark("ended \(expectations)")
  expectations = 0
}
