import Tensors

extension CPUBackend {
  /// The mean is formed in Double.
  public func rmsNorm(_ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, epsilon: Double) -> (y: Tensor<Self>, rho: Tensor<Self>) {
    core.timed("rmsNorm") {
      requireShapes("rmsNorm", ("weight", weight.shape, Shape(x.columnCount)))
      let (y, ys) = fresh(x.shape)
      let (rho, rhos) = fresh(Shape(x.rowCount))
      let (xs, w, offset) = (rows(x), rows(weight).base, Scalar(offset))
      forRanges(xs.count, cost: 2 * xs.width) { rows in
        for n in rows {
          let (x, y) = (xs[n], ys[n])
          let r = Scalar(1 / (Scalar.dot(x, x, 0..<xs.width) / Double(xs.width) + epsilon).squareRoot())
          rhos.base[n] = r
          for i in Scalar.lanes(0..<xs.width) { y[i] = r * x[i] * (offset + w[i]) }
        }
      }
      return (y, rho)
    }
  }

  /// The inner product is formed in Double.
  public func rmsNormBackward(
    _ dy: Tensor<Self>, _ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, rho: Tensor<Self>, into dx: inout Tensor<Self>
  ) {
    core.timed("rmsNormBackward") {
      requireShapes(
        "rmsNormBackward", ("dy", dy.shape, x.shape), ("weight", weight.shape, Shape(x.columnCount)),
        ("rho", rho.shape, Shape(x.rowCount)), ("dx", dx.shape, x.shape))
      let (dys, xs, w, rhos, dxs) = (rows(dy), rows(x), rows(weight).base, rows(rho).base, writable(&dx))
      let narrow = Scalar(offset)
      forRanges(xs.count, cost: 3 * xs.width) { rows in
        for n in rows {
          let (dy, x, dx, r) = (dys[n], xs[n], dxs[n], rhos[n])
          let dot = Scalar.sumInDouble(
            0..<xs.width, { dy.wide($0) * (offset + w.wide($0)) * x.wide($0) },
            { Double(dy[$0]) * (offset + Double(w[$0])) * Double(x[$0]) })
          let factor = Scalar(dot * Double(r) * Double(r) * Double(r) / Double(xs.width))
          for i in Scalar.lanes(0..<xs.width) { dx[i] = dx[i] + (r * dy[i] * (narrow + w[i]) - factor * x[i]) }
        }
      }
    }
  }

  public func rmsNormWeightGradient(_ dy: Tensor<Self>, _ x: Tensor<Self>, rho: Tensor<Self>, into dweight: inout Tensor<Self>) {
    core.timed("rmsNormWeightGradient") {
      requireShapes(
        "rmsNormWeightGradient", ("dy", dy.shape, x.shape), ("rho", rho.shape, Shape(x.rowCount)),
        ("dweight", dweight.shape, Shape(x.columnCount)))
      addOverRows(rows(dy), times: rows(x), weights: rows(rho).base, into: writable(&dweight).base)
    }
  }

  public func rope(_ x: inout Tensor<Self>, positions: Indices<Self>, table: Tensor<Self>, inverse: Bool) {
    core.timed("rope") {
      let d = table.columnCount
      guard positions.count == x.rowCount else { trap("rope: \(positions.count) positions for x \(x.shape)") }
      guard d > 0, d % 2 == 0, x.columnCount % d == 0 else { trap("rope: x \(x.shape) is not made of heads of the table \(table.shape)") }
      let (xs, tables, position) = (writable(&x), rows(table), integers(positions))
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
}
