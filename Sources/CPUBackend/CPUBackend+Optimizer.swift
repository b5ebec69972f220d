import Tensors

extension CPUBackend {
  /// One step of AdamW (Loshchilov & Hutter 2019) in torch's order: decay, moments, bias correction, update.
  ///
  ///     x ← x (1 − lr λ)      m ← m + (g − m)(1 − β₁)      v ← β₂ v + (1 − β₂) g²
  ///     x ← x − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
  public func adamW(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, _ m: inout Tensor<Self>, _ v: inout Tensor<Self>, _ settings: AdamWSettings
  ) {
    let watch = core.watch("adamW")
    defer { watch.stop() }
    requireShapes("adamW", ("gradient", gradient.shape, x.shape), ("m", m.shape, x.shape), ("v", v.shape, x.shape))
    guard settings.step >= 1 else { trap("adamW: step \(settings.step) is counted from 1") }
    let t = Double(settings.step)
    let decay = Scalar(1 - settings.learningRate * settings.weightDecay)
    let (keep1, keep2) = (Scalar(1 - settings.beta1), Scalar(1 - settings.beta2))
    let beta2 = Scalar(settings.beta2)
    let stepSize = Scalar(settings.learningRate / (1 - CLibrary.pow(settings.beta1, t)))
    let rootCorrection = Scalar((1 - CLibrary.pow(settings.beta2, t)).squareRoot())
    let epsilon = Scalar(settings.epsilon)
    let (xs, gs, ms, vs) = (writable(&x), rows(gradient), writable(&m), writable(&v))
    forBlocks(xs, gs, ms, vs, cost: 4) { rows, columns in
      for n in rows {
        let (x, g, m, v) = (xs[n], gs[n], ms[n], vs[n])
        for i in Scalar.lanes(columns) {
          let gradient = g[i]
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
