import Tensors

/// `Philox` for sixteen blocks at a time, the vector form of the definition in `Tensors`: eight of them in the lanes of four vectors, one
/// for each of a block's words, and eight more in four others, because each round waits for the one before.
struct PhiloxVector {
  typealias Words = SIMD8<UInt32>

  /// Blocks that are formed together.
  static let blocks = 16

  private let key: (UInt32, UInt32)

  init(_ key: RandomKey) {
    self.key = (UInt32(truncatingIfNeeded: key.bits), UInt32(truncatingIfNeeded: key.bits >> 32))
  }

  /// The 64 numbers of sixteen blocks, block by block, to `numbers`. The counter of the first block is `first`, and that of the others
  /// grows in its first word.
  func write(from first: SIMD4<UInt32>, to numbers: UnsafeMutablePointer<UInt32>) {
    withUnsafeTemporaryAllocation(of: Words.self, capacity: 8) { planes in
      writePlanes(first[0], first[1], first[2], first[3], inLastWord: false, to: planes.baseAddress)
      planes.withMemoryRebound(to: UInt32.self) { p in
        let to = UnsafeMutableRawPointer(numbers)
        for i in 0..<Self.blocks {
          let j = i / 8 * 32 + i % 8
          to.storeBytes(of: SIMD4(p[j], p[j + 8], p[j + 16], p[j + 24]), toByteOffset: 16 * i, as: SIMD4<UInt32>.self)
        }
      }
    }
  }

  /// Which 16-bit numbers of the blocks reach `threshold`: a byte a block, of which bit j is number j, the lower half of a word first.
  /// The counter of the first block is `first`, and that of the others grows in its last word. Whole sixteens of bytes are written.
  func compare(from first: SIMD4<UInt32>, blocks: Int, _ threshold: UInt32, to bytes: UnsafeMutablePointer<UInt8>) {
    withUnsafeTemporaryAllocation(of: Words.self, capacity: 8) { planes in
      for block in stride(from: 0, to: blocks, by: Self.blocks) {
        let last = first[3] &+ UInt32(truncatingIfNeeded: block)
        writePlanes(first[0], first[1], first[2], last, inLastWord: true, to: planes.baseAddress)
        Self.writeBits(planes.baseAddress, threshold, to: bytes + block)
      }
    }
  }

  /// Number 0 of eight blocks, then 1, 2, 3, and the same for eight more; the counters grow in the first or in the last word.
  ///
  /// Not inlined, and results in memory: where LLVM sees what comes of the lanes, it takes them apart in every round.
  @inline(never)
  private func writePlanes(
    _ n0: UInt32, _ n1: UInt32, _ n2: UInt32, _ n3: UInt32, inLastWord: Bool, to planes: UnsafeMutablePointer<Words>?
  ) {
    guard let planes else { return }
    let lanes = Words(0, 1, 2, 3, 4, 5, 6, 7)
    var (c0, c1, c2, c3) = (Words(repeating: n0), Words(repeating: n1), Words(repeating: n2), Words(repeating: n3))
    var (d0, d1, d2, d3) = (c0, c1, c2, c3)
    if inLastWord { (c3, d3) = (c3 &+ lanes, d3 &+ lanes &+ 8) } else { (c0, d0) = (c0 &+ lanes, d0 &+ lanes &+ 8) }
    var (k0, k1) = key
    for _ in 0..<10 {
      let (p, q) = (Self.product(c0, Philox.multipliers.0), Self.product(c2, Philox.multipliers.1))
      (c0, c1, c2, c3) = (q.high ^ c1 ^ k0, q.low, p.high ^ c3 ^ k1, p.low)
      let (r, s) = (Self.product(d0, Philox.multipliers.0), Self.product(d2, Philox.multipliers.1))
      (d0, d1, d2, d3) = (s.high ^ d1 ^ k0, s.low, r.high ^ d3 ^ k1, r.low)
      (k0, k1) = (k0 &+ Philox.weyl.0, k1 &+ Philox.weyl.1)
    }
    (planes[0], planes[1], planes[2], planes[3]) = (c0, c1, c2, c3)
    (planes[4], planes[5], planes[6], planes[7]) = (d0, d1, d2, d3)
  }

  /// Bit j of a block's byte: whether its number j reaches the threshold. (Integers are compared lane by lane with a scalar, at once with a
  /// vector.)
  @inline(never)
  private static func writeBits(_ planes: UnsafeMutablePointer<Words>?, _ threshold: UInt32, to bytes: UnsafeMutablePointer<UInt8>) {
    guard let planes else { return }
    let limit = SIMD8(repeating: Int32(threshold))
    for half in 0..<2 {
      var bits = SIMD8<Int32>()
      for word in 0..<4 {
        let words = planes[4 * half + word]
        let (low, high) = (SIMD8<Int32>(truncatingIfNeeded: words & 0xffff), SIMD8<Int32>(truncatingIfNeeded: words &>> 16))
        let bit = Int32(1 << (2 * word))
        bits |= SIMD8().replacing(with: bit, where: low .>= limit) | SIMD8().replacing(with: 2 * bit, where: high .>= limit)
      }
      UnsafeMutableRawPointer(bytes).storeBytes(of: SIMD8(truncatingIfNeeded: bits), toByteOffset: 8 * half, as: SIMD8<UInt8>.self)
    }
  }

  /// The 64-bit products of all lanes, in halves. Even and odd lanes go apart, as 64-bit lanes of a vector each.
  @inline(__always)
  private static func product(_ a: Words, _ multiplier: UInt32) -> (high: Words, low: Words) {
    let m = UInt64(multiplier)
    let pairs = unsafeBitCast(a, to: SIMD4<UInt64>.self)
    let (even, odd) = ((pairs & 0xffff_ffff) &* m, (pairs &>> 32) &* m)
    let isOdd = unsafeBitCast(SIMD8<Int32>(0, -1, 0, -1, 0, -1, 0, -1), to: SIMDMask<SIMD8<Int32>>.self)
    return (
      unsafeBitCast(even &>> 32, to: Words.self).replacing(with: unsafeBitCast(odd, to: Words.self), where: isOdd),
      unsafeBitCast(even, to: Words.self).replacing(with: unsafeBitCast(odd &<< 32, to: Words.self), where: isOdd)
    )
  }
}
