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

extension JSON {
  /// A JSON number, kept as its text, so that nothing is lost before a reader says what it wants.
  public struct Number: Equatable, Sendable, CustomStringConvertible {
    /// The number as written, by the grammar of RFC 8259 §6.
    public let text: String

    /// Takes text that is known to follow the grammar and to lie within the range of `Double`.
    init(validated text: String) {
      self.text = text
    }

    /// An integer.
    public init(_ value: some BinaryInteger) {
      text = String(value)
    }

    /// The shortest decimal text that reads back as the same `Double`; nil for NaN and the infinities, which JSON lacks.
    public init?(_ value: Double) {
      guard value.isFinite else { return nil }
      text = value.description
    }

    /// The shortest decimal text that reads back as the same `Float`; nil for NaN and the infinities, which JSON lacks.
    public init?(_ value: Float) {
      guard value.isFinite else { return nil }
      text = value.description
    }

    /// The integer, if it is written as one and fits.
    ///
    /// As in Python's `json`, `1.0` and `1e3` are floating-point numbers, whatever their value: nil. So is an integer beyond `Int`.
    /// `-0` is 0.
    public var integer: Int? { Int(text) }

    /// The nearest `Double`, ties to even; finite, since the parser refuses a number beyond its range.
    public var double: Double { Double(text) ?? .nan }

    /// The text.
    public var description: String { text }
  }
}

extension JSON {
  /// The members of a JSON object, in the order of the text, found by the bytes of their keys.
  public struct Object: Equatable, Sendable {
    /// A key with its value.
    public struct Member: Equatable, Sendable {
      /// The key, compared by bytes.
      public let key: String
      /// The value.
      public internal(set) var value: JSON

      /// Whether key (by bytes) and value agree.
      public static func == (left: Member, right: Member) -> Bool {
        left.key.hasSameBytes(as: right.key) && left.value == right.value
      }
    }

    /// The members in order; no two keys are the same bytes.
    public private(set) var members: [Member] = []
    private var indices: [ByteKey: Int] = [:]

    /// An object without members.
    public init() {}

    /// The number of members.
    public var count: Int { members.count }

    /// The keys in order.
    public var keys: [String] { members.map(\.key) }

    /// The value under a key, compared by bytes. Setting a new key appends it, setting nil removes the member.
    ///
    /// - Complexity: O(length of the key); removal O(members).
    public subscript(key: String) -> JSON? {
      get { indices[ByteKey(key)].map { members[$0].value } }
      set {
        let index = indices[ByteKey(key)]
        switch (index, newValue) {
        case (nil, nil): break
        case (nil, let value?): _ = insert(key, value)
        case (let index?, let value?): members[index].value = value
        case (let index?, nil):
          members.remove(at: index)
          indices = Dictionary(uniqueKeysWithValues: members.enumerated().map { (ByteKey($1.key), $0) })
        }
      }
    }

    /// Appends a member; returns false, and changes nothing, if the key is there already.
    package mutating func insert(_ key: String, _ value: JSON) -> Bool {
      let key = (text: key, bytes: ByteKey(key))
      guard indices[key.bytes] == nil else { return false }
      indices[key.bytes] = members.count
      members.append(Member(key: key.text, value: value))
      return true
    }

    /// Whether both have the same keys with the same values, in whatever order.
    public static func == (left: Object, right: Object) -> Bool {
      left.count == right.count && left.members.allSatisfy { right[$0.key] == $0.value }
    }
  }
}

extension JSON {
  /// The value under a key; nil if this is no object or has no such key.
  public subscript(key: String) -> JSON? { objectValue?[key] }

  /// The boolean, if it is one.
  public var boolValue: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The integer, if it is a number written as one (see `Number.integer`).
  public var intValue: Int? {
    if case .number(let value) = self { value.integer } else { nil }
  }

  /// The nearest `Double`, if it is a number.
  public var doubleValue: Double? {
    if case .number(let value) = self { value.double } else { nil }
  }

  /// The string, if it is one.
  public var stringValue: String? {
    if case .string(let value) = self { value } else { nil }
  }

  /// The elements, if it is an array.
  public var arrayValue: [JSON]? {
    if case .array(let value) = self { value } else { nil }
  }

  /// The members, if it is an object.
  public var objectValue: Object? {
    if case .object(let value) = self { value } else { nil }
  }

  /// The value as compact text for a message, cut after 200 characters and without anything that a terminal obeys.
  public var excerpt: String { presentable(serialized()) }

  /// The value in a few words for a message: leaves as they are, containers by their size.
  public var summary: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .number(let value): value.text.utf8.count <= 40 ? value.text : "a number of \(value.text.utf8.count) characters"
    case .string(let value): "the string \(quoted(value))"
    case .array(let value): "an array of \(value.count)"
    case .object(let value): "an object of \(value.count)"
    }
  }
}

extension JSON: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
  /// `null`.
  public init(nilLiteral: ()) { self = .null }

  /// A boolean.
  public init(booleanLiteral value: Bool) { self = .bool(value) }

  /// A string.
  public init(stringLiteral value: String) { self = .string(value) }

  /// An integer.
  public init(integerLiteral value: Int) { self = .number(Number(value)) }
}

extension JSON: ExpressibleByFloatLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral {
  /// A floating-point number.
  public init(floatLiteral value: Double) { self.init(value) }

  /// An array.
  public init(arrayLiteral elements: JSON...) { self = .array(elements) }

  /// An object with the members in this order; the last of equal keys counts.
  public init(dictionaryLiteral elements: (String, JSON)...) {
    var object = Object()
    for (key, value) in elements { object[key] = value }
    self = .object(object)
  }
}

extension JSON {
  /// A boolean.
  public init(_ value: Bool) { self = .bool(value) }

  /// A string.
  public init(_ value: String) { self = .string(value) }

  /// An integer.
  public init(_ value: Int) { self = .number(Number(value)) }

  /// A number; `null` for NaN and the infinities, which JSON lacks.
  public init(_ value: Double) { self = Number(value).map(JSON.number) ?? .null }

  /// A number; `null` for NaN and the infinities, which JSON lacks.
  public init(_ value: Float) { self = Number(value).map(JSON.number) ?? .null }
}
