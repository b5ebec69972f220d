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
