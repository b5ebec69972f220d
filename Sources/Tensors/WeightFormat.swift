/// How the numbers of a frozen weight are encoded in its file.
///
/// A 16-bit or quantized value *is* the float32 number that it decodes to; `CPUDouble` widens that number, so that both
/// precisions run the same model. The quantized formats are ggml's: 32 consecutive numbers of a row share what stands
/// in front of them, and a number is computed in float32, each operation rounded:
///
///     q8_0   half d · 32 signed bytes q                                      q d            34 bytes
///     q4_0   half d · 16 bytes, low halves q_0 … q_15, high q_16 … q_31      (q − 8) d      18 bytes
///     q4_1   half d · half m · 16 bytes as in q4_0                           q d + m        20 bytes
public enum WeightFormat: String, Sendable, CaseIterable {
  /// IEEE 754 binary32.
  case float32
  /// IEEE 754 binary64.
  case float64
  /// IEEE 754 binary16.
  case float16
  /// The upper half of a binary32.
  case bfloat16

  /// ggml's 8 bits with a scale.
  case q8_0
  /// ggml's 4 bits around 8 with a scale.
  case q4_0
  /// ggml's 4 bits with a scale and a minimum.
  case q4_1

  /// Consecutive numbers of a row that are stored together: 1, or 32 of a quantized format.
  public var blockCount: Int {
    switch self {
    case .float64, .float32, .float16, .bfloat16: 1
    case .q8_0, .q4_0, .q4_1: 32
    }
  }

  /// Bytes of one block, hence those of one number unless the format is quantized.
  public var blockBytes: Int {
    switch self {
    case .float64: 8
    case .float32: 4
    case .float16, .bfloat16: 2
    case .q8_0: 34
    case .q4_0: 18
    case .q4_1: 20
    }
  }

  /// Bytes of a row of `columns` numbers.
  ///
  /// - Precondition: `columns` is a multiple of `blockCount`.
  public func rowBytes(_ columns: Int) -> Int {
    guard columns % blockCount == 0 else { trap("\(rawValue): a row of \(columns) is no whole number of blocks of \(blockCount)") }
    return columns / blockCount * blockBytes
  }
}
