/// How the numbers of a frozen weight are encoded in its file.
///
/// A 16-bit or quantized value *is* the float32 number that it decodes to; `CPUDouble` widens that number, so that both
/// precisions run the same model. The quantized formats are ggml's: 32 or 256 consecutive numbers of a row share what stands
/// beside them, and a number is computed in float32, each operation rounded:
///
///     q8_0   half d · 32 signed bytes q                                      q d            34 bytes
///     q4_0   half d · 16 bytes, low halves q_0 … q_15, high q_16 … q_31      (q − 8) d      18 bytes
///     q4_1   half d · half m · 16 bytes as in q4_0                           q d + m        20 bytes
///     q5_0   half d · 32 fifth bits · 16 bytes as in q4_0                    (q − 16) d     22 bytes
///     q5_1   half d · half m · 32 fifth bits · 16 bytes as in q4_0           q d + m        24 bytes
///
/// Blocks of 256 have scales s and minima m of their own for every 16 or 32 numbers; ``Q2_KEncoding`` and its neighbors say where they stand:
///
///     q2_K   (d s) q − e m              84 bytes      q3_K   (d (s − 32)) (q − 4)       110 bytes
///     q4_K   (d s) q − e m             144 bytes      q5_K   (d s) q − e m              176 bytes
///     q6_K   (d s) (q − 32)            210 bytes
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
  /// ggml's 5 bits around 16 with a scale.
  case q5_0
  /// ggml's 5 bits with a scale and a minimum.
  case q5_1
  /// ggml's 2 bits with a scale and a minimum for every 16.
  case q2_K
  /// ggml's 3 bits around 4 with a scale for every 16.
  case q3_K
  /// ggml's 4 bits with a scale and a minimum for every 32.
  case q4_K
  /// ggml's 5 bits with a scale and a minimum for every 32.
  case q5_K
  /// ggml's 6 bits around 32 with a scale for every 16.
  case q6_K

  /// Consecutive numbers of a row that are stored together: 1, or 32 or 256 of a quantized format.
  public var blockCount: Int {
    switch self {
    case .float64, .float32, .float16, .bfloat16: 1
    case .q8_0, .q4_0, .q4_1, .q5_0, .q5_1: 32
    case .q2_K, .q3_K, .q4_K, .q5_K, .q6_K: 256
    }
  }

  /// Bytes of one block, hence those of one number unless the format is quantized.
  public var blockBytes: Int {
    switch self {
    case .float64: 8
    case .float32: 4
    case .float16, .bfloat16: 2
    case .q8_0: Q8_0Encoding.chunkBytes
    case .q4_0: Q4_0Encoding.chunkBytes
    case .q4_1: Q4_1Encoding.chunkBytes
    case .q5_0: Q5_0Encoding.chunkBytes
    case .q5_1: Q5_1Encoding.chunkBytes
    case .q2_K: Q2_KEncoding.chunkBytes
    case .q3_K: Q3_KEncoding.chunkBytes
    case .q4_K: Q4_KEncoding.chunkBytes
    case .q5_K: Q5_KEncoding.chunkBytes
    case .q6_K: Q6_KEncoding.chunkBytes
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
