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
