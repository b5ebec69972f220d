import Tensors

extension CUDABackend {
  public func add(_ alpha: Double, _ x: Tensor<Self>, into y: inout Tensor<Self>, rows range: Range<Int>?) {
    core.operation {
      let range = range ?? 0..<y.rowCount
      guard range.lowerBound >= 0, range.upperBound <= y.rowCount else { trap("add: rows \(range) of y \(y.shape)") }
      requireShapes("add", ("x", x.shape, range.count == y.rowCount ? y.shape : Shape(range.count, y.columnCount)))
      let ys = writable(&y).from(row: range.lowerBound, column: 0, of: Scalar.self)
      launch("add", over: x.shape.count, rows(x), ys, Int64(x.shape.count), Int32(x.columnCount), Scalar(alpha))
    }
  }

  public func scale(_ alpha: Double, _ x: inout Tensor<Self>) {
    core.operation {
      let xs = writable(&x)
      launch("scale", over: x.shape.count, xs, Int64(x.shape.count), Int32(x.columnCount), Scalar(alpha))
    }
  }

  public func addBias(_ bias: Tensor<Self>, into y: inout Tensor<Self>) {
    core.operation {
      requireShapes("addBias", ("bias", bias.shape, Shape(y.columnCount)))
      let ys = writable(&y)
      launch("add_bias", over: y.shape.count, address(bias), ys, Int64(y.shape.count), Int32(y.columnCount))
    }
  }

  public func scaleRows(_ weights: Tensor<Self>, _ x: inout Tensor<Self>) {
    core.operation {
      requireShapes("scaleRows", ("weights", weights.shape, Shape(x.rowCount)))
      let xs = writable(&x)
      launch("scale_rows", over: x.shape.count, address(weights), xs, Int64(x.shape.count), Int32(x.columnCount))
    }
  }

  public func softcap(_ cap: Double, _ z: inout Tensor<Self>) {
    core.operation {
      let zs = writable(&z)
      launch("softcap", over: z.shape.count, zs, Int64(z.shape.count), Int32(z.columnCount), Scalar(cap))
    }
  }

  public func gated(_ activation: Activation, _ a: Tensor<Self>, _ c: Tensor<Self>) -> Tensor<Self> {
    core.operation {
      requireShapes("gated", ("c", c.shape, a.shape))
      let (h, hs) = fresh(a.shape)
      launch(
        "gated", over: a.shape.count, rows(a), rows(c), hs, Int64(a.shape.count), Int32(a.columnCount), activation.number)
      return h
    }
  }

  public func gatedBackward(_ activation: Activation, _ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>)
    -> (da: Tensor<Self>, dc: Tensor<Self>)
  {
    core.operation {
      requireShapes("gatedBackward", ("a", a.shape, dh.shape), ("c", c.shape, dh.shape))
      let (da, das) = fresh(dh.shape)
      let (dc, dcs) = fresh(dh.shape)
      launch(
        "gated_backward", over: a.shape.count, rows(dh), rows(a), rows(c), das, dcs, Int64(a.shape.count), Int32(a.columnCount),
        activation.number)
      return (da, dc)
    }
  }
}

extension Activation {
  /// What kernels call it: `is_gelu`.
  var number: Int32 { self == .geluTanh ? 1 : 0 }
}
