import Platform
import Tensors

extension CPUBackend {
  public func empty(_ shape: Shape) -> Tensor<Self> {
    guard shape.rows >= 0, shape.columns >= 0 else { trap("empty: shape \(shape)") }
    return Tensor(storage: core.pool.buffer(shape.count), shape: shape)
  }

  public func zeros(_ shape: Shape) -> Tensor<Self> {
    core.timed("zeros") {
      if shape.isVector, shape.count >= Self.lazyCount { return Tensor(storage: core.pool.buffer(shape.count, isZero: true), shape: shape) }
      var y = empty(shape)
      fill(0, &y)
      return y
    }
  }

  public func fill(_ value: Double, _ x: inout Tensor<Self>) {
    core.timed("fill") {
      if value == 0, x.shape.isVector, x.shape.count == x.storage.count, x.shape.count >= Self.lazyCount,
        isKnownUniquelyReferenced(&x.storage)
      {
        return x.storage.clear()
      }
      let (v, xs) = (Scalar(value), writable(&x))
      forBlocks(xs) { rows, columns in
        for n in rows { (xs[n] + columns.lowerBound).update(repeating: v, count: columns.count) }
      }
    }
  }

  public func copy(_ x: Tensor<Self>) -> Tensor<Self> {
    core.timed("copy") {
      let (y, ys) = fresh(x.shape)
      let xs = rows(x)
      forBlocks(xs, ys) { rows, columns in
        for n in rows { (ys[n] + columns.lowerBound).update(from: xs[n] + columns.lowerBound, count: columns.count) }
      }
      return y
    }
  }

  public func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows rowRange: Range<Int>?, columns columnRange: Range<Int>?) {
    core.timed("copy") {
      let (rowRange, columnRange) = (rowRange ?? 0..<y.rowCount, columnRange ?? 0..<y.columnCount)
      guard rowRange.lowerBound >= 0, rowRange.upperBound <= y.rowCount, columnRange.lowerBound >= 0,
        columnRange.upperBound <= y.columnCount
      else { trap("copy: rows \(rowRange) and columns \(columnRange) of y \(y.shape)") }
      requireShapes("copy", ("x", Shape(x.rowCount, x.columnCount), Shape(rowRange.count, columnRange.count)))
      let (xs, ys) = (rows(x), writable(&y))
      forRanges(xs.count, cost: xs.width) { rows in
        for n in rows { (ys[rowRange.lowerBound + n] + columnRange.lowerBound).update(from: xs[n], count: xs.width) }
      }
    }
  }

  public func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows indices: Indices<Self>) {
    core.timed("copy") {
      requireShapes("copy", ("x", x.shape, Shape(indices.count, y.columnCount)))
      let (xs, index, ys) = (rows(x), integers(indices), writable(&y))
      forRanges(xs.count, cost: xs.width) { rows in
        for n in rows {
          let row = Int(index[n])
          guard row >= 0, row < ys.count else { trap("copy: index \(n) is row \(row) of \(ys.count)") }
          ys[row].update(from: xs[n], count: xs.width)
        }
      }
    }
  }

  public func upload(_ values: [Scalar], _ shape: Shape) -> Tensor<Self> {
    core.timed("upload") {
      guard values.count == shape.count else { trap("upload: \(values.count) values for the shape \(shape)") }
      let (y, ys) = fresh(shape)
      values.withUnsafeBufferPointer { if let base = $0.baseAddress { ys.base.update(from: base, count: $0.count) } }
      core.bytesToDevice += values.count * MemoryLayout<Scalar>.stride
      return y
    }
  }

  public func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Tensor<Self> {
    core.timed("upload") {
      guard bytes.count == shape.rows * format.rowBytes(shape.columns) else {
        trap("upload: \(bytes.count) bytes of \(format.rawValue) for the shape \(shape)")
      }
      let (y, ys) = fresh(shape)
      core.bytesToDevice += bytes.count
      guard let base = bytes.baseAddress else { return y }
      format.decode(base, shape.count, to: ys.base)
      return y
    }
  }

  public func upload(_ values: [Int32]) -> Indices<Self> {
    core.timed("upload") {
      let indices = freshIndices(values.count)
      values.withUnsafeBufferPointer { if let base = $0.baseAddress { integers(indices).update(from: base, count: $0.count) } }
      core.bytesToDevice += 4 * values.count
      return indices
    }
  }

  public func download(_ tensors: [Tensor<Self>]) throws -> [[Scalar]] {
    core.timed("download") {
      core.waits += 1
      return tensors.map { x in
        core.bytesToHost += x.shape.count * MemoryLayout<Scalar>.stride
        return values(x)
      }
    }
  }

  /// The row-major values of `x`.
  func values(_ x: Tensor<Self>) -> [Scalar] {
    let xs = rows(x)
    return Array(unsafeUninitializedCapacity: x.shape.count) { values, count in
      guard let base = values.baseAddress else { return }
      for n in 0..<xs.count { (base + n * xs.width).initialize(from: xs[n], count: xs.width) }
      count = xs.count * xs.width
    }
  }

  public func download(_ indices: Indices<Self>) throws -> [Int32] {
    core.timed("download") {
      core.waits += 1
      core.bytesToHost += 4 * indices.count
      return Array(UnsafeBufferPointer(start: integers(indices), count: indices.count))
    }
  }

  /// A 16-bit or quantized matrix is kept as it is stored, everything else decoded to scalars.
  public func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> CPUMatrix<Self> {
    core.timed("freeze") {
      guard EncodedMatrix.keeps(format), !shape.isVector else { return CPUMatrix(upload(bytes, format, shape)) }
      core.bytesToDevice += bytes.count
      return CPUMatrix(EncodedMatrix(bytes, format, shape))
    }
  }

  /// The storage is shared.
  public func freeze(_ tensor: Tensor<Self>) -> CPUMatrix<Self> { CPUMatrix(tensor) }

  /// The storage is shared.
  public func vector(_ frozen: CPUMatrix<Self>) -> Tensor<Self> {
    guard frozen.shape.isVector, case .dense(let tensor) = frozen.contents else { trap("vector: the frozen weight is \(frozen.shape)") }
    return tensor
  }

  /// What encoded matrices are expanded into; for each thread attention's scores, a block of 64 queries forward, twice that backward; and
  /// the sums of chunks of a gradient of 2²⁵ numbers, where their norm is formed.
  public func scratchBytes(rows: Int, _ weights: [Weight<Self>]) -> Int {
    let expanded = weights.map { weight in
      guard case .frozen(let matrix) = weight, case .encoded(let encoded) = matrix.contents else { return 0 }
      return max(encoded.columns, min(encoded.rows * encoded.columns, core.scratchCount))
    }
    let scores = core.threads.threads * (rows + 32)
    let scratch = [expanded.max() ?? 0, 64 * scores, 129 * scores].map { $0 * MemoryLayout<Scalar>.stride }
    let sums = (1 << 25) / 16_384 * MemoryLayout<Double>.stride
    return (scratch + [sums]).reduce(0) { $0 + FreeBlocks<UnsafeMutableRawPointer>.blockBytes($1) }
  }

  /// Elements from which on zeros take memory only as they are written: no activation is a vector of this length.
  private static var lazyCount: Int { POSIX.givesMemoryBack ? 1 << 18 : .max }

  /// The definitions', but for norms, zeros and masks.
  public var memoryUse: MemoryUse { commonUse }

  /// What both precisions use alike.
  var commonUse: MemoryUse {
    var use = MemoryUse(scalarBytes: MemoryLayout<Scalar>.size)
    use.formsNormsAgain = true
    use.lazyCount = Self.lazyCount
    use.maskBytes = { MaskBits<Scalar>.rowBytes($0) }
    return use
  }

  /// Lets the pool hand a larger block to a smaller buffer from here on.
  public func endWarmUp() { core.pool.free.isSettled = true }

  /// Returns at once: operations of this backend are done when they return.
  public func synchronize() throws { core.waits += 1 }
}
