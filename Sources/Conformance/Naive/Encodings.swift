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
      case .q5_0, .q5_1: return q5(block, hasMinimum: format == .q5_1)
      case .q2_K, .q3_K, .q4_K, .q5_K, .q6_K: return (0..<256).map { Double(kQuant(block, format, $0)) }
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

  /// The 32 numbers of a block of ggml's Q5_0, (q − 16) d, or Q5_1, q d + m, rounded to float32.
  public static func q5(_ block: [UInt8], hasMinimum: Bool) -> [Double] {
    let start = hasMinimum ? 4 : 2
    let (d, m) = (half(block, 0), half(block, 2))
    let fifth = bits(block[start..<start + 4])
    return nibbles(block[(start + 4)...]).enumerated().map { j, nibble in
      let q = nibble + 16 * Int(fifth >> UInt64(j) & 1)
      return Double(hasMinimum ? Float(q) * d + m : Float(q - 16) * d)
    }
  }

  /// Number i of a block of 256 of ggml's k-quants: what its bits are, wherever they stand, rounded to float32 after each operation.
  public static func kQuant(_ b: [UInt8], _ format: WeightFormat, _ i: Int) -> Float {
    func field(_ byte: Int, _ shift: Int, _ width: Int) -> Int { Int(b[byte]) >> shift & (1 << width - 1) }
    let (of128, of64, of32, of16) = (i / 128, i / 64, i / 32, i / 16)
    let pairBits = 2 * (of32 % 4)  // where two bits of number i stand in its byte
    switch format {
    case .q2_K:
      let q = field(16 + 32 * of128 + i % 32, pairBits, 2)
      return half(b, 80) * Float(field(of16, 0, 4)) * Float(q) - half(b, 82) * Float(field(of16, 4, 4))
    case .q3_K:
      let q = field(32 + 32 * of128 + i % 32, pairBits, 2) + 4 * field(i % 32, of32, 1)
      let s = field(96 + of16 % 8, 4 * (of16 / 8), 4) + 16 * field(104 + of16 % 4, 2 * (of16 / 4), 2)
      return half(b, 108) * Float(s - 32) * Float(q - 4)
    case .q6_K:
      let q = field(64 * of128 + i % 64, 4 * (of64 % 2), 4) + 16 * field(128 + 32 * of128 + i % 32, pairBits, 2)
      return half(b, 208) * Float(Int8(bitPattern: b[192 + of16])) * Float(q - 32)
    default:
      let (j, isLong) = (of32, format == .q5_K)
      let s = j < 4 ? field(4 + j, 0, 6) : field(8 + j, 0, 4) + 16 * field(j, 6, 2)
      let m = j < 4 ? field(8 + j, 0, 6) : field(8 + j, 4, 4) + 16 * field(4 + j, 6, 2)
      let q = field((isLong ? 48 : 16) + 32 * of64 + i % 32, 4 * (j % 2), 4) + (isLong ? 16 * field(16 + i % 32, j, 1) : 0)
      return half(b, 0) * Float(s) * Float(q) - half(b, 2) * Float(m)
    }
  }

  private static func half(_ block: [UInt8], _ offset: Int) -> Float { Float(float16(UInt16(bits(block[offset..<offset + 2])))) }

  /// The lower halves of all bytes, then the upper ones.
  private static func nibbles(_ bytes: ArraySlice<UInt8>) -> [Int] { bytes.map { Int($0) % 16 } + bytes.map { Int($0) / 16 } }

  /// The number that little-endian bytes spell.
  private static func bits(_ bytes: some Collection<UInt8>) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
}
