import JSON

/// A value on the stack of the pickle machine.
///
/// Containers are positions in the machine's list of objects rather than references, so that a pickle cannot build a cycle that is
/// never freed, nor a nest so deep that freeing it exhausts the stack.
enum PickleValue: Equatable, Sendable {
  case none
  case bool(Bool)
  case integer(Int)
  case double(Double)
  case string(String)
  case tuple(Int)
  case list(Int)
  case dictionary(Int)
  case global(PickleGlobal)
  case storage(PickleStorage)
  case tensor(Int)
  case device

  /// What it is, for messages.
  var kind: String {
    switch self {
    case .none: "None"
    case .bool(let value): value ? "True" : "False"
    case .integer(let value): "the integer \(value)"
    case .double(let value): "the number \(value)"
    case .string(let value): "the string \(quoted(value))"
    case .tuple: "a tuple"
    case .list: "a list"
    case .dictionary: "a dictionary"
    case .global(let value): value.rawValue
    case .storage: "a storage"
    case .tensor: "a tensor"
    case .device: "a device"
    }
  }
}

/// A container or tensor in the machine's list of objects.
enum PickleObject: Sendable {
  case tuple([PickleValue])
  case list([PickleValue])
  case dictionary(items: [(key: PickleValue, value: PickleValue)], isOrdered: Bool)
  case tensor(PickleTensor)
}

/// A tensor as `_rebuild_tensor_v2` and `_v3` describe it: a view of a storage, in elements.
struct PickleTensor: Equatable, Sendable {
  let storage: PickleStorage
  let elementType: ElementType
  let offset: Int
  let shape: [Int]
  let strides: [Int]
}

/// The argument of a persistent id: which member holds the bytes.
struct PickleStorage: Equatable, Sendable {
  let key: String
  /// nil for an `UntypedStorage`, which counts bytes.
  let elementType: ElementType?
  let count: Int
}

/// Every global name that a state dict may mention. Nothing is imported or called: a name is one of these cases or an error.
enum PickleGlobal: String, CaseIterable, Sendable {
  case orderedDict = "collections.OrderedDict"
  case rebuildTensorV2 = "torch._utils._rebuild_tensor_v2"
  case rebuildTensorV3 = "torch._utils._rebuild_tensor_v3"
  case rebuildParameter = "torch._utils._rebuild_parameter"
  case size = "torch.Size"
  case device = "torch.device"

  case untypedStorage = "torch.storage.UntypedStorage"
  case typedStorage = "torch.storage.TypedStorage"
  case boolStorage = "torch.BoolStorage"
  case byteStorage = "torch.ByteStorage"
  case charStorage = "torch.CharStorage"
  case shortStorage = "torch.ShortStorage"
  case intStorage = "torch.IntStorage"
  case longStorage = "torch.LongStorage"
  case halfStorage = "torch.HalfStorage"
  case bfloat16Storage = "torch.BFloat16Storage"
  case floatStorage = "torch.FloatStorage"
  case doubleStorage = "torch.DoubleStorage"
  case complexFloatStorage = "torch.ComplexFloatStorage"

  case bool = "torch.bool"
  case uint8 = "torch.uint8"
  case int8 = "torch.int8"
  case int16 = "torch.int16"
  case uint16 = "torch.uint16"
  case int32 = "torch.int32"
  case uint32 = "torch.uint32"
  case int64 = "torch.int64"
  case uint64 = "torch.uint64"
  case float8E4M3 = "torch.float8_e4m3fn"
  case float8E5M2 = "torch.float8_e5m2"
  case float8E4M3FNUZ = "torch.float8_e4m3fnuz"
  case float8E5M2FNUZ = "torch.float8_e5m2fnuz"
  case float8E8M0 = "torch.float8_e8m0fnu"
  case float16 = "torch.float16"
  case bfloat16 = "torch.bfloat16"
  case float32 = "torch.float32"
  case float64 = "torch.float64"
  case complex64 = "torch.complex64"

  /// The element type of a typed storage.
  var storageType: ElementType? {
    switch self {
    case .boolStorage: .bool
    case .byteStorage: .uint8
    case .charStorage: .int8
    case .shortStorage: .int16
    case .intStorage: .int32
    case .longStorage: .int64
    case .halfStorage: .float16
    case .bfloat16Storage: .bfloat16
    case .floatStorage: .float32
    case .doubleStorage: .float64
    case .complexFloatStorage: .complex64
    default: nil
    }
  }

  /// The element type that a dtype names.
  var dtype: ElementType? {
    switch self {
    case .bool: .bool
    case .uint8: .uint8
    case .int8: .int8
    case .int16: .int16
    case .uint16: .uint16
    case .int32: .int32
    case .uint32: .uint32
    case .int64: .int64
    case .uint64: .uint64
    case .float8E4M3: .float8E4M3
    case .float8E5M2: .float8E5M2
    case .float8E4M3FNUZ: .float8E4M3FNUZ
    case .float8E5M2FNUZ: .float8E5M2FNUZ
    case .float8E8M0: .float8E8M0
    case .float16: .float16
    case .bfloat16: .bfloat16
    case .float32: .float32
    case .float64: .float64
    case .complex64: .complex64
    default: nil
    }
  }

  /// The part of the name before the last point.
  var module: String {
    guard let point = rawValue.lastIndex(of: ".") else { return "" }
    return String(rawValue[..<point])
  }
}
