/// A precision that a candidate computes in.
public enum Precision: String, Sendable, CaseIterable {
  /// 53 bits.
  case float64
  /// 24 bits.
  case float32
  /// 11 bits.
  case float16
  /// 8 bits.
  case bfloat16

  /// Unit roundoff u.
  public var unitRoundoff: Double {
    switch self {
    case .float64: 0x1p-53
    case .float32: 0x1p-24
    case .float16: 0x1p-11
    case .bfloat16: 0x1p-8
    }
  }

  /// The smallest number with all its bits.
  public var leastNormalMagnitude: Double {
    switch self {
    case .float64: 0x1p-1022
    case .float32, .bfloat16: 0x1p-126
    case .float16: 0x1p-14
    }
  }
}
