/// A matrix of float64 numbers on the host, which the naive definitions compute with.
///
/// Nothing about it is fast. `m[i, j]` is the element of row i and column j, as in the equations.
public struct Matrix: Equatable, Sendable {
  /// Number of rows.
  public let rows: Int
  /// Number of columns.
  public let columns: Int
  /// The elements, row after row.
  public var values: [Double]

  /// The matrix of row-major `values`.
  ///
  /// - Precondition: `values.count` is `rows · columns`.
  public init(_ rows: Int, _ columns: Int, _ values: [Double]) {
    precondition(values.count == rows * columns, "\(values.count) values for a matrix (\(rows),\(columns))")
    self.rows = rows
    self.columns = columns
    self.values = values
  }

  /// A matrix of zeros, or of one number throughout.
  public init(_ rows: Int, _ columns: Int, repeating value: Double = 0) {
    self.init(rows, columns, [Double](repeating: value, count: rows * columns))
  }

  /// The matrix whose element (i,j) is `element(i, j)`.
  public init(_ rows: Int, _ columns: Int, _ element: (_ i: Int, _ j: Int) -> Double) {
    self.init(rows, columns)
    for i in 0..<rows {
      for j in 0..<columns { self[i, j] = element(i, j) }
    }
  }

  /// The element of row i and column j.
  public subscript(i: Int, j: Int) -> Double {
    get { values[index(i, j)] }
    set { values[index(i, j)] = newValue }
  }

  private func index(_ i: Int, _ j: Int) -> Int {
    precondition(i >= 0 && i < rows && j >= 0 && j < columns, "element (\(i),\(j)) of a matrix (\(rows),\(columns))")
    return i * columns + j
  }

  /// Row i as a list.
  public func row(_ i: Int) -> [Double] { Array(values[i * columns..<(i + 1) * columns]) }

  /// mᵀ.
  public var transposed: Matrix { Matrix(columns, rows) { i, j in self[j, i] } }

  /// |m|, element by element.
  public var magnitude: Matrix { map { abs($0) } }

  /// Each element through `transform`.
  public func map(_ transform: (Double) -> Double) -> Matrix { Matrix(rows, columns, values.map(transform)) }

  /// The rows of `range`.
  public func rows(_ range: Range<Int>) -> Matrix {
    Matrix(range.count, columns) { i, j in self[range.lowerBound + i, j] }
  }

  /// The columns of `range`.
  public func columns(_ range: Range<Int>) -> Matrix {
    Matrix(rows, range.count) { i, j in self[i, range.lowerBound + j] }
  }
}
