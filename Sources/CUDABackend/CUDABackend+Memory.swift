import CCUDA
import Tensors

extension CUDABackend {
  public func empty(_ shape: Shape) -> Tensor<Self> {
    guard shape.rows >= 0, shape.columns >= 0 else { trap("empty: shape \(shape)") }
    return Tensor(storage: core.buffer(shape.count * MemoryLayout<Scalar>.stride), shape: shape)
  }

  public func zeros(_ shape: Shape) -> Tensor<Self> {
    core.operation {
      var y = empty(shape)
      fill(0, &y)
      return y
    }
  }

  public func fill(_ value: Double, _ x: inout Tensor<Self>) {
    core.operation {
      let xs = writable(&x)
      launch("fill", over: x.shape.count, xs, Int64(x.shape.count), Int32(x.columnCount), Scalar(value))
    }
  }

  public func copy(_ x: Tensor<Self>) -> Tensor<Self> {
    core.operation {
      let (y, ys) = fresh(x.shape)
      launch("copy", over: x.shape.count, rows(x), ys, Int64(x.shape.count), Int32(x.columnCount))
      return y
    }
  }

  public func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows rowRange: Range<Int>?, columns columnRange: Range<Int>?) {
    core.operation {
      let (rowRange, columnRange) = (rowRange ?? 0..<y.rowCount, columnRange ?? 0..<y.columnCount)
      guard rowRange.lowerBound >= 0, rowRange.upperBound <= y.rowCount, columnRange.lowerBound >= 0,
        columnRange.upperBound <= y.columnCount
      else { trap("copy: rows \(rowRange) and columns \(columnRange) of y \(y.shape)") }
      requireShapes("copy", ("x", Shape(x.rowCount, x.columnCount), Shape(rowRange.count, columnRange.count)))
      let ys = writable(&y).from(row: rowRange.lowerBound, column: columnRange.lowerBound, of: Scalar.self)
      launch("copy", over: x.shape.count, rows(x), ys, Int64(x.shape.count), Int32(x.columnCount))
    }
  }

  public func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows indices: Indices<Self>) {
    core.operation {
      requireShapes("copy", ("x", x.shape, Shape(indices.count, y.columnCount)))
      let ys = writable(&y)
      launch(
        "copy_scattered", over: x.shape.count, rows(x), ys, address(indices), Int32(y.rowCount), Int64(x.shape.count),
        Int32(x.columnCount), errorWord(.copy))
    }
  }

  public func upload(_ values: [Scalar], _ shape: Shape) -> Tensor<Self> {
    core.operation {
      guard values.count == shape.count else { trap("upload: \(values.count) values for the shape \(shape)") }
      let y = empty(shape)
      values.withUnsafeBytes { upload($0, to: y.storage) }
      return y
    }
  }

  public func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Tensor<Self> {
    core.operation {
      guard bytes.count == shape.rows * format.rowBytes(shape.columns) else {
        trap("upload: \(bytes.count) bytes of \(format.rawValue) for the shape \(shape)")
      }
      let values = [Scalar](unsafeUninitializedCapacity: shape.count) { buffer, count in
        guard let from = bytes.baseAddress, let to = buffer.baseAddress else { return }
        format.decode(from, shape.count, to: to)
        count = shape.count
      }
      let y = upload(values, shape)
      core.counters.bytesToDevice += bytes.count - shape.count * MemoryLayout<Scalar>.stride
      return y
    }
  }

  public func upload(_ values: [Int32]) -> Indices<Self> {
    core.operation {
      let indices = freshIndices(values.count)
      values.withUnsafeBytes { upload($0, to: indices.storage) }
      return indices
    }
  }

  /// Moves bytes to the device.
  func upload(_ bytes: UnsafeRawBufferPointer, to storage: DeviceBuffer) {
    guard let base = bytes.baseAddress, bytes.count > 0 else { return }
    core.counters.bytesToDevice += bytes.count
    core.attempt { try core.device.check(core.device.table.upload(core.device.handle, storage.address, base, bytes.count)) }
  }

  /// All of them in one copy, behind the error word: the kernels gather what is to go.
  public func download(_ tensors: [Tensor<Self>]) throws -> [[Scalar]] {
    try core.operation {
      let counts = tensors.map(\.shape.count)
      let staging = core.buffer(16 + counts.reduce(0, +) * MemoryLayout<Scalar>.stride)
      var place = staging.address + 16
      for x in tensors {
        launch(
          "copy", over: x.shape.count, rows(x), DeviceRows(base: place, stride: Int64(x.columnCount)), Int64(x.shape.count),
          Int32(x.columnCount))
        place += UInt64(x.shape.count * MemoryLayout<Scalar>.stride)
      }
      return try download(staging, counts)
    }
  }

  public func download(_ indices: Indices<Self>) throws -> [Int32] {
    try core.operation {
      let staging = core.buffer(16 + 4 * indices.count)
      launch("copy_integers", over: indices.count, address(indices), staging.address + 16, Int64(indices.count))
      return try download(staging, [indices.count])[0]
    }
  }

  /// What lies behind the error word in `staging`: one wait, and what failed before it is thrown.
  private func download<Element: BitwiseCopyable>(_ staging: DeviceBuffer, _ counts: [Int]) throws -> [[Element]] {
    launch("take_error", blocks: 1, threads: 1, core.errorWord.address, staging.address)
    core.counters.waits += 1
    let bytes = counts.reduce(0, +) * MemoryLayout<Element>.stride
    core.counters.bytesToHost += bytes
    return try withUnsafeTemporaryAllocation(byteCount: 16 + bytes, alignment: 16) { memory in
      guard let base = memory.baseAddress else { return [] }
      core.attempt { try core.device.check(core.device.table.download(core.device.handle, base, staging.address, 16 + bytes)) }
      try core.throwFailure()
      try throwIndexError(base.assumingMemoryBound(to: Int32.self))
      var from = base + 16
      return counts.map { count in
        defer { from += count * MemoryLayout<Element>.stride }
        return Array(UnsafeBufferPointer(start: from.bindMemory(to: Element.self, capacity: count), count: count))
      }
    }
  }

  /// Throws what a kernel reported about an index.
  private func throwIndexError(_ word: UnsafePointer<Int32>) throws {
    if word[0] == 0 { return }
    let operation = IndexedOperation(rawValue: word[0]).map { "\($0)" } ?? "operation \(word[0])"
    if word[2] < 0 { throw CUDAError("\(operation): index \(word[1]) is named twice") }
    throw CUDAError("\(operation): index \(word[1]), expected 0 ..< \(word[2])")
  }

  /// Lets the pool hand a larger block to a smaller buffer from here on.
  public func endWarmUp() { core.pool.free.isSettled = true }

  /// A download of the error word alone.
  public func synchronize() throws { _ = try download(core.buffer(16), []) as [[Int32]] }
}

extension DeviceRows {
  /// The same matrix from another element on.
  func from<Scalar>(row: Int, column: Int, of _: Scalar.Type) -> DeviceRows {
    DeviceRows(base: base + UInt64((row * Int(stride) + column) * MemoryLayout<Scalar>.stride), stride: stride)
  }
}
