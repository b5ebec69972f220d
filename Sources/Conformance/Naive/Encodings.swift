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
    (0..<bytes.count / format.byteWidth).map { i in
      var bits: UInt64 = 0
      for b in 0..<format.byteWidth { bits |= UInt64(bytes[i * format.byteWidth + b]) << (8 * b) }
      switch format {
      case .float32: return Double(Float(bitPattern: UInt32(bits)))
      case .float64: return Double(bitPattern: bits)
      case .float16: return float16(UInt16(bits))
      case .bfloat16: return bfloat16(UInt16(bits))
      }
    }
  }
}
