/// A JSON value (RFC 8259).
///
/// Strings and keys are compared by bytes, since Swift's own equality merges canonically equal strings; objects are compared without
/// regard to order, numbers by their text. Not `indirect`: arrays and objects already live on the heap, and a leaf stays small.
public enum JSON: Equatable, Sendable {
  /// `null`.
  case null
  /// `true` or `false`.
  case bool(Bool)
  /// A number, kept as it was written.
  case number(Number)
  /// A string; its Unicode scalars are exactly those of the text.
  case string(String)
  /// An array.
  case array([JSON])
  /// An object, in the order of the text.
  case object(Object)

  /// Whether both are the same value; see the type for what that means.
  public static func == (left: JSON, right: JSON) -> Bool {
    switch (left, right) {
    case (.null, .null): true
    case (.bool(let a), .bool(let b)): a == b
    case (.number(let a), .number(let b)): a == b
    case (.string(let a), .string(let b)): a.hasSameBytes(as: b)
    case (.array(let a), .array(let b)): a == b
    case (.object(let a), .object(let b)): a == b
    default: false
    }
  }
}
