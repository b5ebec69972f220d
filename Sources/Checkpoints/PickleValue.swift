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
