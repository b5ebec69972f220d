/// The type of a tensor's elements, under the names of the safetensors format (its source, `Dtype`) and of ggml.
///
/// The cases of safetensors stand in the order of the reference implementation, which is by growing alignment: its writer sorts
/// tensors by this order, descending, and so does ours. The quantised types after them occur in GGUF files alone.
public enum ElementType: String, CaseIterable, Hashable, Sendable, CustomStringConvertible {
  /// One byte, 0 or 1.
  case bool = "BOOL"
  /// 4-bit float (MXFP4), two to a byte.
  case float4 = "F4"
  /// 6-bit float with 2 exponent and 3 mantissa bits.
  case float6E2M3 = "F6_E2M3"
  /// 6-bit float with 3 exponent and 2 mantissa bits.
  case float6E3M2 = "F6_E3M2"
  /// Unsigned 8-bit integer.
  case uint8 = "U8"
  /// Signed 8-bit integer.
  case int8 = "I8"
  /// 8-bit float, 5 exponent and 2 mantissa bits.
  case float8E5M2 = "F8_E5M2"
  /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities.
  case float8E4M3 = "F8_E4M3"
  /// 8-bit power of two, no mantissa.
  case float8E8M0 = "F8_E8M0"
  /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities and no negative zero.
  case float8E4M3FNUZ = "F8_E4M3FNUZ"
  /// 8-bit float, 5 exponent and 2 mantissa bits, no infinities and no negative zero.
  case float8E5M2FNUZ = "F8_E5M2FNUZ"
  /// Signed 16-bit integer.
  case int16 = "I16"
  /// Unsigned 16-bit integer.
  case uint16 = "U16"
  /// IEEE 754 half precision.
  case float16 = "F16"
  /// The upper half of an IEEE 754 single.
  case bfloat16 = "BF16"
  /// Signed 32-bit integer.
  case int32 = "I32"
  /// Unsigned 32-bit integer.
  case uint32 = "U32"
  /// IEEE 754 single precision.
  case float32 = "F32"
  /// Two singles, real and imaginary part.
  case complex64 = "C64"
  /// IEEE 754 double precision.
  case float64 = "F64"
  /// Signed 64-bit integer.
  case int64 = "I64"
  /// Unsigned 64-bit integer.
  case uint64 = "U64"
  /// 32 signed bytes with one half-precision scale: 34 bytes.
  case q8_0 = "Q8_0"
  /// 32 numbers of 4 bits around 8 with one half-precision scale: 18 bytes.
  case q4_0 = "Q4_0"
  /// 32 numbers of 4 bits with a half-precision scale and minimum: 20 bytes.
  case q4_1 = "Q4_1"

  /// The types that a safetensors file may hold.
  public static let safetensors = allCases.filter { !$0.isQuantised }

  /// Whether elements share a scale with their neighbours in the row.
  public var isQuantised: Bool { blockElements > 1 }

  /// The consecutive elements of a row that a file stores together: 1, or 32 of a quantised type.
  public var blockElements: Int {
    switch self {
    case .q8_0, .q4_0, .q4_1: 32
    default: 1
    }
  }

  /// The bits that one block takes in a file, hence those of an element unless the type is quantised; types below 8 bits are packed.
  public var blockBits: Int {
    switch self {
    case .q8_0: 8 * 34
    case .q4_0: 8 * 18
    case .q4_1: 8 * 20
    case .float4: 4
    case .float6E2M3, .float6E3M2: 6
    case .bool, .uint8, .int8, .float8E5M2, .float8E4M3, .float8E8M0, .float8E4M3FNUZ, .float8E5M2FNUZ: 8
    case .int16, .uint16, .float16, .bfloat16: 16
    case .int32, .uint32, .float32: 32
    case .complex64, .float64, .int64, .uint64: 64
    }
  }

  /// The name in the file format, such as `F32`.
  public var description: String { rawValue }
}
