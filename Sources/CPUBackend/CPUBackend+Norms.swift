import Tensors

extension CPUBackend {
  /// y = x / √(mean x² + ε) ⊙ weight, per row: x (N,C), weight (C) → y (N,C), 1/√(…) (N). The mean is formed in Double.
  public func rmsNorm(_ x: Tensor<Self>, _ weight: Tensor<Self>, epsilon: Double) -> (y: Tensor<Self>, inverseRMS: Tensor<Self>) {
    let watch = core.watch("rmsNorm")
    defer { watch.stop() }
    requireShapes("rmsNorm", ("weight", weight.shape, Shape(x.columnCount)))
    let (y, ys) = fresh(x.shape)
    let (inverse, inverses) = fresh(Shape(x.rowCount))
    let (xs, w) = (rows(x), rows(weight).base)
    forRanges(xs.count, cost: 2 * xs.width) { rows in
      for n in rows {
        let (x, y) = (xs[n], ys[n])
        let s = Scalar(1 / (Scalar.dot(x, x, 0..<xs.width) / Double(xs.width) + epsilon).squareRoot())
        inverses.base[n] = s
        for i in Scalar.lanes(0..<xs.width) { y[i] = s * x[i] * w[i] }
      }
    }
    return (y, inverse)
  }

  /// dx += s (dy ⊙ w) − x s³ ⟨dy ⊙ w, x⟩ / C, per row, with s = inverseRMS.
  public func rmsNormBackward(
    _ dy: Tensor<Self>, _ x: Tensor<Self>, _ weight: Tensor<Self>, _ inverseRMS: Tensor<Self>, into dx: inout Tensor<Self>
  ) {
    let watch = core.watch("rmsNormBackward")
    defer { watch.stop() }
    requireShapes(
      "rmsNormBackward", ("dy", dy.shape, x.shape), ("weight", weight.shape, Shape(x.columnCount)),
      ("inverseRMS", inverseRMS.shape, Shape(x.rowCount)), ("dx", dx.shape, x.shape))
    let (dys, xs, w, inverses, dxs) = (rows(dy), rows(x), rows(weight).base, rows(inverseRMS).base, writable(&dx))
    forRanges(xs.count, cost: 3 * xs.width) { rows in
      for n in rows {
        let (dy, x, dx, s) = (dys[n], xs[n], dxs[n], inverses[n])
        let dot = Scalar.sumInDouble(
          0..<xs.width, { dy.wide($0) * w.wide($0) * x.wide($0) }, { Double(dy[$0]) * Double(w[$0]) * Double(x[$0]) })
        let factor = Scalar(dot * Double(s) * Double(s) * Double(s) / Double(xs.width))
        for i in Scalar.lanes(0..<xs.width) { dx[i] = dx[i] + (s * dy[i] * w[i] - factor * x[i]) }
      }
    }
  }

  /// dweight += Σ_n s_n dy_n ⊙ x_n: (C).
  public func rmsNormWeightGradient(
    _ dy: Tensor<Self>, _ x: Tensor<Self>, _ inverseRMS: Tensor<Self>, into dweight: inout Tensor<Self>
  ) {
    let watch = core.watch("rmsNormWeightGradient")
    defer { watch.stop() }
    requireShapes(
      "rmsNormWeightGradient", ("dy", dy.shape, x.shape), ("inverseRMS", inverseRMS.shape, Shape(x.rowCount)),
      ("dweight", dweight.shape, Shape(x.columnCount)))
    addOverRows(rows(dy), times: rows(x), weights: rows(inverseRMS).base, into: writable(&dweight).base)
  }

  /// Rotates pairs (j, j + D/2) of every head of x (N,H·D) by the angle of the row's position; `inverse` turns back.
  ///
  /// The table (P,D) holds cos in its first D/2 columns and sin in the others; positions (N) choose its rows.
  public func rope(_ x: inout Tensor<Self>, positions: Indices<Self>, table: Tensor<Self>, inverse: Bool) {
    let watch = core.watch("rope")
    defer { watch.stop() }
    let d = table.columnCount
    guard positions.count == x.rowCount else { trap("rope: \(positions.count) positions for x \(x.shape)") }
    guard d > 0, d % 2 == 0, x.columnCount % d == 0 else { trap("rope: x \(x.shape) is not made of heads of the table \(table.shape)") }
    let (xs, tables, position) = (writable(&x), rows(table), positions.storage.pointer)
    let half = d / 2
    let sign: Scalar = inverse ? -1 : 1
    forRanges(xs.count, cost: 2 * xs.width) { rows in
      for n in rows {
        let p = Int(position[n])
        guard p >= 0, p < tables.count else { trap("rope: position \(p) of row \(n), the table has \(tables.count)") }
        let (cos, sin) = (tables[p], tables[p] + half)
        for head in 0..<xs.width / d {
          let (first, second) = (xs[n] + head * d, xs[n] + head * d + half)
          for i in Scalar.lanes(0..<half) {
            let (a, b, c, s) = (first[i], second[i], cos[i], sign * sin[i])
            first[i] = a * c - b * s
            second[i] = b * c + a * s
          }
        }
      }
    }
  }
}
