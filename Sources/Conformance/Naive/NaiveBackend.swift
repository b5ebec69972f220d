import Tensors

/// The naive definitions as a backend: every operation in plain loops, so that a whole model can be run and read in them.
///
/// Values are kept in `Scalar` and computed in float64: `NaiveBackend<Double>` is the definition itself, `NaiveBackend<Float>` the
/// definition with one rounding an operation. Nothing about it is fast, and there is no pool; it counts what the protocol asks for.
public final class NaiveBackend<Scalar: BinaryFloatingPoint & SIMDScalar & Codable & Sendable>: Backend {
  /// A list of scalars.
  public final class Storage {
    /// The scalars.
    public internal(set) var values: [Scalar]

    init(_ values: [Scalar]) { self.values = values }
  }

  /// A list of integers.
  public final class IndexStorage {
    /// The integers.
    public let values: [Int32]

    init(_ values: [Int32]) { self.values = values }
  }

  /// The decoded numbers of a weight.
  public struct FrozenMatrix: FrozenMatrixShape {
    /// The numbers, row after row.
    public let values: [Scalar]
    /// Rows and columns, or the length of a vector.
    public let shape: Shape
  }

  typealias T = Tensor<NaiveBackend>
  typealias I = Indices<NaiveBackend>

  public private(set) var counters = Counters()

  /// A backend that has counted nothing.
  public init() {}

  // MARK: Between tensors and lists

  /// Counts an operation, in which no other is called.
  func operation<R>(_ body: () throws -> R) rethrows -> R {
    counters.operations += 1
    return try body()
  }

  func list(_ x: T) -> [Double] {
    var values: [Double] = []
    for i in 0..<x.rowCount {
      for j in 0..<x.columnCount { values.append(Double(x.storage.values[x.offset + i * x.rowStride + j])) }
    }
    return values
  }

  func list(_ indices: I) -> [Int] { indices.storage.values[indices.offset..<indices.offset + indices.count].map { Int($0) } }

  func matrix(_ x: T) -> Matrix { Matrix(x.rowCount, x.columnCount, list(x)) }

  func matrix(_ operand: Operand<NaiveBackend>) -> Matrix {
    switch operand {
    case .dense(let x, let transposed): return transposed ? matrix(x).transposed : matrix(x)
    case .frozen(let frozen, let transposed):
      let m = Matrix(frozen.shape.rows, frozen.shape.columns, frozen.values.map { Double($0) })
      return transposed ? m.transposed : m
    }
  }

  func tensor(_ m: Matrix) -> T { T(storage: Storage(m.values.map { Scalar($0) }), shape: Shape(m.rows, m.columns)) }
  func tensor(_ v: [Double]) -> T { T(storage: Storage(v.map { Scalar($0) }), shape: Shape(v.count)) }
  func indices(_ v: [Int]) -> I { I(storage: IndexStorage(v.map { Int32($0) }), count: v.count) }

  /// Writes all elements of x, into storage of its own where somebody else holds it.
  func write(_ values: [Double], _ x: inout T) {
    if !isKnownUniquelyReferenced(&x.storage) {
      counters.sharedCopies += 1
      x = T(storage: Storage(list(x).map { Scalar($0) }), shape: x.shape)
    }
    for i in 0..<x.rowCount {
      for j in 0..<x.columnCount { x.storage.values[x.offset + i * x.rowStride + j] = Scalar(values[i * x.columnCount + j]) }
    }
  }

  // MARK: Memory

  public func empty(_ shape: Shape) -> Tensor<NaiveBackend> {
    T(storage: Storage([Scalar](repeating: .nan, count: shape.count)), shape: shape)
  }

  public func zeros(_ shape: Shape) -> Tensor<NaiveBackend> {
    operation { T(storage: Storage([Scalar](repeating: 0, count: shape.count)), shape: shape) }
  }

  public func fill(_ value: Double, _ x: inout Tensor<NaiveBackend>) {
    operation { write([Double](repeating: value, count: x.shape.count), &x) }
  }

  public func copy(_ x: Tensor<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { T(storage: Storage(list(x).map { Scalar($0) }), shape: x.shape) }
  }

  public func copy(_ x: Tensor<NaiveBackend>, into y: inout Tensor<NaiveBackend>, rows: Range<Int>?, columns: Range<Int>?) {
    operation {
      var (part, whole) = (matrix(x), matrix(y))
      let (rows, columns) = (rows ?? 0..<whole.rows, columns ?? 0..<whole.columns)
      part = Matrix(rows.count, columns.count, part.values)
      for i in 0..<rows.count {
        for j in 0..<columns.count { whole[rows.lowerBound + i, columns.lowerBound + j] = part[i, j] }
      }
      write(whole.values, &y)
    }
  }

  public func copy(_ x: Tensor<NaiveBackend>, into y: inout Tensor<NaiveBackend>, rows: Indices<NaiveBackend>) {
    operation { write(Naive.copy(matrix(x), rows: list(rows), to: matrix(y)).values, &y) }
  }

  public func upload(_ values: [Scalar], _ shape: Shape) -> Tensor<NaiveBackend> {
    operation {
      counters.bytesToDevice += values.count * MemoryLayout<Scalar>.size
      return T(storage: Storage(values), shape: shape)
    }
  }

  public func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Tensor<NaiveBackend> {
    operation {
      counters.bytesToDevice += bytes.count
      return T(storage: Storage(Naive.decode(Array(bytes), format).map { Scalar($0) }), shape: shape)
    }
  }

  public func upload(_ values: [Int32]) -> Indices<NaiveBackend> {
    operation {
      counters.bytesToDevice += 4 * values.count
      return I(storage: IndexStorage(values), count: values.count)
    }
  }

  public func download(_ tensors: [Tensor<NaiveBackend>]) throws -> [[Scalar]] {
    operation {
      counters.waits += 1
      return tensors.map { x in
        counters.bytesToHost += x.shape.count * MemoryLayout<Scalar>.size
        return list(x).map { Scalar($0) }
      }
    }
  }

  public func download(_ indices: Indices<NaiveBackend>) throws -> [Int32] {
    operation {
      counters.waits += 1
      counters.bytesToHost += 4 * indices.count
      return list(indices).map { Int32($0) }
    }
  }

  public func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> FrozenMatrix {
    operation {
      counters.bytesToDevice += bytes.count
      return FrozenMatrix(values: Naive.decode(Array(bytes), format).map { Scalar($0) }, shape: shape)
    }
  }

  public func freeze(_ tensor: Tensor<NaiveBackend>) -> FrozenMatrix {
    FrozenMatrix(values: list(tensor).map { Scalar($0) }, shape: tensor.shape)
  }

  public func vector(_ frozen: FrozenMatrix) -> Tensor<NaiveBackend> { T(storage: Storage(frozen.values), shape: frozen.shape) }

  public func synchronize() throws { counters.waits += 1 }

  public func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> Tensor<NaiveBackend> {
    operation {
      let values =
        switch distribution {
        case .uniform(let bound): Naive.uniform(shape.count, bound: bound, key)
        case .normal(let deviation): Naive.normal(shape.count, deviation: deviation, key)
        }
      return T(storage: Storage(values.map { Scalar($0) }), shape: shape)
    }
  }

  // MARK: Elementwise and sums

  public func add(_ alpha: Double, _ x: Tensor<NaiveBackend>, into y: inout Tensor<NaiveBackend>, rows: Range<Int>?) {
    operation {
      var whole = matrix(y)
      let (x, rows) = (matrix(x), rows ?? 0..<whole.rows)
      for i in 0..<rows.count {
        for j in 0..<whole.columns { whole[rows.lowerBound + i, j] += alpha * x[i, j] }
      }
      write(whole.values, &y)
    }
  }

  public func scale(_ alpha: Double, _ x: inout Tensor<NaiveBackend>) { operation { write(Naive.scale(alpha, matrix(x)).values, &x) } }

  public func addBias(_ bias: Tensor<NaiveBackend>, into y: inout Tensor<NaiveBackend>) {
    operation { write(Naive.addBias(list(bias), to: matrix(y)).values, &y) }
  }

  public func addColumnSums(_ x: Tensor<NaiveBackend>, weights: Tensor<NaiveBackend>?, into sums: inout Tensor<NaiveBackend>) {
    operation { write(Naive.addColumnSums(matrix(x), weights: weights.map { list($0) }, to: list(sums)), &sums) }
  }

  public func sum(_ x: Tensor<NaiveBackend>) -> Tensor<NaiveBackend> { operation { tensor([Naive.sum(matrix(x))]) } }

  public func dot(_ x: Tensor<NaiveBackend>, _ y: Tensor<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { tensor([Naive.dot(matrix(x), matrix(y))]) }
  }

  public func rowDots(_ x: Tensor<NaiveBackend>, _ y: Tensor<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { tensor(Naive.rowDots(matrix(x), matrix(y))) }
  }

  public func scaleRows(_ weights: Tensor<NaiveBackend>, _ x: inout Tensor<NaiveBackend>) {
    operation { write(Naive.scaleRows(list(weights), matrix(x)).values, &x) }
  }

  // MARK: Products

  public func gemm(
    _ alpha: Double, _ a: Operand<NaiveBackend>, _ b: Operand<NaiveBackend>, _ beta: Double, into c: inout Tensor<NaiveBackend>,
    rows: Range<Int>?
  ) {
    operation {
      var whole = matrix(c)
      let rows = rows ?? 0..<whole.rows
      let part = Naive.gemm(alpha, matrix(a), matrix(b), beta, whole.rows(rows))
      for i in 0..<rows.count {
        for j in 0..<whole.columns { whole[rows.lowerBound + i, j] = part[i, j] }
      }
      write(whole.values, &c)
    }
  }
}
