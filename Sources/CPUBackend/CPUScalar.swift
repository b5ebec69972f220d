import COpenBLAS
import Platform

/// What the kernels need to know about an element type beyond arithmetic.
protocol CPUScalar: BinaryFloatingPoint, SIMDScalar, BitwiseCopyable, Codable, Sendable {
  /// As many elements as one AVX2 register holds; narrower machines use several.
  associatedtype Vector: SIMD & BitwiseCopyable where Vector.Scalar == Self
  /// eˣ in every lane.
  static func exp(_ x: Vector) -> Vector
  /// tanh x in every lane.
  static func tanh(_ x: Vector) -> Vector
  /// ln x.
  static func log(_ x: Self) -> Self
  /// √x in every lane.
  static func squareRoot(_ x: Vector) -> Vector
  /// The larger of two lanes; the first where either is NaN.
  static func maximum(_ a: Vector, _ b: Vector) -> Vector
  /// Σ of the lanes, in pairs.
  static func total(_ x: Vector) -> Self
  /// factor · x where the bit of the element is 1, and 0, whatever x is, where it is not: bit e of byte b is element 8 b + e, and `lanes`
  /// begin at a whole vector. (Comparisons of lanes are fast in a concrete type alone.)
  static func masked(_ x: Vector, _ bits: UnsafeMutablePointer<UInt8>, _ lanes: Lanes, _ factor: Self) -> Vector
  /// c ← α a b + β c, on the calling thread. All sizes are positive.
  static func gemm(_ alpha: Self, _ a: Matrix<Self>, _ b: Matrix<Self>, _ beta: Self, _ c: Matrix<Self>, _ m: Int, _ n: Int, _ k: Int)
  /// y_o ← α ⟨x, w_o⟩ + β y_o for some rows w_o of an encoded matrix, whose numbers are formed in registers; false where there is no such
  /// kernel for its format.
  static func multiply(
    _ alpha: Self, _ x: UnsafeMutablePointer<Self>, _ w: EncodedMatrix, _ rows: Range<Int>, _ beta: Self, _ y: UnsafeMutablePointer<Self>
  ) -> Bool
}

extension Float: CPUScalar {
  typealias Vector = SIMD8<Float>

  /// eˣ by Cody and Waite's reduction and the polynomial of Cephes' `expf` (Moshier 1992), within 1 ulp of the true value.
  ///
  /// n = round(x / ln 2), r = x − n ln 2 with ln 2 in two parts, the first short enough that n times it is exact;
  /// eˣ = 2ⁿ eʳ, |r| ≤ ½ ln 2. Adding 1.5·2²³ rounds to the nearest whole number and leaves it in the low bits.
  /// 2ⁿ is applied in two halves, so overflow ends in +inf and underflow runs through the subnormals. NaN stays NaN.
  /// No fused multiply-add, so every machine gives the same bits.
  @inline(__always)
  static func exp(_ x: SIMD8<Float>) -> SIMD8<Float> {
    let rounder: Float = 0x1.8p23
    let shifted = x * 0x1.715476p0 + rounder
    let n = shifted - rounder
    let r = (x - n * 0.693359375) - n * -2.12194440e-4
    var p = r * 1.9875691500e-4 + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    let y = (p * (r * r) + r) + 1
    let k = unsafeBitCast(shifted, to: SIMD8<Int32>.self) &- Int32(bitPattern: rounder.bitPattern)
    let half = k &>> 1
    let first = unsafeBitCast((half &+ 127) &<< 23, to: SIMD8<Float>.self)  // 2^half
    let second = unsafeBitCast((k &- half &+ 127) &<< 23, to: SIMD8<Float>.self)  // 2^(n − half)
    var result = y * first * second
    result.replace(with: .infinity, where: x .> 89)  // eˣ is beyond 2¹²⁸ from 88.7229 on
    result.replace(with: 0, where: x .< -104)  // eˣ is below half the least subnormal from −103.98 on
    return result
  }

  /// tanh x by the polynomial of Cephes' `tanhf` (Moshier 1992) for |x| < 0.625, else 1 − 2/(1 + e²ˣ) with the sign of x: the quotient
  /// alone would lose the digits of a small x.
  @inline(__always)
  static func tanh(_ x: SIMD8<Float>) -> SIMD8<Float> {
    let z = x * x
    var p = z * -5.70498872745e-3 + 2.06390887954e-2
    p = p * z - 5.37397155531e-2
    p = p * z + 1.33314422036e-1
    p = p * z - 3.33332819422e-1
    let size = maximum(x, -x)
    var y = 1 - 2 / (1 + exp(2 * size))
    y.replace(with: -y, where: x .< 0)
    y.replace(with: p * z * x + x, where: size .< 0.625)
    return y
  }

  @inline(__always)
  static func squareRoot(_ x: SIMD8<Float>) -> SIMD8<Float> { x.squareRoot() }

  @inline(__always)
  static func maximum(_ a: SIMD8<Float>, _ b: SIMD8<Float>) -> SIMD8<Float> { a.replacing(with: b, where: b .> a) }

  @inline(__always)
  static func total(_ x: SIMD8<Float>) -> Float {
    let four = x.lowHalf + x.highHalf
    let two = four.lowHalf + four.highHalf
    return two.x + two.y
  }

  @inline(__always)
  static func masked(_ x: SIMD8<Float>, _ bits: UnsafeMutablePointer<UInt8>, _ lanes: Lanes, _ factor: Float) -> SIMD8<Float> {
    let kept = SIMD8(repeating: Int32(bits[lanes.start / 8])) & SIMD8(1, 2, 4, 8, 16, 32, 64, 128)
    return (factor * x).replacing(with: 0, where: kept .== .zero)
  }

  @inline(__always)
  static func gemm(
    _ alpha: Float, _ a: Matrix<Float>, _ b: Matrix<Float>, _ beta: Float, _ c: Matrix<Float>, _ m: Int, _ n: Int, _ k: Int
  ) {
    cblas_sgemm(
      CblasRowMajor, a.transposition, b.transposition, blasint(m), blasint(n), blasint(k),
      alpha, a.base, a.leading(a.isTransposed ? m : k), b.base, b.leading(b.isTransposed ? k : n), beta, c.base, c.leading(n))
  }
}

extension Double: CPUScalar {
  typealias Vector = SIMD4<Double>

  /// eˣ by the C library, lane by lane: the oracle must not share a polynomial with what it judges.
  @inline(__always)
  static func exp(_ x: SIMD4<Double>) -> SIMD4<Double> {
    SIMD4(Double.exp(x[0]), Double.exp(x[1]), Double.exp(x[2]), Double.exp(x[3]))
  }

  @inline(__always)
  static func tanh(_ x: SIMD4<Double>) -> SIMD4<Double> {
    SIMD4(Double.tanh(x[0]), Double.tanh(x[1]), Double.tanh(x[2]), Double.tanh(x[3]))
  }

  @inline(__always)
  static func squareRoot(_ x: SIMD4<Double>) -> SIMD4<Double> { x.squareRoot() }

  @inline(__always)
  static func maximum(_ a: SIMD4<Double>, _ b: SIMD4<Double>) -> SIMD4<Double> { a.replacing(with: b, where: b .> a) }

  @inline(__always)
  static func total(_ x: SIMD4<Double>) -> Double {
    let two = x.lowHalf + x.highHalf
    return two.x + two.y
  }

  @inline(__always)
  static func masked(_ x: SIMD4<Double>, _ bits: UnsafeMutablePointer<UInt8>, _ lanes: Lanes, _ factor: Double) -> SIMD4<Double> {
    let kept = SIMD4(repeating: Int64(bits[lanes.start / 8]) >> Int64(lanes.start % 8)) & SIMD4(1, 2, 4, 8)
    return (factor * x).replacing(with: 0, where: kept .== .zero)
  }

  @inline(__always)
  static func gemm(
    _ alpha: Double, _ a: Matrix<Double>, _ b: Matrix<Double>, _ beta: Double, _ c: Matrix<Double>, _ m: Int, _ n: Int, _ k: Int
  ) {
    cblas_dgemm(
      CblasRowMajor, a.transposition, b.transposition, blasint(m), blasint(n), blasint(k),
      alpha, a.base, a.leading(a.isTransposed ? m : k), b.base, b.leading(b.isTransposed ? k : n), beta, c.base, c.leading(n))
  }
}
