import Platform
import Tensors

extension CPUBackend {
  public func clipFactor(_ squaredNorm: Tensor<Self>, loss: Tensor<Self>, maximum: Double) -> (factor: Tensor<Self>, norm: Tensor<Self>) {
    core.timed("clipFactor") {
      requireShapes("clipFactor", ("squaredNorm", squaredNorm.shape, Shape(1)), ("loss", loss.shape, Shape(1)))
      let (factor, factors) = fresh(Shape(1))
      let (norm, norms) = fresh(Shape(1))
      let value = Double(rows(squaredNorm).base[0]).squareRoot()
      norms.base[0] = Scalar(value)
      if value.isFinite, rows(loss).base[0].isFinite {
        factors.base[0] = maximum == 0 ? 1 : Scalar(min(1, maximum / (value + 1e-6)))
      } else {
        factors.base[0] = .nan
      }
      return (factor, norm)
    }
  }

  /// The number that `factor` holds, 1 without one; nil if it is not finite.
  private func finite(_ operation: StaticString, _ factor: Tensor<Self>?) -> Scalar? {
    guard let factor else { return 1 }
    requireShapes(operation, ("factor", factor.shape, Shape(1)))
    let value = rows(factor).base[0]
    return value.isFinite ? value : nil
  }

  public func adamW(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, _ m: inout Tensor<Self>, _ v: inout Tensor<Self>,
    _ settings: AdamWSettings, range: Range<Int>?
  ) {
    core.timed("adamW") {
      requireShapes("adamW", ("gradient", gradient.shape, x.shape), ("m", m.shape, x.shape), ("v", v.shape, x.shape))
      guard settings.step >= 1 else { trap("adamW: step \(settings.step) is counted from 1") }
      let part = part("adamW", x, range)
      guard let factor = finite("adamW", factor) else { return }
      let t = Double(settings.step)
      let decay = Scalar(1 - settings.learningRate * settings.weightDecay)
      let (keep1, keep2) = (Scalar(1 - settings.beta1), Scalar(1 - settings.beta2))
      let beta2 = Scalar(settings.beta2)
      let stepSize = Scalar(settings.learningRate / (1 - Double.pow(settings.beta1, t)))
      let rootCorrection = Scalar((1 - Double.pow(settings.beta2, t)).squareRoot())
      let epsilon = Scalar(settings.epsilon)
      let (xs, gs) = (writable(&x).columns(part), rows(gradient).columns(part))
      let (ms, vs) = (writable(&m).columns(part), writable(&v).columns(part))
      forBlocks(xs, gs, ms, vs, cost: 4) { rows, columns in
        for n in rows {
          let (x, g, m, v) = (xs[n], gs[n], ms[n], vs[n])
          for i in Scalar.lanes(columns) {
            let gradient = factor * g[i]
            let first = m[i] + (gradient - m[i]) * keep1
            let second = beta2 * v[i] + keep2 * gradient * gradient
            m[i] = first
            v[i] = second
            x[i] = decay * x[i] - stepSize * first / (Scalar.squareRoot(second) / rootCorrection + epsilon)
          }
        }
      }
    }
  }

  public func sgd(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, momentum b: inout Tensor<Self>, _ settings: SGDSettings,
    range: Range<Int>?
  ) {
    core.timed("sgd") {
      requireShapes("sgd", ("gradient", gradient.shape, x.shape), ("momentum", b.shape, x.shape))
      let part = part("sgd", x, range)
      guard let factor = finite("sgd", factor) else { return }
      let (rate, decay, momentum) = (Scalar(settings.learningRate), Scalar(settings.weightDecay), Scalar(settings.momentum))
      let (xs, gs, bs) = (writable(&x).columns(part), rows(gradient).columns(part), writable(&b).columns(part))
      forBlocks(xs, gs, bs, cost: 2) { rows, columns in
        for n in rows {
          let (x, g, b) = (xs[n], gs[n], bs[n])
          for i in Scalar.lanes(columns) {
            let step = momentum * b[i] + (factor * g[i] + decay * x[i])
            b[i] = step
            x[i] = x[i] - rate * step
          }
        }
      }
    }
  }
}
