import Tensors

/// `Philox` for eight consecutive blocks at a time: the vector form of the definition in `Tensors`.
///
/// A 64-bit lane holds a 32-bit word of one block, so the two products of a round need no shuffles.
struct PhiloxVector {
  typealias Words = SIMD8<UInt64>

  private let key: (UInt64, UInt64)

  init(_ key: RandomKey) { self.key = (key.bits & 0xffff_ffff, key.bits >> 32) }

  /// The 32 numbers of the blocks whose counters lie in the lanes of `c`, block by block, to `numbers`.
  @inline(__always)
  func write(_ c: (Words, Words, Words, Words), to numbers: UnsafeMutablePointer<UInt32>) {
    let low: UInt64 = 0xffff_ffff
    var (c0, c1, c2, c3) = c
    var (k0, k1) = key
    for _ in 0..<10 {
      let p = c0 &* UInt64(Philox.multipliers.0)
      let q = c2 &* UInt64(Philox.multipliers.1)
      (c0, c1, c2, c3) = ((q &>> 32) ^ c1 ^ k0, q & low, (p &>> 32) ^ c3 ^ k1, p & low)
      (k0, k1) = ((k0 &+ UInt64(Philox.weyl.0)) & low, (k1 &+ UInt64(Philox.weyl.1)) & low)
    }
    let (first, second) = (c0 | c1 &<< 32, c2 | c3 &<< 32)
    let to = UnsafeMutableRawPointer(numbers)
    for i in 0..<8 {
      to.storeBytes(of: first[i].littleEndian, toByteOffset: 16 * i, as: UInt64.self)
      to.storeBytes(of: second[i].littleEndian, toByteOffset: 16 * i + 8, as: UInt64.self)
    }
  }

  /// The numbers of blocks (step, sample, position, first ...), rounded up to eight blocks, to `numbers`.
  @inline(__always)
  func fill(
    _ numbers: UnsafeMutablePointer<UInt32>, blocks: Int, step: UInt32, sample: UInt32, position: UInt32, first: Int
  ) {
    let (c0, c1, c2) = (Words(repeating: UInt64(step)), Words(repeating: UInt64(sample)), Words(repeating: UInt64(position)))
    let lanes = Words(0, 1, 2, 3, 4, 5, 6, 7)
    var block = 0
    while block < blocks {
      write((c0, c1, c2, lanes &+ UInt64(first + block)), to: numbers + 4 * block)
      block += 8
    }
  }
}
