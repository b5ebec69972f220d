/// Methods of `str`. What they make of `Markup` is `Markup`, into which what is put in is escaped.
enum StringMethods {
  typealias Method = @Sendable (Interpreter, Text, Arguments) throws -> Value

  static let all: [String: Method] = searching.merging(cutting) { $1 }.merging(changing) { $1 }.merging(asking) { $1 }

  /// A text made from another.
  static func made(_ scalars: Scalars, from text: Text, _ interpreter: Interpreter) throws -> Value {
    .string(Text(try Buffer(scalars, interpreter.budget), isMarkup: text.isMarkup))
  }

  /// What is put into a text.
  static func escaped(_ value: Value, for text: Text, _ what: String) throws -> Scalars {
    guard case .string(let part) = value else { return try value.text(what) }
    return text.isMarkup && !part.isMarkup ? part.scalars.escapedForHTML() : part.scalars
  }

  private static func place(_ value: Value?, _ fallback: Int, _ count: Int) throws -> Int {
    guard let value, !value.isNone else { return fallback }
    let index = try value.integer("a bound")
    return index < 0 ? max(index + count, 0) : index
  }

  // MARK: Searching

  private static let searching: [String: Method] = [
    "find": { .int(try find("find", $0, $1, $2, isLast: false) ?? -1) },
    "rfind": { .int(try find("rfind", $0, $1, $2, isLast: true) ?? -1) },
    "index": { interpreter, text, arguments in
      guard let place = try find("index", interpreter, text, arguments, isLast: false) else {
        throw TemplateError("'index': the part is not in the text")
      }
      return .int(place)
    },
    "rindex": { interpreter, text, arguments in
      guard let place = try find("rindex", interpreter, text, arguments, isLast: true) else {
        throw TemplateError("'rindex': the part is not in the text")
      }
      return .int(place)
    },
    "count": { interpreter, text, arguments in
      let values = try arguments.bound("count", ["sub", "start", "end"], required: 1)
      let part = try (values[0] ?? .none).text("what is counted")
      let count = text.scalars.count
      let (start, end) = (try place(values[1], 0, count), min(try place(values[2], count, count), count))
      guard start <= end else { return .int(0) }
      guard !part.isEmpty else { return .int(end - start + 1) }
      var (found, from) = (0, start)
      while let next = try text.scalars.find(part, from: from, to: end, interpreter.budget) {
        (found, from) = (found + 1, next + part.count)
      }
      return .int(found)
    },
    "startswith": { .bool(try touches("startswith", $0, $1, $2) { text, part, start, end in text.has(part, at: start) }) },
    "endswith": { .bool(try touches("endswith", $0, $1, $2) { text, part, start, end in text.has(part, at: end - part.count) }) },
  ]

  private static func find(_ name: String, _ interpreter: Interpreter, _ text: Text, _ arguments: Arguments, isLast: Bool) throws -> Int? {
    let values = try arguments.bound(name, ["sub", "start", "end"], required: 1)
    let part = try (values[0] ?? .none).text("what is looked for")
    let count = text.scalars.count
    let (start, end) = (try place(values[1], 0, count), min(try place(values[2], count, count), count))
    guard start <= end else { return nil }
    guard isLast else { return try text.scalars.find(part, from: start, to: end, interpreter.budget) }
    // The last place is the first one of the mirrored text.
    guard let i = try Scalars(text.scalars[start..<end].reversed()).find(part.reversed(), interpreter.budget) else { return nil }
    return end - i - part.count
  }

  private static func touches(
    _ name: String, _ interpreter: Interpreter, _ text: Text, _ arguments: Arguments, _ isThere: (Scalars, Scalars, Int, Int) -> Bool
  ) throws -> Bool {
    let values = try arguments.bound(name, ["prefix", "start", "end"], required: 1)
    let count = text.scalars.count
    let (start, end) = (try place(values[1], 0, count), min(try place(values[2], count, count), count))
    var parts = [values[0] ?? .none]
    if case .tuple(let items) = parts[0] { parts = items.values }
    for part in parts {
      let part = try part.text("an argument of '\(name)'")
      try interpreter.budget.spend(1 + part.count / 32)
      if start <= end, end - start >= part.count, isThere(text.scalars, part, start, end) { return true }
    }
    return false
  }

  // MARK: Asking

  private static func all(emptyIs: Bool = false, _ isWanted: @escaping @Sendable (Unicode.Scalar) -> Bool) -> Method {
    { interpreter, text, arguments in
      _ = try arguments.bound("a test of a text", [])
      try interpreter.budget.spend(text.scalars.count / 4)
      return .bool(text.scalars.isEmpty ? emptyIs : text.scalars.allSatisfy(isWanted))
    }
  }

  private static let asking: [String: Method] = [
    "isalpha": all { $0.isPythonLetter }, "isdecimal": all { $0.isPythonDecimal }, "isdigit": all { $0.isPythonDigit },
    "isnumeric": all { $0.isPythonNumeric }, "isalnum": all { $0.isPythonAlphanumeric }, "isspace": all { $0.isPythonSpace },
    "isascii": all(emptyIs: true) { $0.isASCII }, "isprintable": all(emptyIs: true) { $0.isPrintable },
    "isupper": { _, text, _ in .bool(text.scalars.isAll(\.isUpper, not: \.isLower)) },
    "islower": { _, text, _ in .bool(text.scalars.isAll(\.isLower, not: \.isUpper)) },
    "istitle": { _, text, _ in .bool(text.scalars.isTitle) },
    "isidentifier": { _, text, _ in
      .bool(
        text.scalars.first.map { $0 == "_" || $0.properties.isXIDStart } ?? false && text.scalars.allSatisfy { $0.properties.isXIDContinue }
      )
    },
  ]
}
