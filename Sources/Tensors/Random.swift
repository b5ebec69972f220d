/// The key of one stream of random numbers: hash64(seed, module path, use).
///
/// Numbers are a pure function of key and counter (Salmon et al. 2011, "Parallel random numbers: as easy as
/// 1, 2, 3"), so there is no state to save: a mask is formed again in backward, a resumed run draws what the
/// unbroken one would have drawn, and neither threads nor micro-batches change a number.
public struct RandomKey: Equatable, Hashable, Sendable {
  /// The 64 bits of the key.
  public let bits: UInt64

  /// The root key of a run.
  public init(seed: UInt64) { bits = Self.mixed(seed) }

  private init(bits: UInt64) { self.bits = bits }

  /// The key of one use (`"dropout"`, `"initial value"`) in one module (`"model.layers.3.mlp.input"`).
  public func derived(_ path: String, _ use: StaticString) -> RandomKey {
    var hash = bits ^ 0xcbf2_9ce4_8422_2325  // FNV-1a over the bytes of both names, then a finalizer for its weak high bits
    for byte in path.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
    hash = (hash ^ 0xff) &* 0x0000_0100_0000_01b3  // no UTF-8 byte: keeps ("ab","c") and ("a","bc") apart
    use.withUTF8Buffer { for byte in $0 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 } }
    return RandomKey(bits: Self.mixed(hash))
  }

  /// The key of one of several alike: of an expert, by its number.
  public func derived(_ index: Int) -> RandomKey {
    RandomKey(bits: Self.mixed(bits &+ UInt64(truncatingIfNeeded: index) &* 0xd1b5_4a32_d192_ed03))
  }

  /// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
  private static func mixed(_ value: UInt64) -> UInt64 {
    var z = value &+ 0x9e37_79b9_7f4a_7c15
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Philox 4×32-10: four 32-bit numbers from a 128-bit counter and a 64-bit key.
///
/// Ten rounds of two 32×32→64-bit products (Salmon et al. 2011, section 3.3). This is the definition; backends
/// have their own vector form and are tested against it.
public enum Philox {
  /// The multipliers of the two products of a round.
  public static let multipliers: (UInt32, UInt32) = (0xd251_1f53, 0xcd9e_8d57)
  /// What is added to the two halves of the key after each round: golden ratio and √3 − 1.
  public static let weyl: (UInt32, UInt32) = (0x9e37_79b9, 0xbb67_ae85)

  /// The four numbers of `counter` under `key`.
  public static func numbers(counter: SIMD4<UInt32>, key: RandomKey) -> SIMD4<UInt32> {
    var c = counter
    var k = (UInt32(truncatingIfNeeded: key.bits), UInt32(truncatingIfNeeded: key.bits >> 32))
    for _ in 0..<10 {
      let p = multipliers.0.multipliedFullWidth(by: c[0])
      let q = multipliers.1.multipliedFullWidth(by: c[2])
      c = SIMD4(q.high ^ c[1] ^ k.0, q.low, p.high ^ c[3] ^ k.1, p.low)
      k = (k.0 &+ weyl.0, k.1 &+ weyl.1)
    }
    return c
  }
}

/// What initial values are drawn from.
public enum Distribution: Equatable, Sendable {
  /// N(0, deviation²).
  case normal(deviation: Double)
  /// Uniform in [−bound, bound).
  case uniform(bound: Double)
}
