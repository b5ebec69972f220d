import Tensors

/// `Philox` for eight blocks at a time: the vector form of the definition in `Tensors`. A lane is a block.
struct PhiloxVector {
  typealias Words = SIMD8<UInt32>

  private let key: (UInt32, UInt32)

  init(_ key: RandomKey) {
    self.key = (UInt32(truncatingIfNeeded: key.bits), UInt32(truncatingIfNeeded: key.bits >> 32))
  }

  /// The 32 numbers of the blocks whose counters lie in the lanes of `c`, block by block, to `numbers`.
  @inline(__always)
  func write(_ c: (Words, Words, Words, Words), to numbers: UnsafeMutablePointer<UInt32>) {
    var (c0, c1, c2, c3) = c
    var (k0, k1) = key
    for _ in 0..<10 {
      let p = Self.product(c0, Philox.multipliers.0)
      let q = Self.product(c2, Philox.multipliers.1)
      (c0, c1, c2, c3) = (q.high ^ c1 ^ k0, q.low, p.high ^ c3 ^ k1, p.low)
      (k0, k1) = (k0 &+ Philox.weyl.0, k1 &+ Philox.weyl.1)
    }
    let to = UnsafeMutableRawPointer(numbers)
    for i in 0..<8 { to.storeBytes(of: SIMD4(c0[i], c1[i], c2[i], c3[i]), toByteOffset: 16 * i, as: SIMD4<UInt32>.self) }
  }

  /// The 64-bit products of all lanes, in halves. Even and odd lanes go apart, as 64-bit lanes of a vector each.
  @inline(__always)
  private static func product(_ a: Words, _ multiplier: UInt32) -> (high: Words, low: Words) {
    let m = UInt64(multiplier)
    let low: UInt64 = 0x0000_0000_ffff_ffff
    let pairs = unsafeBitCast(a, to: SIMD4<UInt64>.self)
    let (even, odd) = ((pairs & low) &* m, (pairs &>> 32) &* m)
    return (
      unsafeBitCast((even &>> 32) | (odd & ~low), to: Words.self), unsafeBitCast((even & low) | (odd &<< 32), to: Words.self)
    )
  }

  /// 0, 1, … 7, to be added to the number of the first of eight blocks.
  static let lanes = Words(0, 1, 2, 3, 4, 5, 6, 7)
}
