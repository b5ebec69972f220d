import Tensors

extension CPUBackend {
  /// y += α x, for equal shapes.
  public func add(_ alpha: Double, _ x: Tensor<Self>, into y: inout Tensor<Self>) {
    let watch = core.watch("add")
    defer { watch.stop() }
    requireShapes("add", ("x", x.shape, y.shape))
    let (a, xs, ys) = (Scalar(alpha), rows(x), writable(&y))
    forBlocks(xs, ys) { rows, columns in
      for n in rows {
        let (x, y) = (xs[n], ys[n])
        for i in Scalar.lanes(columns) { y[i] = y[i] + a * x[i] }
      }
    }
  }

  /// x ← α x; α = 0 writes zeros whatever x held, as β = 0 does in a product.
  public func scale(_ alpha: Double, _ x: inout Tensor<Self>) {
    let watch = core.watch("scale")
    defer { watch.stop() }
    let (a, xs) = (Scalar(alpha), writable(&x))
    forBlocks(xs) { rows, columns in
      for n in rows {
        if alpha == 0 {
          (xs[n] + columns.lowerBound).update(repeating: 0, count: columns.count)
        } else {
          Scalar.scale(xs[n], columns, by: a)
        }
      }
    }
  }

  /// y += bias in every row: y (N,C), bias (C).
  public func addBias(_ bias: Tensor<Self>, into y: inout Tensor<Self>) {
    let watch = core.watch("addBias")
    defer { watch.stop() }
    requireShapes("addBias", ("bias", bias.shape, Shape(y.columnCount)))
    let (b, ys) = (rows(bias).base, writable(&y))
    forRanges(ys.count, cost: ys.width) { rows in
      for n in rows {
        let y = ys[n]
        for i in Scalar.lanes(0..<ys.width) { y[i] = y[i] + b[i] }
      }
    }
  }

  /// sums += Σ_n w_n x_n, over the rows of x (N,C), sums (C). Without weights (N), w = 1.
  public func addColumnSums(_ x: Tensor<Self>, weights: Tensor<Self>?, into sums: inout Tensor<Self>) {
    let watch = core.watch("addColumnSums")
    defer { watch.stop() }
    requireShapes("addColumnSums", ("sums", sums.shape, Shape(x.columnCount)))
    if let weights { requireShapes("addColumnSums", ("weights", weights.shape, Shape(x.rowCount))) }
    addOverRows(rows(x), times: nil, weights: weights.map { rows($0).base }, into: writable(&sums).base)
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

  /// Σ x, as a vector of one element.
  public func sum(_ x: Tensor<Self>) -> Tensor<Self> {
    let watch = core.watch("sum")
    defer { watch.stop() }
    let xs = rows(x)
    return total(xs.count, xs.width, isContiguous: xs.isContiguous) { n, columns in Scalar.sum(xs[n], columns) }
  }

  /// Σ x y over all elements, as a vector of one element.
  public func dot(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> {
    let watch = core.watch("dot")
    defer { watch.stop() }
    requireShapes("dot", ("y", y.shape, x.shape))
    let (xs, ys) = (rows(x), rows(y))
    return total(xs.count, xs.width, isContiguous: xs.isContiguous && ys.isContiguous) { n, columns in
      Scalar.dot(xs[n], ys[n], columns)
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

  /// w_n = ⟨x_n, y_n⟩, a row at a time: x, y (N,C) → (N).
  public func rowDots(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> {
    let watch = core.watch("rowDots")
    defer { watch.stop() }
    requireShapes("rowDots", ("y", y.shape, x.shape))
    let (w, ws) = fresh(Shape(x.rowCount))
    let (xs, ys) = (rows(x), rows(y))
    forRanges(xs.count, cost: xs.width) { rows in
      for n in rows { ws.base[n] = Scalar(Scalar.dot(xs[n], ys[n], 0..<xs.width)) }
    }
    return w
  }

  /// x_n ← w_n x_n: x (N,C), weights (N).
  public func scaleRows(_ weights: Tensor<Self>, _ x: inout Tensor<Self>) {
    let watch = core.watch("scaleRows")
    defer { watch.stop() }
    requireShapes("scaleRows", ("weights", weights.shape, Shape(x.rowCount)))
    let (w, xs) = (rows(weights).base, writable(&x))
    forRanges(xs.count, cost: xs.width) { rows in
      for n in rows { Scalar.scale(xs[n], 0..<xs.width, by: w[n]) }
    }
  }

  /// h = silu(a) ⊙ c, with silu(a) = a / (1 + e⁻ᵃ): a, c (M,F) → (M,F). For a → −∞ the quotient is −0, not NaN.
  public func swiGLU(_ a: Tensor<Self>, _ c: Tensor<Self>) -> Tensor<Self> {
    let watch = core.watch("swiGLU")
    defer { watch.stop() }
    requireShapes("swiGLU", ("c", c.shape, a.shape))
    let (h, hs) = fresh(a.shape)
    let (a, c) = (rows(a), rows(c))
    forBlocks(a, c, hs, cost: 8) { rows, columns in
      for n in rows {
        let (a, c, h) = (a[n], c[n], hs[n])
        for i in Scalar.lanes(columns) {
          let x = a[i]
          h[i] = x / (1 + Scalar.exp(-x)) * c[i]
        }
      }
    }
    return h
  }

  /// da = dh ⊙ c ⊙ silu′(a) and dc = dh ⊙ silu(a), for h = silu(a) ⊙ c. With σ = 1 / (1 + e⁻ᵃ), silu′ = σ + silu (1 − σ).
  public func swiGLUBackward(_ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>) -> (da: Tensor<Self>, dc: Tensor<Self>) {
    let watch = core.watch("swiGLUBackward")
    defer { watch.stop() }
    requireShapes("swiGLUBackward", ("a", a.shape, dh.shape), ("c", c.shape, dh.shape))
    let (da, das) = fresh(dh.shape)
    let (dc, dcs) = fresh(dh.shape)
    let (dhs, a, c) = (rows(dh), rows(a), rows(c))
    forBlocks(dhs, a, c, das, dcs, cost: 10) { rows, columns in
      for n in rows {
        let (dh, a, c, da, dc) = (dhs[n], a[n], c[n], das[n], dcs[n])
        for i in Scalar.lanes(columns) {
          let (x, d) = (a[i], dh[i])
          let sigma = 1 / (1 + Scalar.exp(-x))
          let silu = x * sigma
          da[i] = d * c[i] * (sigma + silu * (1 - sigma))
          dc[i] = d * silu
        }
      }
    }
    return (da, dc)
  }
}

/// −x in every lane; the standard library has it for scalars only.
@inline(__always)
prefix func - <V: SIMD>(_ x: V) -> V where V.Scalar: FloatingPoint { 0 - x }
