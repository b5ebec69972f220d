import Tensors

/// Matrices that are kept as their file encodes them.
///
/// With more than `fewRows` rows on the other side a product expands the matrix first, by blocks of rows if it is large, into memory that
/// goes back to the pool at once. With few rows (generation) it is memory that counts: there the encoded rows are read once, and directly.
extension CUDABackend {
  /// Vectors, wide numbers and formats that no kernel reads are decoded on the host.
  public func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> CUDAMatrix<Self> {
    core.operation {
      guard let kept = DeviceFormat(format), !shape.isVector else { return CUDAMatrix(upload(bytes, format, shape)) }
      let rowBytes = format.rowBytes(shape.columns)
      guard bytes.count == shape.rows * rowBytes else {
        trap("freeze: \(bytes.count) bytes of \(format.rawValue) for the shape \(shape)")
      }
      let storage = core.buffer(bytes.count)
      upload(bytes, to: storage)
      return CUDAMatrix(EncodedMatrix(storage: storage, format: kept, rows: shape.rows, columns: shape.columns, rowBytes: rowBytes))
    }
  }

  /// The storage is shared.
  public func freeze(_ tensor: Tensor<Self>) -> CUDAMatrix<Self> { CUDAMatrix(tensor) }

  /// The storage is shared.
  public func vector(_ frozen: CUDAMatrix<Self>) -> Tensor<Self> {
    guard frozen.shape.isVector, case .dense(let tensor) = frozen.contents else { trap("vector: the frozen weight is \(frozen.shape)") }
    return tensor
  }

  /// 1024, as long as their logits are no more than 2²⁶ numbers: with fewer the head is read too often to keep a device busy.
  public func headRows(_ weight: Weight<Self>) -> Int { max(128, min(1024, (1 << 26) / max(1, weight.shape.rows) / 128 * 128)) }

  /// What the largest encoded matrix is expanded into.
  public func scratchBytes(rows: Int, _ weights: [Weight<Self>]) -> Int {
    let expanded = weights.map { weight in
      guard case .frozen(let matrix) = weight, case .encoded(let encoded) = matrix.contents else { return 0 }
      return max(encoded.columns, min(encoded.rows * encoded.columns, core.expandedCount))
    }
    return FreeBlocks<UInt64>.blockBytes((expanded.max() ?? 0) * MemoryLayout<Scalar>.stride)
  }

  /// The rows of a frozen table that `ids` names.
  func decodedRows(_ table: EncodedMatrix, _ ids: Indices<Self>) -> Tensor<Self> {
    let (y, ys) = fresh(Shape(ids.count, table.columns))
    decode(table, from: 0, at: address(ids), to: ys, ids.count)
    return y
  }

  /// Rows of a matrix, decoded.
  func expanded(_ matrix: EncodedMatrix, _ range: Range<Int>) -> Tensor<Self> {
    let (y, ys) = fresh(Shape(range.count, matrix.columns))
    decode(matrix, from: range.lowerBound, at: 0, to: ys, range.count)
    return y
  }

  /// Decodes `count` rows: those from `row` on, or of these the ones that integers at `index` name.
  private func decode(_ matrix: EncodedMatrix, from row: Int, at index: UInt64, to y: DeviceRows, _ count: Int) {
    let parts = (matrix.columns + 1023) / 1024
    launch(
      "decode", blocks: count * parts, threads: 256, matrix.from(row: row), index, Int32(matrix.rows - row), y, Int32(matrix.columns),
      Int32(parts), errorWord(.embedding))
  }

  /// c ← α a b + β c for an encoded b, of which `isTransposed` means bᵀ = W: a (m,k), c (m,n).
  func multiply(
    _ alpha: Double, _ a: FactorMatrix, _ b: EncodedMatrix, isTransposed: Bool, _ beta: Double, _ c: DeviceRows, _ m: Int, _ n: Int,
    _ k: Int
  ) {
    if k == 0 { return multiply(alpha, a, a, beta, c, m, n, 0) }
    if m <= Self.fewRows, isTransposed, !a.isTransposed { return multiplyFew(alpha, a.rows, b.from(row: 0), beta, c, m, n, k) }
    let blockRows = max(1, min(b.rows, core.expandedCount / max(1, b.columns)))
    var beta = beta
    for start in stride(from: 0, to: b.rows, by: blockRows) {
      let range = start..<min(start + blockRows, b.rows)
      let block = expanded(b, range)
      let factor = FactorMatrix(rows: rows(block), isTransposed: isTransposed)
      if isTransposed {
        multiply(alpha, a, factor, beta, c.from(row: 0, column: start, of: Scalar.self), m, range.count, k)  // some columns of c
      } else {
        multiply(alpha, a.from(column: start, of: Scalar.self), factor, beta, c, m, n, range.count)  // a part of every sum
        beta = 1
      }
      withExtendedLifetime(block) {}  // what a product takes from the pool meanwhile is other memory
    }
  }

  /// Rows up to which a product reads the blocks directly.
  static var fewRows: Int { 8 }

  /// c ← α a bᵀ + β c for few rows of a.
  func multiplyFew(
    _ alpha: Double, _ a: DeviceRows, _ b: DeviceEncoding, _ beta: Double, _ c: DeviceRows, _ m: Int, _ n: Int, _ k: Int
  ) {
    if m == 0 { return }
    launch(
      "product_few", blocks: (n + 3) / 4, threads: 128, a, b, c, Int32(m), Int32(n), Int32(k), Scalar(alpha), Scalar(beta))
  }
}
