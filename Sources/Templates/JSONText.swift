/// What `json.dumps` writes.
struct JSONText {
  private let budget: Budget
  private let ensuresASCII: Bool
  private let indent: Scalars?
  private let betweenItems: Scalars
  private let behindKeys: Scalars
  private let sortsKeys: Bool
  private var result: TextBuilder

  /// Writes as the arguments of `json.dumps` say.
  init(_ budget: Budget, ensuresASCII: Value?, indent: Value?, separators: Value?, sortsKeys: Value?) throws {
    self.budget = budget
    self.ensuresASCII = ensuresASCII?.isTrue ?? false
    self.sortsKeys = sortsKeys?.isTrue ?? false
    switch indent ?? .none {
    case .none: self.indent = nil
    case .string(let text): self.indent = text.scalars
    default:
      let width = max(0, try indent?.integer("the indent of 'tojson'") ?? 0)
      try budget.require(4 * min(width, 1 << 40))
      self.indent = Scalars(repeating: " ", count: width)
    }
    if let separators, !separators.isNone {
      let marks = try separators.elements(budget)
      guard marks.count == 2 else { throw TemplateError("'tojson' takes two separators, found \(marks.count)") }
      betweenItems = try marks[0].text("a separator")
      behindKeys = try marks[1].text("a separator")
    } else {
      betweenItems = Scalars(self.indent == nil ? ", " : ",")
      behindKeys = Scalars(": ")
    }
    result = TextBuilder(budget)
  }

  /// The value as JSON.
  ///
  /// - Throws: ``TemplateError`` for a value that JSON does not have.
  mutating func text(_ value: Value) throws -> Value {
    try append(value, level: 0)
    return try result.value()
  }

  private mutating func append(_ value: Value, level: Int) throws {
    switch value {
    case .none: try result.append("null")
    case .bool(let bool): try result.append(bool ? "true" : "false")
    case .int(let int): try result.append(String(int))
    case .float(let number): try result.append(Self.text(number))
    case .string(let text): try append(text.scalars)
    case .list(let items), .tuple(let items):
      try container("[", "]", items.values.count, level) { try $0.append(items.values[$1], level: level + 1) }
    case .dict(let dictionary):
      var entries = try dictionary.entries.map { (key: try Self.key($0.key), original: $0.key, value: $0.value) }
      if sortsKeys { entries = try entries.sorted { try $0.original.isLess(than: $1.original, budget) } }
      try container("{", "}", entries.count, level) { writer, i in
        try writer.append(entries[i].key)
        try writer.result.append(writer.behindKeys)
        try writer.append(entries[i].value, level: level + 1)
      }
    default: throw TemplateError("a value of the type '\(value.type)' cannot be written as JSON")
    }
  }

  private mutating func container(
    _ begin: String, _ end: String, _ count: Int, _ level: Int, _ element: (inout JSONText, Int) throws -> Void
  ) throws {
    try result.append(begin)
    for i in 0..<count {
      if i > 0 { try result.append(betweenItems) }
      try lineBreak(level + 1)
      try element(&self, i)
    }
    if count > 0 { try lineBreak(level) }
    try result.append(end)
  }

  private mutating func lineBreak(_ level: Int) throws {
    guard let indent else { return }
    try result.append(["\n"])
    for _ in 0..<level { try result.append(indent) }
  }

  private static func text(_ number: Double) -> String {
    number.isNaN ? "NaN" : number.isInfinite ? (number < 0 ? "-Infinity" : "Infinity") : number.pythonDescription
  }

  private static func key(_ value: Value) throws -> Scalars {
    switch value {
    case .string(let text): text.scalars
    case .none: Scalars("null")
    case .bool(let bool): Scalars(bool ? "true" : "false")
    case .int(let int): Scalars(String(int))
    case .float(let number): Scalars(text(number))
    default: throw TemplateError("a key of the type '\(value.type)' cannot be written as JSON")
    }
  }

  private mutating func append(_ text: Scalars) throws {
    var quoted: Scalars = ["\""]
    for scalar in text {
      switch scalar {
      case "\"", "\\": quoted += ["\\", scalar]
      case "\n": quoted += ["\\", "n"]
      case "\r": quoted += ["\\", "r"]
      case "\t": quoted += ["\\", "t"]
      case "\u{8}": quoted += ["\\", "b"]
      case "\u{C}": quoted += ["\\", "f"]
      case _ where scalar.value < 32: quoted += Scalars("\\u" + scalar.hexadecimal(4))
      case _ where ensuresASCII && scalar.value > 126:
        for unit in String(scalar).utf16 {
          let digits = String(unit, radix: 16)
          quoted += Scalars("\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits)
        }
      default: quoted.append(scalar)
      }
    }
    quoted.append("\"")
    try result.append(quoted)
  }
}
