import Tensors

/// Both activations are x times a sigmoid of a function z of x, since ½ (1 + tanh u) = σ(2u), so that they share their lines:
///
///     act = x σ(z)      act′ = σ(z) + x σ(z) (1 − σ(z)) z′      σ(z) = 1 / (1 + e⁻ᶻ)
///     silu              z = x                                   z′ = 1
///     geluTanh          z = √(8/π) (x + 0.044715 x³)            z′ = √(8/π) (1 + 3 · 0.044715 x²)
///
/// For x → −∞ the quotient x / (1 + e⁻ᶻ) is −0, not NaN.
protocol GatedUnit {
  /// z.
  static func argument<S: CPUScalar>(_ x: S.Vector, _: S.Type) -> S.Vector
  /// y z′ for y = x σ(z) (1 − σ(z)).
  static func sloped<S: CPUScalar>(_ y: S.Vector, _ x: S.Vector, _: S.Type) -> S.Vector
}

extension GatedUnit {
  /// act(x).
  @inline(__always)
  static func value<S: CPUScalar>(_ x: S.Vector, _: S.Type) -> S.Vector { x / (1 + S.exp(-argument(x, S.self))) }
  /// act(x) and act′(x).
  @inline(__always)
  static func valueAndSlope<S: CPUScalar>(_ x: S.Vector, _: S.Type) -> (act: S.Vector, slope: S.Vector) {
    let sigma = 1 / (1 + S.exp(-argument(x, S.self)))
    let act = x * sigma
    return (act, sigma + sloped(act * (1 - sigma), x, S.self))
  }
}

enum SiLU: GatedUnit {
  @inline(__always)
  static func argument<S: CPUScalar>(_ x: S.Vector, _: S.Type) -> S.Vector { x }
  @inline(__always)
  static func sloped<S: CPUScalar>(_ y: S.Vector, _ x: S.Vector, _: S.Type) -> S.Vector { y }
}

enum GELU: GatedUnit {
  @inline(__always)
  static func argument<S: CPUScalar>(_ x: S.Vector, _: S.Type) -> S.Vector {
    let (root, cubic): (S, S) = (1.5957691216057308, 0.044715)
    return root * (x + cubic * (x * x * x))
  }
  @inline(__always)
  static func sloped<S: CPUScalar>(_ y: S.Vector, _ x: S.Vector, _: S.Type) -> S.Vector {
    let (root, quadratic): (S, S) = (1.5957691216057308, 0.134145)
    return y * (root * (1 + quadratic * (x * x)))
  }
}

extension CPUBackend {
  public func gated(_ activation: Activation, _ a: Tensor<Self>, _ c: Tensor<Self>) -> Tensor<Self> {
    core.timed("gated") {
      switch activation {
      case .silu: gated(SiLU.self, a, c)
      case .geluTanh: gated(GELU.self, a, c)
      }
    }
  }

  public func gatedBackward(_ activation: Activation, _ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>)
    -> (da: Tensor<Self>, dc: Tensor<Self>)
  {
    core.timed("gatedBackward") {
      switch activation {
      case .silu: gatedBackward(SiLU.self, dh, a, c)
      case .geluTanh: gatedBackward(GELU.self, dh, a, c)
      }
    }
  }

  @inline(__always)
  private func gated<U: GatedUnit>(_: U.Type, _ a: Tensor<Self>, _ c: Tensor<Self>) -> Tensor<Self> {
    requireShapes("gated", ("c", c.shape, a.shape))
    let (h, hs) = fresh(a.shape)
    let (a, c) = (rows(a), rows(c))
    forBlocks(a, c, hs, cost: 8) { rows, columns in
      for n in rows {
        let (a, c, h) = (a[n], c[n], hs[n])
        for i in Scalar.lanes(columns) { h[i] = U.value(a[i], Scalar.self) * c[i] }
      }
    }
    return h
  }

  @inline(__always)
  private func gatedBackward<U: GatedUnit>(_: U.Type, _ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>)
    -> (da: Tensor<Self>, dc: Tensor<Self>)
  {
    requireShapes("gatedBackward", ("a", a.shape, dh.shape), ("c", c.shape, dh.shape))
    let (da, das) = fresh(dh.shape)
    let (dc, dcs) = fresh(dh.shape)
    let (dhs, a, c) = (rows(dh), rows(a), rows(c))
    forBlocks(dhs, a, c, das, dcs, cost: 10) { rows, columns in
      for n in rows {
        let (dh, a, c, da, dc) = (dhs[n], a[n], c[n], das[n], dcs[n])
        for i in Scalar.lanes(columns) {
          let (act, slope) = U.valueAndSlope(a[i], Scalar.self)
          let d = dh[i]
          da[i] = d * c[i] * slope
          dc[i] = d * act
        }
      }
    }
    return (da, dc)
  }
}
