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
