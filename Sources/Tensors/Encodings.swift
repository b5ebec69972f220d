import CVectors

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

/// A quantized format with blocks of 32 numbers, of which eight at a time can be had: a product takes them as they are formed.
public protocol BlockEncoding: Encoding {
  /// What all numbers of a block are made with.
  static func scales(_ bytes: UnsafeRawPointer) -> SIMD4<Float>
  /// The numbers i to i + 7 of a block, i being a multiple of eight.
  static func eight(_ bytes: UnsafeRawPointer, _ scales: SIMD4<Float>, _ i: Int) -> SIMD8<Float>
}

extension BlockEncoding {
  /// The halves at the beginning of a block: d, or d and m.
  @inlinable @inline(__always)
  public static func scales(_ bytes: UnsafeRawPointer) -> SIMD4<Float> { vectors_halves(bytes) }

  /// The numbers of a block.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let scales = scales(bytes)
    for i in stride(from: 0, to: chunkCount, by: 8) { store(eight(bytes, scales, i), to: y + i) }
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
    for i in stride(from: 0, to: count & ~3, by: 4) {
      let four = vectors_halves(bytes + 2 * i)
      for lane in 0..<4 { y[i + lane] = S(four[lane]) }
    }
    for i in count & ~3..<count { y[i] = S(float(half: half(bytes, 2 * i))) }
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
public enum Q8_0Encoding: BlockEncoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 34 }

  /// Eight numbers of a block.
  @inlinable @inline(__always)
  public static func eight(_ bytes: UnsafeRawPointer, _ scales: SIMD4<Float>, _ i: Int) -> SIMD8<Float> {
    // A signed byte q with its sign bit turned over is q + 128.
    vectors_floats((vectors_bytes(bytes + 2 + i) ^ 0x80) &- 128) * scales.x
  }
}

/// (q − 8) d.
public enum Q4_0Encoding: BlockEncoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 18 }

  /// Eight numbers of a block.
  @inlinable @inline(__always)
  public static func eight(_ bytes: UnsafeRawPointer, _ scales: SIMD4<Float>, _ i: Int) -> SIMD8<Float> {
    vectors_floats(fourBits(bytes + 2, i) &- 8) * scales.x
  }
}

/// q d + m.
public enum Q4_1Encoding: BlockEncoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 20 }

  /// Eight numbers of a block.
  @inlinable @inline(__always)
  public static func eight(_ bytes: UnsafeRawPointer, _ scales: SIMD4<Float>, _ i: Int) -> SIMD8<Float> {
    vectors_floats(fourBits(bytes + 4, i)) * scales.x + scales.y
  }
}

/// (q − 16) d.
public enum Q5_0Encoding: BlockEncoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 22 }

  /// Eight numbers of a block.
  @inlinable @inline(__always)
  public static func eight(_ bytes: UnsafeRawPointer, _ scales: SIMD4<Float>, _ i: Int) -> SIMD8<Float> {
    vectors_floats((fourBits(bytes + 6, i) | fifthBits(word(bytes, 2), i)) &- 16) * scales.x
  }
}

/// q d + m, q of five bits.
public enum Q5_1Encoding: BlockEncoding {
  /// Bytes of 32 numbers.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 24 }

  /// Eight numbers of a block.
  @inlinable @inline(__always)
  public static func eight(_ bytes: UnsafeRawPointer, _ scales: SIMD4<Float>, _ i: Int) -> SIMD8<Float> {
    vectors_floats(fourBits(bytes + 8, i) | fifthBits(word(bytes, 4), i)) * scales.x + scales.y
  }
}

/// Eight numbers of four bits, from number i of 32 on: the low halves of 16 bytes, then the high ones.
@inlinable @inline(__always)
func fourBits(_ bytes: UnsafeRawPointer, _ i: Int) -> SIMD8<Int32> {
  let pairs = vectors_bytes(bytes + i % 16)
  return i < 16 ? pairs & 0x0f : pairs &>> 4
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
func fifthBits(_ word: UInt32, _ first: Int) -> SIMD8<Int32> {
  let bits = SIMD8(repeating: Int32(truncatingIfNeeded: word &>> UInt32(truncatingIfNeeded: first)))
  return ((bits &>> SIMD8(0, 1, 2, 3, 4, 5, 6, 7)) & 1) &<< 4
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

/// The binary16 number of `bits`: `Float16` does not exist on x86-64 macOS.
@inlinable @inline(__always)
func float(half bits: UInt16) -> Float { vectors_half(bits) }
