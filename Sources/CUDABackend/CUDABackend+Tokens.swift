import Tensors

extension CUDABackend {
  public func embedding(_ ids: Indices<Self>, _ table: Operand<Self>) -> Tensor<Self> {
    core.operation {
      switch table {
      case .dense(let tensor, transposed: false): take(.embedding, tensor, ids)
      case .frozen(let matrix, transposed: false):
        switch matrix.contents {
        case .dense(let tensor): take(.embedding, tensor, ids)
        case .encoded(let encoded): decodedRows(encoded, ids)
        }
      default: trap("embedding: the table \(table.shape) is transposed")
      }
    }
  }

  public func gather(_ x: Tensor<Self>, rows: Indices<Self>) -> Tensor<Self> { core.operation { take(.gather, x, rows) } }

  private func take(_ operation: IndexedOperation, _ x: Tensor<Self>, _ indices: Indices<Self>) -> Tensor<Self> {
    let (y, ys) = fresh(Shape(indices.count, x.columnCount))
    launch(
      "take_rows", over: y.shape.count, rows(x), ys, address(indices), Int32(x.rowCount), Int64(y.shape.count), Int32(x.columnCount),
      errorWord(operation))
    return y
  }

  public func addScattered(_ x: Tensor<Self>, rows indices: Indices<Self>, into y: inout Tensor<Self>) {
    core.operation {
      requireShapes("addScattered", ("x", x.shape, Shape(indices.count, y.columnCount)))
      let ys = writable(&y)
      launch(
        "add_scattered", over: x.shape.count, rows(x), ys, address(indices), Int32(y.rowCount), Int64(x.shape.count),
        Int32(x.columnCount), errorWord(.addScattered))
    }
  }

  public func addEmbeddingGradient(_ alpha: Double, _ dy: Tensor<Self>, _ ids: Indices<Self>, into dtable: inout Tensor<Self>) {
    core.operation {
      requireShapes("addEmbeddingGradient", ("dy", dy.shape, Shape(ids.count, dtable.columnCount)))
      let tables = writable(&dtable)
      let threads = threads(forRow: dy.columnCount)
      launch(
        "add_embedding_gradient", blocks: ids.count, by: (dy.columnCount + threads - 1) / threads, threads: threads, rows(dy),
        address(ids), tables, Int32(dtable.rowCount), Int32(ids.count), Int32(dy.columnCount), Scalar(alpha),
        errorWord(.addEmbeddingGradient))
    }
  }

  public func crossEntropy(_ z: inout Tensor<Self>, labels: Indices<Self>, scale: Double, softcap: Double?) -> Tensor<Self> {
    core.operation {
      guard labels.count == z.rowCount else { trap("crossEntropy: \(labels.count) labels for logits \(z.shape)") }
      if let softcap, !(softcap > 0) { trap("crossEntropy: a soft cap of \(softcap)") }
      let (loss, losses) = fresh(Shape(z.rowCount))
      let zs = writable(&z)
      launch(
        "cross_entropy", blocks: z.rowCount, threads: threads(forRow: z.columnCount, most: 1024), zs, address(labels), losses.base,
        Int32(z.columnCount), Scalar(scale), Scalar(softcap ?? 0), errorWord(.crossEntropy))
      return loss
    }
  }
}
