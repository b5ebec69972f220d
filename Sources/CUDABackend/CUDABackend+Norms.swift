import Tensors

extension CUDABackend {
  public func rmsNorm(_ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, epsilon: Double) -> (y: Tensor<Self>, rho: Tensor<Self>) {
    core.operation {
      requireShapes("rmsNorm", ("weight", weight.shape, Shape(x.columnCount)))
      let (y, ys) = fresh(x.shape)
      let (rho, rhos) = fresh(Shape(x.rowCount))
      launch(
        "rms_norm", blocks: x.rowCount, threads: threads(forRow: x.columnCount), rows(x), address(weight), ys, rhos.base,
        Int32(x.columnCount), Scalar(offset), 1 / Double(x.columnCount), epsilon)
      return (y, rho)
    }
  }

  public func rmsNormBackward(
    _ dy: Tensor<Self>, _ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, rho: Tensor<Self>, into dx: inout Tensor<Self>
  ) {
    core.operation {
      requireShapes(
        "rmsNormBackward", ("dy", dy.shape, x.shape), ("weight", weight.shape, Shape(x.columnCount)),
        ("rho", rho.shape, Shape(x.rowCount)), ("dx", dx.shape, x.shape))
      let dxs = writable(&dx)
      launch(
        "rms_norm_backward", blocks: x.rowCount, threads: threads(forRow: x.columnCount), rows(dy), rows(x), address(weight),
        address(rho), dxs, Int32(x.columnCount), Scalar(offset), 1 / Double(x.columnCount))
    }
  }

  public func rmsNormWeightGradient(_ dy: Tensor<Self>, _ x: Tensor<Self>, rho: Tensor<Self>, into dweight: inout Tensor<Self>) {
    core.operation {
      requireShapes(
        "rmsNormWeightGradient", ("dy", dy.shape, x.shape), ("rho", rho.shape, Shape(x.rowCount)),
        ("dweight", dweight.shape, Shape(x.columnCount)))
      addColumnSums(rows(dy), times: rows(x), weights: address(rho), x.shape, into: writable(&dweight).base)
    }
  }

  public func rope(_ x: inout Tensor<Self>, positions: Indices<Self>, table: Tensor<Self>, inverse: Bool) {
    core.operation {
      let d = table.columnCount
      guard positions.count == x.rowCount else { trap("rope: \(positions.count) positions for x \(x.shape)") }
      guard d > 0, d % 2 == 0, x.columnCount % d == 0 else { trap("rope: x \(x.shape) is not made of heads of the table \(table.shape)") }
      let xs = writable(&x)
      let count = x.shape.count / 2
      launch(
        "rope", over: count, xs, address(positions), rows(table), Int32(table.rowCount), Int64(count), Int32(x.columnCount / 2),
        Int32(d / 2), Scalar(inverse ? -1 : 1), errorWord(.rope))
    }
  }
}
