import Tensors

/// How one format of a frozen matrix is decoded: up to 32 numbers of a row at a time.
///
/// A number is formed in float32 in ggml's order, each operation rounded, so that it is bit for bit ggml's;
/// `CPUDouble` widens that number. Bytes may stand at any address.
protocol Encoding {
  /// Bytes of 32 numbers.
  static var chunkBytes: Int { get }
  /// The first `count` numbers of a chunk; quantised formats have whole chunks only.
  static func decode<S: CPUScalar>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>)
}

/// Numbers in a chunk.
let chunkCount = 32

extension CPUScalar {
  /// Writes eight float32 numbers, widened.
  @inline(__always)
  static func store(_ v: SIMD8<Float>, to y: UnsafeMutablePointer<Self>) {
    if Self.self == Float.self {
      UnsafeMutableRawPointer(y).storeBytes(of: v, as: SIMD8<Float>.self)
    } else {
      for i in 0..<8 { y[i] = Self(v[i]) }
    }
  }
}

enum Float16Encoding: Encoding {
  static var chunkBytes: Int { 64 }

  @inline(__always)
  static func decode<S: CPUScalar>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    for i in 0..<count { y[i] = S(float(half: half(bytes, 2 * i))) }
  }
}

enum BFloat16Encoding: Encoding {
  static var chunkBytes: Int { 64 }

  @inline(__always)
  static func decode<S: CPUScalar>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    for i in 0..<count { y[i] = S(Float(bitPattern: UInt32(half(bytes, 2 * i)) << 16)) }
  }
}

/// q d.
enum Q8_0Encoding: Encoding {
  static var chunkBytes: Int { 34 }

  @inline(__always)
  static func decode<S: CPUScalar>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let d = float(half: half(bytes, 0))
    for i in stride(from: 0, to: chunkCount, by: 8) {
      // A signed byte q with its sign bit turned over is q + 128.
      let q = wholeNumbers(widened(bytes, 2 + i) ^ 0x80) - 0x1.0001p23
      S.store(q * d, to: y + i)
    }
  }
}

/// (q − 8) d.
enum Q4_0Encoding: Encoding {
  static var chunkBytes: Int { 18 }

  @inline(__always)
  static func decode<S: CPUScalar>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let d = float(half: half(bytes, 0))
    for i in stride(from: 0, to: chunkCount / 2, by: 8) {
      let pairs = widened(bytes, 2 + i)
      let low = wholeNumbers(pairs & 0x0f) - 8_388_616
      let high = wholeNumbers(pairs &>> 4) - 8_388_616
      S.store(low * d, to: y + i)
      S.store(high * d, to: y + i + chunkCount / 2)
    }
  }
}

/// q d + m.
enum Q4_1Encoding: Encoding {
  static var chunkBytes: Int { 20 }

  @inline(__always)
  static func decode<S: CPUScalar>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let (d, m) = (float(half: half(bytes, 0)), float(half: half(bytes, 2)))
    for i in stride(from: 0, to: chunkCount / 2, by: 8) {
      let pairs = widened(bytes, 4 + i)
      let low = wholeNumbers(pairs & 0x0f) - 8_388_608
      let high = wholeNumbers(pairs &>> 4) - 8_388_608
      S.store(low * d + m, to: y + i)
      S.store(high * d + m, to: y + i + chunkCount / 2)
    }
  }
}

/// The little-endian 16 bits at an offset.
@inline(__always)
private func half(_ bytes: UnsafeRawPointer, _ offset: Int) -> UInt16 {
  UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
}

/// Eight consecutive bytes, a lane each: one instruction (`vpmovzxbd`), where float conversions would run lane by lane.
@inline(__always)
private func widened(_ bytes: UnsafeRawPointer, _ offset: Int) -> SIMD8<UInt32> {
  SIMD8(truncatingIfNeeded: bytes.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt8>.self))
}

/// n + 2²³ for whole numbers n < 2²³: the low bits of such a float32 are the number.
@inline(__always)
private func wholeNumbers(_ n: SIMD8<UInt32>) -> SIMD8<Float> {
  unsafeBitCast(n | 0x4b00_0000, to: SIMD8<Float>.self)
}
