import Tensors

/// Both activations are x times a sigmoid of a function z of x, since ½ (1 + tanh u) = σ(2u), so that they share their lines:
///
///     act = x σ(z)      act′ = σ(z) + x σ(z) (1 − σ(z)) z′      σ(z) = 1 / (1 + e⁻ᶻ)
///     silu              z = x                                   z′ = 1
///     geluTanh          z = √(8/π) (x + 0.044715 x³)            z′ = √(8/π) (1 + 3 · 0.044715 x²)
///
/// For x → −∞ the quotient x / (1 + e⁻ᶻ) is −0, not NaN.
extension CPUBackend {
  public func gated(_ activation: Activation, _ a: Tensor<Self>, _ c: Tensor<Self>) -> Tensor<Self> {
    core.timed("gated") {
      switch activation {
      case .silu: gated(a, c) { $0 }
      case .geluTanh: gated(a, c) { Self.geluArgument($0) }
      }
    }
  }

  public func gatedBackward(_ activation: Activation, _ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>)
    -> (da: Tensor<Self>, dc: Tensor<Self>)
  {
    core.timed("gatedBackward") {
      switch activation {
      case .silu: gatedBackward(dh, a, c, { $0 }, { _ in Scalar.Vector(repeating: 1) })
      case .geluTanh: gatedBackward(dh, a, c, { Self.geluArgument($0) }, { Self.geluArgumentSlope($0) })
      }
    }
  }

  @inline(__always)
  private static func geluArgument(_ x: Scalar.Vector) -> Scalar.Vector { gelu * (x + 0.044715 * (x * x * x)) }

  @inline(__always)
  private static func geluArgumentSlope(_ x: Scalar.Vector) -> Scalar.Vector { gelu * (1 + 0.134145 * (x * x)) }

  /// √(8/π).
  private static var gelu: Scalar { Scalar(1.5957691216057308) }

  @inline(__always)
  private func gated(_ a: Tensor<Self>, _ c: Tensor<Self>, _ z: (Scalar.Vector) -> Scalar.Vector) -> Tensor<Self> {
    requireShapes("gated", ("c", c.shape, a.shape))
    let (h, hs) = fresh(a.shape)
    let (a, c) = (rows(a), rows(c))
    forBlocks(a, c, hs, cost: 8) { rows, columns in
      for n in rows {
        let (a, c, h) = (a[n], c[n], hs[n])
        for i in Scalar.lanes(columns) {
          let x = a[i]
          h[i] = x / (1 + Scalar.exp(-z(x))) * c[i]
        }
      }
    }
    return h
  }

  @inline(__always)
  private func gatedBackward(
    _ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>, _ z: (Scalar.Vector) -> Scalar.Vector,
    _ slope: (Scalar.Vector) -> Scalar.Vector
  ) -> (da: Tensor<Self>, dc: Tensor<Self>) {
    requireShapes("gatedBackward", ("a", a.shape, dh.shape), ("c", c.shape, dh.shape))
    let (da, das) = fresh(dh.shape)
    let (dc, dcs) = fresh(dh.shape)
    let (dhs, a, c) = (rows(dh), rows(a), rows(c))
    forBlocks(dhs, a, c, das, dcs, cost: 10) { rows, columns in
      for n in rows {
        let (dh, a, c, da, dc) = (dhs[n], a[n], c[n], das[n], dcs[n])
        for i in Scalar.lanes(columns) {
          let (x, d) = (a[i], dh[i])
          let sigma = 1 / (1 + Scalar.exp(-z(x)))
          let act = x * sigma
          da[i] = d * c[i] * (sigma + act * (1 - sigma) * slope(x))
          dc[i] = d * act
        }
      }
    }
    return (da, dc)
  }
}
