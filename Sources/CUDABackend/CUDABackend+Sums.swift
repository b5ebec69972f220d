import CCUDA
import Tensors

extension CUDABackend {
  public func addColumnSums(_ x: Tensor<Self>, weights: Tensor<Self>?, into sums: inout Tensor<Self>) {
    core.operation {
      requireShapes("addColumnSums", ("sums", sums.shape, Shape(x.columnCount)))
      if let weights { requireShapes("addColumnSums", ("weights", weights.shape, Shape(x.rowCount))) }
      addColumnSums(rows(x), times: nil, weights: weights.map { address($0) }, x.shape, into: writable(&sums).base)
    }
  }

  /// sums += Σ_n w_n x_n ⊙ y_n. The sums of 4096 rows are formed first where there are more.
  func addColumnSums(_ x: DeviceRows, times y: DeviceRows?, weights: cuda_address?, _ shape: Shape, into sums: cuda_address) {
    let chunk = 4096
    let chunks = (shape.rows + chunk - 1) / chunk
    let parts = chunks > 1 ? core.buffer(chunks * shape.columns * MemoryLayout<Scalar>.stride) : nil
    let warps = min(32, max(1, min(shape.rows, chunk) / 4))
    launch(
      "column_sums", blocks: (shape.columns + 31) / 32, by: chunks, threads: 32 * warps, x, y ?? .none, weights ?? 0, Int32(shape.rows),
      Int32(shape.columns), Int32(chunk), sums, parts?.address ?? 0)
    if let parts {
      let sumsOfChunks = DeviceRows(base: parts.address, stride: Int64(shape.columns))
      addColumnSums(sumsOfChunks, times: nil, weights: nil, Shape(chunks, shape.columns), into: sums)
    }
    withExtendedLifetime(parts) {}
  }

  public func sum(_ x: Tensor<Self>) -> Tensor<Self> { core.operation { total(x, nil) } }

  public func dot(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> {
    core.operation {
      requireShapes("dot", ("y", y.shape, x.shape))
      return total(x, y)
    }
  }

  /// Σ x y; the sums of 4096 elements are formed first where there are more.
  private func total(_ x: Tensor<Self>, _ y: Tensor<Self>?) -> Tensor<Self> {
    let (result, results) = fresh(Shape(1))
    let isContiguous = x.isContiguous && y?.isContiguous ?? true
    let count = x.shape.count
    let blocks = max(1, (count + 4095) / 4096)
    let parts = blocks > 1 ? core.buffer(8 * blocks) : nil
    launch(
      "dot", blocks: blocks, threads: threads(forRow: count), rows(x), y.map { rows($0) } ?? .none, Int64(count),
      Int64(isContiguous ? count : x.columnCount), parts?.address ?? 0, results.base)
    if let parts { launch("sum_parts", blocks: 1, threads: threads(forRow: blocks), parts.address, Int32(blocks), results.base) }
    withExtendedLifetime(parts) {}
    return result
  }

  public func rowDots(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> {
    core.operation {
      requireShapes("rowDots", ("y", y.shape, x.shape))
      let (w, ws) = fresh(Shape(x.rowCount))
      launch("row_dots", over: 32 * x.rowCount, rows(x), rows(y), ws.base, Int32(x.rowCount), Int32(x.columnCount))
      return w
    }
  }

  /// Threads of a block that takes a row of `width` elements: whole warps, no more than `most`.
  func threads(forRow width: Int, most: Int = 256) -> Int { min(most, max(32, (width + 31) / 32 * 32)) }
}

extension DeviceRows {
  /// What stands for a matrix that there is none of.
  static var none: DeviceRows { DeviceRows(base: 0, stride: 0) }
}
