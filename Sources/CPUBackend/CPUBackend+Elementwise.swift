import Tensors

extension CPUBackend {
  public func add(_ alpha: Double, _ x: Tensor<Self>, into y: inout Tensor<Self>, rows range: Range<Int>?) {
    core.timed("add") {
      let range = range ?? 0..<y.rowCount
      guard range.lowerBound >= 0, range.upperBound <= y.rowCount else { trap("add: rows \(range) of y \(y.shape)") }
      requireShapes("add", ("x", x.shape, range.count == y.rowCount ? y.shape : Shape(range.count, y.columnCount)))
      let (a, xs, ys) = (Scalar(alpha), rows(x), writable(&y).rows(range))
      forBlocks(xs, ys) { rows, columns in
        for n in rows {
          let (x, y) = (xs[n], ys[n])
          for i in Scalar.lanes(columns) { y[i] = y[i] + a * x[i] }
        }
      }
    }
  }

  public func scale(_ alpha: Double, _ x: inout Tensor<Self>) {
    core.timed("scale") {
      let (a, xs) = (Scalar(alpha), writable(&x))
      forBlocks(xs) { rows, columns in
        for n in rows { Scalar.scale(xs[n], columns, by: a) }
      }
    }
  }

  public func addBias(_ bias: Tensor<Self>, into y: inout Tensor<Self>) {
    core.timed("addBias") {
      requireShapes("addBias", ("bias", bias.shape, Shape(y.columnCount)))
      let (b, ys) = (rows(bias).base, writable(&y))
      forRanges(ys.count, cost: ys.width) { rows in
        for n in rows {
          let y = ys[n]
          for i in Scalar.lanes(0..<ys.width) { y[i] = y[i] + b[i] }
        }
      }
    }
  }

  public func addColumnSums(_ x: Tensor<Self>, weights: Tensor<Self>?, into sums: inout Tensor<Self>) {
    core.timed("addColumnSums") {
      requireShapes("addColumnSums", ("sums", sums.shape, Shape(x.columnCount)))
      if let weights { requireShapes("addColumnSums", ("weights", weights.shape, Shape(x.rowCount))) }
      addOverRows(rows(x), times: nil, weights: weights.map { rows($0).base }, into: writable(&sums).base)
    }
  }

  /// sums += Σ_n w_n x_n ⊙ y_n, split by columns, the rows in blocks of 64 whose sums are added in turn. Without w or y: ones.
  func addOverRows(
    _ xs: Rows<Scalar>, times ys: Rows<Scalar>?, weights: UnsafeMutablePointer<Scalar>?, into sums: UnsafeMutablePointer<Scalar>
  ) {
    let scratch = core.pool.buffer(xs.width, of: Scalar.self)
    let block = scratch.pointer
    forRanges(xs.width, cost: 2 * xs.count, unit: 16) { columns in
      var start = 0
      while start < xs.count {
        (block + columns.lowerBound).update(repeating: 0, count: columns.count)
        for n in start..<min(start + 64, xs.count) {
          let (x, w) = (xs[n], weights.map { $0[n] } ?? 1)
          if let ys {
            let y = ys[n]
            for i in Scalar.lanes(columns) { block[i] = block[i] + w * x[i] * y[i] }
          } else {
            for i in Scalar.lanes(columns) { block[i] = block[i] + w * x[i] }
          }
        }
        for i in Scalar.lanes(columns) { sums[i] = sums[i] + block[i] }
        start += 64
      }
    }
    withExtendedLifetime(scratch) {}
  }

  public func sum(_ x: Tensor<Self>) -> Tensor<Self> {
    core.timed("sum") {
      let xs = rows(x)
      return total(xs.count, xs.width, isContiguous: xs.isContiguous) { n, columns in Scalar.sum(xs[n], columns) }
    }
  }

  public func dot(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> {
    core.timed("dot") {
      requireShapes("dot", ("y", y.shape, x.shape))
      let (xs, ys) = (rows(x), rows(y))
      return total(xs.count, xs.width, isContiguous: xs.isContiguous && ys.isContiguous) { n, columns in
        Scalar.dot(xs[n], ys[n], columns)
      }
    }
  }

  /// The sum of a part's value over all rows, cut into chunks of 16 384 columns; added in order in Double.
  @inline(__always)
  private func total(_ count: Int, _ width: Int, isContiguous: Bool, _ part: (Int, Range<Int>) -> Double) -> Tensor<Self> {
    let (rows, columns) = isContiguous ? (1, count * width) : (count, width)
    let chunk = 16_384
    let chunksPerRow = (columns + chunk - 1) / chunk
    let sums = core.pool.buffer(rows * chunksPerRow, of: Double.self)
    forRanges(rows * chunksPerRow, cost: min(columns, chunk)) { parts in
      for p in parts {
        let (n, c) = p.quotientAndRemainder(dividingBy: chunksPerRow)
        sums.pointer[p] = part(n, c * chunk..<min((c + 1) * chunk, columns))
      }
    }
    let (result, to) = fresh(Shape(1))
    var total = 0.0
    for p in 0..<rows * chunksPerRow { total += sums.pointer[p] }
    to.base[0] = Scalar(total)
    withExtendedLifetime(sums) {}
    return result
  }

  public func rowDots(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> {
    core.timed("rowDots") {
      requireShapes("rowDots", ("y", y.shape, x.shape))
      let (w, ws) = fresh(Shape(x.rowCount))
      let (xs, ys) = (rows(x), rows(y))
      forRanges(xs.count, cost: xs.width) { rows in
        for n in rows { ws.base[n] = Scalar(Scalar.dot(xs[n], ys[n], 0..<xs.width)) }
      }
      return w
    }
  }

  public func scaleRows(_ weights: Tensor<Self>, _ x: inout Tensor<Self>) {
    core.timed("scaleRows") {
      requireShapes("scaleRows", ("weights", weights.shape, Shape(x.rowCount)))
      let (w, xs) = (rows(weights).base, writable(&x))
      forRanges(xs.count, cost: xs.width) { rows in
        for n in rows { Scalar.scale(xs[n], 0..<xs.width, by: w[n]) }
      }
    }
  }
}

/// −x in every lane; the standard library has it for scalars only.
@inline(__always)
prefix func - <V: SIMD>(_ x: V) -> V where V.Scalar: FloatingPoint { 0 - x }
