import Tensors

extension Naive {
  /// The number of an IEEE 754 binary16: (−1)^s · 2^(e−15) · (1 + f/1024), subnormal for e = 0, not finite for e = 31.
  public static func float16(_ bits: UInt16) -> Double {
    let sign: Double = bits >> 15 == 1 ? -1 : 1
    let exponent = Int(bits >> 10) & 31
    let fraction = Double(bits & 1023) / 1024
    switch exponent {
    case 0: return sign * fraction * 0x1p-14
    case 31: return fraction == 0 ? sign * .infinity : .nan
    default: return sign * (1 + fraction) * Double(sign: .plus, exponent: exponent - 15, significand: 1)
    }
  }

  /// The number of a bfloat16: the upper half of a binary32.
  public static func bfloat16(_ bits: UInt16) -> Double { Double(Float(bitPattern: UInt32(bits) << 16)) }

  /// The numbers of a file's little-endian bytes.
  public static func decode(_ bytes: [UInt8], _ format: WeightFormat) -> [Double] {
    (0..<bytes.count / format.blockBytes).flatMap { i -> [Double] in
      let block = Array(bytes[i * format.blockBytes..<(i + 1) * format.blockBytes])
      switch format {
      case .float32: return [Double(Float(bitPattern: UInt32(bits(block))))]
      case .float64: return [Double(bitPattern: bits(block))]
      case .float16: return [float16(UInt16(bits(block)))]
      case .bfloat16: return [bfloat16(UInt16(bits(block)))]
      case .q8_0: return q8_0(block)
      case .q4_0: return q4_0(block)
      case .q4_1: return q4_1(block)
      }
    }
  }

  /// The 32 numbers of a block of ggml's Q8_0: q d, rounded to float32.
  public static func q8_0(_ block: [UInt8]) -> [Double] {
    let d = Float(float16(UInt16(bits(block[0..<2]))))
    return (0..<32).map { Double(Float(Int8(bitPattern: block[2 + $0])) * d) }
  }

  /// The 32 numbers of a block of ggml's Q4_0: (q − 8) d, rounded to float32.
  public static func q4_0(_ block: [UInt8]) -> [Double] {
    let d = Float(float16(UInt16(bits(block[0..<2]))))
    return nibbles(block[2...]).map { Double(Float($0 - 8) * d) }
  }

  /// The 32 numbers of a block of ggml's Q4_1: q d + m, both operations rounded to float32.
  public static func q4_1(_ block: [UInt8]) -> [Double] {
    let (d, m) = (Float(float16(UInt16(bits(block[0..<2])))), Float(float16(UInt16(bits(block[2..<4])))))
    return nibbles(block[4...]).map { Double(Float($0) * d + m) }
  }

  /// The lower halves of all bytes, then the upper ones.
  private static func nibbles(_ bytes: ArraySlice<UInt8>) -> [Int] { bytes.map { Int($0) % 16 } + bytes.map { Int($0) / 16 } }

  /// The number that little-endian bytes spell.
  private static func bits(_ bytes: some Collection<UInt8>) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
}
