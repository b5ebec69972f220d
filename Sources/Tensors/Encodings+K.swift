import CVectors

// ggml's k-quants: blocks of 256 numbers, in sub-blocks of 16 or 32 with small whole numbers for scales (and minima), which one half each
// (two, with minima) makes numbers of. Each product and difference is rounded to float32, in ggml's order.

/// (d s) q − (e m), q of two bits, s and m of four, a pair for 16 numbers.
public enum Q2_KEncoding: Encoding {
  /// Numbers of a block.
  @inlinable @inline(__always)
  public static var chunkCount: Int { 256 }
  /// Bytes of a block: 16 of scales and minima · 64 of q · half d · half e.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 84 }

  /// The numbers of a block.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let (d, e) = (float(half: half(bytes, 80)), float(half: half(bytes, 82)))
    for group in 0..<8 {  // of 32 numbers: the same two bits of 32 bytes
      for i in stride(from: 0, to: 32, by: 8) {
        let scales = byte(bytes, 2 * group + i / 16)
        let q = vectors_floats(twoBits(bytes, 16 + group / 4 * 32 + i, group))
        store(q * (d * Float(scales & 15)) - e * Float(scales >> 4), to: y + 32 * group + i)
      }
    }
  }
}

/// (d (s − 32)) (q − 4), q of three bits, s of six, one for 16 numbers.
public enum Q3_KEncoding: Encoding {
  /// Numbers of a block.
  @inlinable @inline(__always)
  public static var chunkCount: Int { 256 }
  /// Bytes of a block: 32 of third bits · 64 of q · 12 of scales · half d.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 110 }

  /// The numbers of a block.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let d = float(half: half(bytes, 108))
    for group in 0..<8 {
      for i in stride(from: 0, to: 32, by: 8) {
        let third = (vectors_bytes(bytes + i) &>> Int32(truncatingIfNeeded: group)) & 1
        let q = vectors_floats((twoBits(bytes, 32 + group / 4 * 32 + i, group) | (third &<< 2)) &- 4)
        store(q * (d * Float(scale(bytes + 96, 2 * group + i / 16))), to: y + 32 * group + i)
      }
    }
  }

  /// s − 32 of a sub-block: four bits, those of 0 … 7 before those of 8 … 15 in each byte, and two in the last four bytes.
  @inlinable @inline(__always)
  static func scale(_ bytes: UnsafeRawPointer, _ n: Int) -> Int32 {
    let low = (byte(bytes, n % 8) >> UInt32(truncatingIfNeeded: n / 8 * 4)) & 15
    let high = (byte(bytes, 8 + n % 4) >> UInt32(truncatingIfNeeded: n / 4 * 2)) & 3
    return Int32(low | high << 4) - 32
  }
}

/// (d s) q − (e m), q of four bits, s and m of six, a pair for 32 numbers.
public enum Q4_KEncoding: Encoding {
  /// Numbers of a block.
  @inlinable @inline(__always)
  public static var chunkCount: Int { 256 }
  /// Bytes of a block: half d · half e · 12 of scales and minima · 128 of q.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 144 }

  /// The numbers of a block.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    for pair in 0..<4 {  // of sub-blocks: the low and the high halves of 32 bytes
      let (low, high) = (SubBlock(bytes, 2 * pair), SubBlock(bytes, 2 * pair + 1))
      for i in stride(from: 0, to: 32, by: 8) {
        let pairs = vectors_bytes(bytes + 16 + 32 * pair + i)
        store(vectors_floats(pairs & 0x0f) * low.scale - low.minimum, to: y + 64 * pair + i)
        store(vectors_floats(pairs &>> 4) * high.scale - high.minimum, to: y + 64 * pair + 32 + i)
      }
    }
  }
}

/// (d s) q − (e m), q of five bits, s and m of six, a pair for 32 numbers.
public enum Q5_KEncoding: Encoding {
  /// Numbers of a block.
  @inlinable @inline(__always)
  public static var chunkCount: Int { 256 }
  /// Bytes of a block: half d · half e · 12 of scales and minima · 32 of fifth bits · 128 of q.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 176 }

  /// The numbers of a block.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    for pair in 0..<4 {
      let (low, high) = (SubBlock(bytes, 2 * pair), SubBlock(bytes, 2 * pair + 1))
      for i in stride(from: 0, to: 32, by: 8) {
        let fifth = vectors_bytes(bytes + 16 + i) &>> Int32(truncatingIfNeeded: 2 * pair)
        let pairs = vectors_bytes(bytes + 48 + 32 * pair + i)
        let lowQ = vectors_floats((pairs & 0x0f) | ((fifth & 1) &<< 4))
        let highQ = vectors_floats((pairs &>> 4) | ((fifth & 2) &<< 3))
        store(lowQ * low.scale - low.minimum, to: y + 64 * pair + i)
        store(highQ * high.scale - high.minimum, to: y + 64 * pair + 32 + i)
      }
    }
  }
}

/// (d s) (q − 32), q of six bits, s a signed byte for 16 numbers.
public enum Q6_KEncoding: Encoding {
  /// Numbers of a block.
  @inlinable @inline(__always)
  public static var chunkCount: Int { 256 }
  /// Bytes of a block: 128 of low halves · 64 of upper two bits · 16 of scales · half d.
  @inlinable @inline(__always)
  public static var chunkBytes: Int { 210 }

  /// The numbers of a block.
  @inlinable @inline(__always)
  public static func decode<S: BinaryFloatingPoint>(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<S>) {
    let d = float(half: half(bytes, 208))
    for group in 0..<8 {
      let low = 64 * (group / 4) + 32 * (group % 2)  // groups 2 and 3 of four are the high halves of the bytes of 0 and 1
      for i in stride(from: 0, to: 32, by: 8) {
        let lower = (vectors_bytes(bytes + low + i) &>> Int32(truncatingIfNeeded: group % 4 / 2 * 4)) & 0x0f
        let q = vectors_floats((lower | (twoBits(bytes, 128 + group / 4 * 32 + i, group) &<< 4)) &- 32)
        let scale = Float(Int8(truncatingIfNeeded: byte(bytes, 192 + 2 * group + i / 16)))
        store(q * (d * scale), to: y + 32 * group + i)
      }
    }
  }
}

/// What q of a sub-block of Q4_K or Q5_K is multiplied with, and what is then taken away.
@usableFromInline
struct SubBlock {
  @usableFromInline let scale: Float
  @usableFromInline let minimum: Float

  /// The numbers of sub-block n < 8. Of the 12 bytes behind the halves, 0 … 3 hold the scales of 0 … 3 in six bits, 4 … 7 the minima, and
  /// 8 … 11 the low halves of both of 4 … 7, whose upper two bits are those that the first eight bytes have left.
  @inlinable @inline(__always)
  init(_ bytes: UnsafeRawPointer, _ n: Int) {
    let (d, e) = (float(half: half(bytes, 0)), float(half: half(bytes, 2)))
    let (s, m) = (byte(bytes, 4 + n % 4), byte(bytes, 8 + n % 4))
    let low = byte(bytes, 12 + n % 4)
    scale = d * Float(n < 4 ? s & 63 : (low & 15) | (s >> 6) << 4)
    minimum = e * Float(n < 4 ? m & 63 : (low >> 4) | (m >> 6) << 4)
  }
}

/// The byte at an offset.
@inlinable @inline(__always)
func byte(_ bytes: UnsafeRawPointer, _ offset: Int) -> UInt32 { UInt32(bytes.load(fromByteOffset: offset, as: UInt8.self)) }

/// Bits 2g and 2g + 1 of eight bytes, g being `group` modulo 4.
@inlinable @inline(__always)
func twoBits(_ bytes: UnsafeRawPointer, _ offset: Int, _ group: Int) -> SIMD8<Int32> {
  (vectors_bytes(bytes + offset) &>> Int32(truncatingIfNeeded: group % 4 * 2)) & 3
}
