/// How one format that is narrower than float32 is decoded: a chunk of a row at a time, 32 numbers or a block of 256.
///
/// A number is formed in float32 in ggml's order, each operation rounded, so that it is bit for bit ggml's; a wider scalar gets that
/// number. Bytes may stand at any address. All is inlined, so that a backend's kernels and the readers of files run the same lines,
/// each specialized for its scalar.
public protocol Encoding {
  /// Numbers of a chunk: 32, or more in formats whose blocks are larger.
  static var chunkCount: Int { get }
  /// Bytes of a chunk.
  static var chunkBytes: Int { get }
  /// The first `count` numbers of a chunk; quantized formats have whole chunks only.
  static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>)
}

extension Encoding {
  /// 32.
  @inlinable @inline(__always)
  public static var chunkCount: Int { 32 }

  /// Decodes a row of `columns` numbers.
  @inlinable @inline(__always)
  public static func decodeRow<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ columns: Int, to y: UnsafeMutablePointer<S>) {
    var (source, j) = (bytes, 0)
    while j + chunkCount <= columns {
      decode(source, chunkCount, to: y + j)
      source += chunkBytes
      j += chunkCount
    }
    if j < columns { decode(source, columns - j, to: y + j) }
  }
}

extension WeightFormat {
  /// Decodes `count` numbers from wherever they stand.
  ///
  /// - Precondition: `count` is a multiple of `blockCount`; there are bytes and room for as many.
  @inlinable @inline(__always)
  public func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    switch self {
    case .float32:
      for i in 0..<count {
        y[i] = S(Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self))))
      }
    case .float64:
      for i in 0..<count {
        y[i] = S(Double(bitPattern: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * i, as: UInt64.self))))
      }
    case .float16: Float16Encoding.decodeRow(bytes, count, to: y)
    case .bfloat16: BFloat16Encoding.decodeRow(bytes, count, to: y)
    case .q8_0: Q8_0Encoding.decodeRow(bytes, count, to: y)
    case .q4_0: Q4_0Encoding.decodeRow(bytes, count, to: y)
    case .q4_1: Q4_1Encoding.decodeRow(bytes, count, to: y)
    case .q5_0: Q5_0Encoding.decodeRow(bytes, count, to: y)
    case .q5_1: Q5_1Encoding.decodeRow(bytes, count, to: y)
    case .q2_K: Q2_KEncoding.decodeRow(bytes, count, to: y)
    case .q3_K: Q3_KEncoding.decodeRow(bytes, count, to: y)
    case .q4_K: Q4_KEncoding.decodeRow(bytes, count, to: y)
    case .q5_K: Q5_KEncoding.decodeRow(bytes, count, to: y)
    case .q6_K: Q6_KEncoding.decodeRow(bytes, count, to: y)
    }
  }
}

/// binary16, by bits.
public enum Float16Encoding: Encoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 64 }

  /// The first `count` numbers of a chunk.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    for i in 0..<count { y[i] = S(float(half: half(bytes, 2 * i))) }
  }
}

/// The upper half of a binary32.
public enum BFloat16Encoding: Encoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 64 }

  /// The first `count` numbers of a chunk.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    for i in 0..<count { y[i] = S(Float(bitPattern: UInt32(half(bytes, 2 * i)) << 16)) }
  }
}

/// q d.
public enum Q8_0Encoding: Encoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 34 }

  /// The first `count` numbers of a chunk.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let d = float(half: half(bytes, 0))
    for i in stride(from: 0, to: chunkCount, by: 8) {
      // A signed byte q with its sign bit turned over is q + 128.
      let q = wholeNumbers(widened(bytes, 2 + i) ^ 0x80) - 0x1.0001p23
      store(q * d, to: y + i)
    }
  }
}

/// (q − 8) d.
public enum Q4_0Encoding: Encoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 18 }

  /// The first `count` numbers of a chunk.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let d = float(half: half(bytes, 0))
    for i in stride(from: 0, to: chunkCount / 2, by: 8) {
      let pairs = widened(bytes, 2 + i)
      let low = wholeNumbers(pairs & 0x0f) - 8_388_616
      let high = wholeNumbers(pairs &>> 4) - 8_388_616
      store(low * d, to: y + i)
      store(high * d, to: y + i + chunkCount / 2)
    }
  }
}

/// q d + m.
public enum Q4_1Encoding: Encoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 20 }

  /// The first `count` numbers of a chunk.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let (d, m) = (float(half: half(bytes, 0)), float(half: half(bytes, 2)))
    for i in stride(from: 0, to: chunkCount / 2, by: 8) {
      let pairs = widened(bytes, 4 + i)
      let low = wholeNumbers(pairs & 0x0f) - 8_388_608
      let high = wholeNumbers(pairs &>> 4) - 8_388_608
      store(low * d + m, to: y + i)
      store(high * d + m, to: y + i + chunkCount / 2)
    }
  }
}

/// (q − 16) d.
public enum Q5_0Encoding: Encoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 22 }

  /// The first `count` numbers of a chunk.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let (d, fifth) = (float(half: half(bytes, 0)), word(bytes, 2))
    for i in stride(from: 0, to: chunkCount / 2, by: 8) {
      let pairs = widened(bytes, 6 + i)
      let low = wholeNumbers((pairs & 0x0f) | fifthBits(fifth, i)) - 8_388_624
      let high = wholeNumbers((pairs &>> 4) | fifthBits(fifth, i + chunkCount / 2)) - 8_388_624
      store(low * d, to: y + i)
      store(high * d, to: y + i + chunkCount / 2)
    }
  }
}

/// q d + m, q of five bits.
public enum Q5_1Encoding: Encoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 24 }

  /// The first `count` numbers of a chunk.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let (d, m, fifth) = (float(half: half(bytes, 0)), float(half: half(bytes, 2)), word(bytes, 4))
    for i in stride(from: 0, to: chunkCount / 2, by: 8) {
      let pairs = widened(bytes, 8 + i)
      let low = wholeNumbers((pairs & 0x0f) | fifthBits(fifth, i)) - 8_388_608
      let high = wholeNumbers((pairs &>> 4) | fifthBits(fifth, i + chunkCount / 2)) - 8_388_608
      store(low * d + m, to: y + i)
      store(high * d + m, to: y + i + chunkCount / 2)
    }
  }
}

/// The little-endian 16 bits at an offset.
@inlinable @inline(__always)
func half(_ bytes: UnsafeRawPointer, _ offset: Int) -> UInt16 {
  UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
}

/// The little-endian 32 bits at an offset.
@inlinable @inline(__always)
func word(_ bytes: UnsafeRawPointer, _ offset: Int) -> UInt32 {
  UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
}

/// Eight consecutive bits of a word, from bit `first` on, each as the fifth bit of a number.
@inlinable @inline(__always)
func fifthBits(_ word: UInt32, _ first: Int) -> SIMD8<UInt32> {
  ((SIMD8(repeating: word &>> UInt32(truncatingIfNeeded: first)) &>> SIMD8(0, 1, 2, 3, 4, 5, 6, 7)) & 1) &<< 4
}

/// Eight consecutive bytes, a lane each: one instruction (`vpmovzxbd`), where float conversions would run lane by lane.
@inlinable @inline(__always)
func widened(_ bytes: UnsafeRawPointer, _ offset: Int) -> SIMD8<UInt32> {
  SIMD8(truncatingIfNeeded: bytes.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt8>.self))
}

/// n + 2²³ for whole numbers n < 2²³: the low bits of such a float32 are the number.
@inlinable @inline(__always)
func wholeNumbers(_ n: SIMD8<UInt32>) -> SIMD8<Float> {
  unsafeBitCast(n | 0x4b00_0000, to: SIMD8<Float>.self)
}

/// Writes eight float32 numbers, widened.
@inlinable @inline(__always)
func store<S: BinaryFloatingPoint>(_ v: SIMD8<Float>, to y: UnsafeMutablePointer<S>) {
  if S.self == Float.self {
    UnsafeMutableRawPointer(y).storeBytes(of: v, as: SIMD8<Float>.self)
  } else {
    for i in 0..<8 { y[i] = S(v[i]) }
  }
}

/// The binary16 number of `bits`, by bits: `Float16` does not exist on x86-64 macOS.
///
/// Exponent and fraction move to their place in binary32 and 2¹¹² corrects the bias, which also normalizes
/// subnormals; the largest exponent means infinity or NaN.
@inlinable @inline(__always)
func float(half bits: UInt16) -> Float {
  let magnitude = UInt32(bits & 0x7fff) << 13
  let finite = (Float(bitPattern: magnitude) * 0x1p112).bitPattern
  let special = magnitude | 0x7f80_0000
  let sign = UInt32(bits & 0x8000) << 16
  return Float(bitPattern: sign | (magnitude >= 0x0f80_0000 ? special : finite))
}
