import Tensors

extension CPUBackend {
  /// Rows of the table: ids (N), table (V,C) → (N,C).
  public func embedding(_ ids: Indices<Self>, _ table: Operand<Self>) -> Tensor<Self> {
    let watch = core.watch("embedding")
    defer { watch.stop() }
    switch table {
    case .dense(let tensor, transposed: false): return take("embedding", tensor, ids)
    case .frozen(let matrix, transposed: false):
      switch matrix.contents {
      case .dense(let tensor): return take("embedding", tensor, ids)
      case .encoded(let encoded): return decodedRows(encoded, ids)
      }
    default: trap("embedding: the table \(table.shape) is transposed")
    }
  }

  private func decodedRows(_ table: EncodedMatrix, _ ids: Indices<Self>) -> Tensor<Self> {
    let (y, ys) = fresh(Shape(ids.count, table.columns))
    let index = ids.storage.pointer
    forRanges(ys.count, cost: ys.width) { rows in
      for n in rows {
        let row = Int(index[n])
        guard row >= 0, row < table.rows else { trap("embedding: index \(n) is row \(row) of (\(table.rows),\(table.columns))") }
        table.decode(row: row, to: ys[n])
      }
    }
    return y
  }

  /// The rows of x that `rows` names: x (N,C) → (count,C).
  public func gather(_ x: Tensor<Self>, rows: Indices<Self>) -> Tensor<Self> { take("gather", x, rows) }

  private func take(_ operation: StaticString, _ x: Tensor<Self>, _ indices: Indices<Self>) -> Tensor<Self> {
    let watch = core.watch("gather")
    defer { watch.stop() }
    let (y, ys) = fresh(Shape(indices.count, x.columnCount))
    let (xs, index) = (rows(x), indices.storage.pointer)
    forRanges(ys.count, cost: ys.width) { rows in
      for n in rows {
        let row = Int(index[n])
        guard row >= 0, row < xs.count else { trap("\(operation): index \(n) is row \(row) of \(x.shape)") }
        ys[n].update(from: xs[row], count: xs.width)
      }
    }
    return y
  }

  /// y[rows[i]] += x_i; no row is named twice: x (count,C), y (N,C).
  public func addScattered(_ x: Tensor<Self>, rows indices: Indices<Self>, into y: inout Tensor<Self>) {
    let watch = core.watch("addScattered")
    defer { watch.stop() }
    requireShapes("addScattered", ("x", x.shape, Shape(indices.count, y.columnCount)))
    let (xs, index, ys) = (rows(x), indices.storage.pointer, writable(&y))
    forRanges(xs.count, cost: xs.width) { rows in
      for n in rows {
        let row = Int(index[n])
        guard row >= 0, row < ys.count else { trap("addScattered: index \(n) is row \(row) of \(ys.count)") }
        let (x, y) = (xs[n], ys[row])
        for i in Scalar.lanes(0..<xs.width) { y[i] = y[i] + x[i] }
      }
    }
  }

  /// dtable[ids[n]] += dy_n, in the order of n: dy (N,C), dtable (V,C). Threads share the columns.
  public func addEmbeddingGradient(_ dy: Tensor<Self>, _ ids: Indices<Self>, into dtable: inout Tensor<Self>) {
    let watch = core.watch("addEmbeddingGradient")
    defer { watch.stop() }
    requireShapes("addEmbeddingGradient", ("dy", dy.shape, Shape(ids.count, dtable.columnCount)))
    let (xs, index, ys) = (rows(dy), ids.storage.pointer, writable(&dtable))
    forRanges(xs.width, cost: xs.count, unit: 16) { columns in
      for n in 0..<xs.count {
        let row = Int(index[n])
        guard row >= 0, row < ys.count else { trap("addEmbeddingGradient: id \(n) is \(row), the table has \(ys.count) rows") }
        let (x, y) = (xs[n], ys[row])
        for i in Scalar.lanes(columns) { y[i] = y[i] + x[i] }
      }
    }
  }

  /// loss_n = −log softmax(logits_n)[label_n]; logits (N,V) become their gradient, scale · (softmax − onehot).
  ///
  /// With the largest logit m, loss = log Σ exp(x − m) + m − x_label, and the sum is formed in Double.
  public func crossEntropy(_ logits: inout Tensor<Self>, labels: Indices<Self>, scale: Double) -> Tensor<Self> {
    let watch = core.watch("crossEntropy")
    defer { watch.stop() }
    guard labels.count == logits.rowCount else { trap("crossEntropy: \(labels.count) labels for logits \(logits.shape)") }
    let (loss, losses) = fresh(Shape(logits.rowCount))
    let (xs, label) = (writable(&logits), labels.storage.pointer)
    forRanges(xs.count, cost: 10 * xs.width) { rows in
      for n in rows {
        let (x, target) = (xs[n], Int(label[n]))
        guard target >= 0, target < xs.width else { trap("crossEntropy: label \(n) is \(target), there are \(xs.width) columns") }
        let largest = Scalar.maximum(x, xs.width)
        let atTarget = Double(x[target])
        let sum = Scalar.exponentials(x, xs.width, minus: largest)
        losses.base[n] = Scalar(CLibrary.log(sum) + (Double(largest) - atTarget))
        Scalar.scale(x, 0..<xs.width, by: Scalar(scale / sum))
        x[target] -= Scalar(scale)
      }
    }
    return loss
  }
}
