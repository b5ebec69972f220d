import Tensors

/// The type of a tensor's elements, under the names of the safetensors format (its source, `Dtype`) and of ggml.
public enum ElementType: Hashable, Sendable, CaseIterable, RawRepresentable, CustomStringConvertible {
  /// One byte, 0 or 1.
  case bool
  /// 4-bit float (MXFP4), two to a byte.
  case float4
  /// 6-bit float with 2 exponent and 3 mantissa bits.
  case float6E2M3
  /// 6-bit float with 3 exponent and 2 mantissa bits.
  case float6E3M2
  /// Unsigned 8-bit integer.
  case uint8
  /// Signed 8-bit integer.
  case int8
  /// 8-bit float, 5 exponent and 2 mantissa bits.
  case float8E5M2
  /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities.
  case float8E4M3
  /// 8-bit power of two, no mantissa.
  case float8E8M0
  /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities and no negative zero.
  case float8E4M3FNUZ
  /// 8-bit float, 5 exponent and 2 mantissa bits, no infinities and no negative zero.
  case float8E5M2FNUZ
  /// Signed 16-bit integer.
  case int16
  /// Unsigned 16-bit integer.
  case uint16
  /// Signed 32-bit integer.
  case int32
  /// Unsigned 32-bit integer.
  case uint32
  /// Two singles, real and imaginary part.
  case complex64
  /// Signed 64-bit integer.
  case int64
  /// Unsigned 64-bit integer.
  case uint64
  /// A format that weights may have: floating-point, or ggml's quantized blocks, which occur in GGUF files alone.
  case float(WeightFormat)

  /// IEEE 754 half precision.
  public static let float16 = ElementType.float(.float16)
  /// The upper half of an IEEE 754 single.
  public static let bfloat16 = ElementType.float(.bfloat16)
  /// IEEE 754 single precision.
  public static let float32 = ElementType.float(.float32)
  /// IEEE 754 double precision.
  public static let float64 = ElementType.float(.float64)
  /// All types. Those of safetensors stand in the order of the reference implementation, which is by growing alignment: its writer
  /// sorts tensors by this order, descending, and so does ours.
  public static let allCases: [ElementType] =
    [
      .bool, .float4, .float6E2M3, .float6E3M2, .uint8, .int8, .float8E5M2, .float8E4M3, .float8E8M0, .float8E4M3FNUZ, .float8E5M2FNUZ,
      .int16, .uint16, .float16, .bfloat16, .int32, .uint32, .float32, .complex64, .float64, .int64, .uint64,
    ] + WeightFormat.allCases.filter { $0.blockCount > 1 }.map { .float($0) }

  /// The types that a safetensors file may hold.
  public static let safetensors = allCases.filter { !$0.isQuantized }

  private static let byName = Dictionary(uniqueKeysWithValues: allCases.map { ($0.rawValue, $0) })

  /// The type of this name; nil if there is none.
  public init?(rawValue: String) {
    guard let type = Self.byName[rawValue] else { return nil }
    self = type
  }

  /// The name in the file format, such as `F32`.
  public var rawValue: String {
    switch self {
    case .bool: "BOOL"
    case .float4: "F4"
    case .float6E2M3: "F6_E2M3"
    case .float6E3M2: "F6_E3M2"
    case .uint8: "U8"
    case .int8: "I8"
    case .float8E5M2: "F8_E5M2"
    case .float8E4M3: "F8_E4M3"
    case .float8E8M0: "F8_E8M0"
    case .float8E4M3FNUZ: "F8_E4M3FNUZ"
    case .float8E5M2FNUZ: "F8_E5M2FNUZ"
    case .int16: "I16"
    case .uint16: "U16"
    case .float(.float16): "F16"
    case .float(.bfloat16): "BF16"
    case .int32: "I32"
    case .uint32: "U32"
    case .float(.float32): "F32"
    case .complex64: "C64"
    case .float(.float64): "F64"
    case .int64: "I64"
    case .uint64: "U64"
    case .float(let format): format.rawValue.uppercased()
    }
  }

  /// The name in the file format.
  public var description: String { rawValue }

  /// Whether elements share a scale with their neighbours in the row.
  public var isQuantized: Bool { blockElements > 1 }

  /// The consecutive elements of a row that a file stores together: 1, or 32 or 256 of a quantized type.
  public var blockElements: Int {
    if case .float(let format) = self { format.blockCount } else { 1 }
  }

  /// The bits that one block takes in a file, hence those of an element unless the type is quantized; types below 8 bits are packed.
  public var blockBits: Int {
    switch self {
    case .float(let format): 8 * format.blockBytes
    case .float4: 4
    case .float6E2M3, .float6E3M2: 6
    case .bool, .uint8, .int8, .float8E5M2, .float8E4M3, .float8E8M0, .float8E4M3FNUZ, .float8E5M2FNUZ: 8
    case .int16, .uint16: 16
    case .int32, .uint32: 32
    case .complex64, .int64, .uint64: 64
    }
  }
}
