import Platform
import Tensors

extension CPUBackend {
  public func embedding(_ ids: Indices<Self>, _ table: Operand<Self>) -> Tensor<Self> {
    core.timed("embedding") {
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
  }

  private func decodedRows(_ table: EncodedMatrix, _ ids: Indices<Self>) -> Tensor<Self> {
    let (y, ys) = fresh(Shape(ids.count, table.columns))
    let index = integers(ids)
    forRanges(ys.count, cost: ys.width) { rows in
      for n in rows {
        let row = Int(index[n])
        guard row >= 0, row < table.rows else { trap("embedding: index \(n) is row \(row) of (\(table.rows),\(table.columns))") }
        table.decode(row: row, to: ys[n])
      }
    }
    return y
  }

  public func gather(_ x: Tensor<Self>, rows: Indices<Self>) -> Tensor<Self> { core.timed("gather") { take("gather", x, rows) } }

  private func take(_ operation: StaticString, _ x: Tensor<Self>, _ indices: Indices<Self>) -> Tensor<Self> {
    let (y, ys) = fresh(Shape(indices.count, x.columnCount))
    let (xs, index) = (rows(x), integers(indices))
    forRanges(ys.count, cost: ys.width) { rows in
      for n in rows {
        let row = Int(index[n])
        guard row >= 0, row < xs.count else { trap("\(operation): index \(n) is row \(row) of \(x.shape)") }
        ys[n].update(from: xs[row], count: xs.width)
      }
    }
    return y
  }

  public func addScattered(_ x: Tensor<Self>, rows indices: Indices<Self>, into y: inout Tensor<Self>) {
    core.timed("addScattered") {
      requireShapes("addScattered", ("x", x.shape, Shape(indices.count, y.columnCount)))
      let (xs, index, ys) = (rows(x), integers(indices), writable(&y))
      forRanges(xs.count, cost: xs.width) { rows in
        for n in rows {
          let row = Int(index[n])
          guard row >= 0, row < ys.count else { trap("addScattered: index \(n) is row \(row) of \(ys.count)") }
          let (x, y) = (xs[n], ys[row])
          for i in Scalar.lanes(0..<xs.width) { y[i] = y[i] + x[i] }
        }
      }
    }
  }

  /// Threads share the columns.
  public func addEmbeddingGradient(_ alpha: Double, _ dy: Tensor<Self>, _ ids: Indices<Self>, into dtable: inout Tensor<Self>) {
    core.timed("addEmbeddingGradient") {
      requireShapes("addEmbeddingGradient", ("dy", dy.shape, Shape(ids.count, dtable.columnCount)))
      let (a, xs, index, ys) = (Scalar(alpha), rows(dy), integers(ids), writable(&dtable))
      forRanges(xs.width, cost: xs.count, unit: 16) { columns in
        for n in 0..<xs.count {
          let row = Int(index[n])
          guard row >= 0, row < ys.count else { trap("addEmbeddingGradient: id \(n) is \(row), the table has \(ys.count) rows") }
          let (x, y) = (xs[n], ys[row])
          for i in Scalar.lanes(columns) { y[i] = y[i] + a * x[i] }
        }
      }
    }
  }

  public func softcap(_ cap: Double, _ z: inout Tensor<Self>) {
    core.timed("softcap") {
      guard cap > 0 else { trap("softcap: a cap of \(cap)") }
      let (c, zs) = (Scalar(cap), writable(&z))
      forBlocks(zs, cost: 10) { rows, columns in
        for n in rows { Scalar.softcap(zs[n], columns, c) }
      }
    }
  }

  /// With the largest logit m, loss = log Σ exp(y − m) + m − y_label, and the sum is formed in Double.
  public func crossEntropy(_ z: inout Tensor<Self>, labels: Indices<Self>, scale: Double, softcap: Double?) -> Tensor<Self> {
    core.timed("crossEntropy") {
      guard labels.count == z.rowCount else { trap("crossEntropy: \(labels.count) labels for logits \(z.shape)") }
      if let softcap, !(softcap > 0) { trap("crossEntropy: a soft cap of \(softcap)") }
      let (loss, losses) = fresh(Shape(z.rowCount))
      let (zs, label, cap) = (writable(&z), integers(labels), softcap.map { Scalar($0) })
      forRanges(zs.count, cost: 10 * zs.width) { rows in
        withUnsafeTemporaryAllocation(of: Scalar.self, capacity: cap == nil ? 0 : zs.width) { slopes in
          for n in rows {
            let (x, target) = (zs[n], Int(label[n]))
            guard target >= 0, target < zs.width else { trap("crossEntropy: label \(n) is \(target), there are \(zs.width) columns") }
            if let cap, let slope = slopes.baseAddress {
              for i in Scalar.lanes(0..<zs.width) {
                let t = Scalar.tanh(x[i] / cap)
                x[i] = cap * t
                slope[i] = 1 - t * t
              }
            }
            let largest = Scalar.maximum(x, zs.width)
            let atTarget = Double(x[target])
            let sum = Scalar.exponentials(x, zs.width, minus: largest)
            losses.base[n] = Scalar(Double.log(sum) + (Double(largest) - atTarget))
            Scalar.scale(x, 0..<zs.width, by: Scalar(scale / sum))
            x[target] -= Scalar(scale)
            if cap != nil, let slope = slopes.baseAddress {
              for i in Scalar.lanes(0..<zs.width) { x[i] = x[i] * slope[i] }
            }
          }
        }
      }
      return loss
    }
  }
}
