import CCUDA
import Platform
import Tensors

extension CUDABackend {
  public func clipFactor(_ squaredNorm: Tensor<Self>, loss: Tensor<Self>, maximum: Double) -> (factor: Tensor<Self>, norm: Tensor<Self>) {
    core.operation {
      requireShapes("clipFactor", ("squaredNorm", squaredNorm.shape, Shape(1)), ("loss", loss.shape, Shape(1)))
      let (factor, factors) = fresh(Shape(1))
      let (norm, norms) = fresh(Shape(1))
      launch("clip_factor", blocks: 1, threads: 1, address(squaredNorm), address(loss), factors.base, norms.base, maximum)
      return (factor, norm)
    }
  }

  public func decoded(_ x: ByteBlocks<Self>) -> Tensor<Self> {
    core.operation {
      let (y, ys) = fresh(x.shape)
      launch("decode_bytes", over: x.shape.count, address(x.codes), address(x.scales), address(x.map), ys.base, Int64(x.shape.count))
      return y
    }
  }

  public func encode(_ x: Tensor<Self>, into y: inout ByteBlocks<Self>, factor: Tensor<Self>?) {
    core.operation {
      requireShapes("encode", ("x", x.shape, y.shape))
      guard x.isContiguous else { trap("encode: x has gaps") }
      let (codes, scales) = (writable(&y.codes), writable(&y.scales))
      launch(
        "encode_bytes", blocks: y.scales.shape.count, threads: 128, address(x), codes.base, scales.base, address(y.map),
        Int64(x.shape.count), number("encode", factor))
    }
  }

  public func adamW(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, _ m: inout Tensor<Self>, _ v: inout Tensor<Self>,
    _ settings: AdamWSettings, range: Range<Int>?
  ) {
    core.operation {
      requireShapes("adamW", ("gradient", gradient.shape, x.shape), ("m", m.shape, x.shape), ("v", v.shape, x.shape))
      guard settings.step >= 1 else { trap("adamW: step \(settings.step) is counted from 1") }
      let part = part("adamW", x, range)
      let t = Double(settings.step)
      let (xs, ms, vs) = (writable(&x), writable(&m), writable(&v))
      launch(
        "adam_w", over: part.count * x.rowCount, columns(xs, part), columns(rows(gradient), part), columns(ms, part), columns(vs, part),
        Int64(part.count * x.rowCount), Int32(part.count), number("adamW", factor),
        Scalar(1 - settings.learningRate * settings.weightDecay), Scalar(1 - settings.beta1), Scalar(settings.beta2),
        Scalar(1 - settings.beta2), Scalar(settings.learningRate / (1 - Double.pow(settings.beta1, t))),
        Scalar((1 - Double.pow(settings.beta2, t)).squareRoot()), Scalar(settings.epsilon))
    }
  }

  public func sgd(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, momentum b: inout Tensor<Self>, _ settings: SGDSettings,
    range: Range<Int>?
  ) {
    core.operation {
      requireShapes("sgd", ("gradient", gradient.shape, x.shape), ("momentum", b.shape, x.shape))
      let part = part("sgd", x, range)
      let (xs, bs) = (writable(&x), writable(&b))
      launch(
        "sgd", over: part.count * x.rowCount, columns(xs, part), columns(rows(gradient), part), columns(bs, part),
        Int64(part.count * x.rowCount), Int32(part.count), number("sgd", factor), Scalar(settings.learningRate),
        Scalar(settings.weightDecay), Scalar(settings.momentum))
    }
  }

  /// Where the number is that `factor` holds; nowhere without one.
  private func number(_ operation: StaticString, _ factor: Tensor<Self>?) -> cuda_address {
    guard let factor else { return 0 }
    requireShapes(operation, ("factor", factor.shape, Shape(1)))
    return address(factor)
  }

  private func columns(_ rows: DeviceRows, _ range: Range<Int>) -> DeviceRows {
    rows.from(row: 0, column: range.lowerBound, of: Scalar.self)
  }
}
