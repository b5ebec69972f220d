/// `format.format(…)`: fields in braces, of the sandbox's kind, whose attributes and elements are those that templates reach.
struct BraceFormat {
  private let format: Scalars
  private let arguments: Arguments
  private let interpreter: Interpreter
  /// The number of the next field without a name; nil once a field had a number.
  private var next: Int? = 0

  init(_ format: Scalars, _ arguments: Arguments, _ interpreter: Interpreter) {
    self.format = format
    self.arguments = arguments
    self.interpreter = interpreter
  }

  private func fail(_ problem: String) -> TemplateError { TemplateError("'format': \(problem)") }

  /// The text with the arguments in its fields.
  func text() throws -> Scalars {
    var reader = self
    var result = TextBuilder(interpreter.budget)
    try reader.fill(format, into: &result, level: 0)
    result.discard()
    return result.scalars
  }

  private mutating func fill(_ format: Scalars, into result: inout TextBuilder, level: Int) throws {
    guard level < 2 else { throw fail("fields nested too deeply") }
    var i = 0
    while i < format.count {
      let end = format[i...].firstIndex { $0 == "{" || $0 == "}" } ?? format.count
      try result.append(Scalars(format[i..<end]))
      guard end < format.count else { return }
      if end + 1 < format.count, format[end + 1] == format[end] {
        try result.append([format[end]])
        i = end + 2
        continue
      }
      guard format[end] == "{" else { throw fail("a single '}'") }
      var (close, open) = (end + 1, 1)
      while close < format.count {
        if format[close] == "{" { open += 1 }
        if format[close] == "}" { open -= 1 }
        if open == 0 { break }
        close += 1
      }
      guard open == 0 else { throw fail("a field without its end") }
      try field(Scalars(format[(end + 1)..<close]), into: &result, level: level)
      i = close + 1
    }
  }

  private mutating func field(_ field: Scalars, into result: inout TextBuilder, level: Int) throws {
    let nameEnd = field.firstIndex { $0 == "!" || $0 == ":" } ?? field.count
    var value = try self.value(Scalars(field[..<nameEnd]))
    var rest = field[nameEnd...]
    if rest.first == "!" {
      rest = rest.dropFirst()
      guard let letter = rest.popFirst(), rest.isEmpty || rest.first == ":" else { throw fail("a conversion that is not known") }
      var text = TextBuilder(interpreter.budget)
      switch letter {
      case "s": try value.printed(into: &text, interpreter.budget)
      case "r": try value.represented(into: &text, interpreter.budget)
      default: throw fail("the conversion '\(letter)', which is not known")
      }
      value = try text.value()
    }
    var specification = TextBuilder(interpreter.budget)
    try fill(Scalars(rest.dropFirst()), into: &specification, level: level + 1)
    specification.discard()
    try append(value, specification.scalars, to: &result)
  }

  private mutating func value(_ name: Scalars) throws -> Value {
    let first = Scalars(name.prefix { $0 != "." && $0 != "[" })
    var value: Value
    if let number = first.isEmpty ? next : Int(first.string) {
      next = first.isEmpty ? number + 1 : nil
      guard arguments.positional.indices.contains(number) else { throw fail("no argument \(number)") }
      value = arguments.positional[number]
    } else {
      guard !first.isEmpty else { throw fail("fields with and without numbers") }
      guard let named = arguments.named.first(where: { $0.name == first.string }) else { throw fail("no argument '\(first.string)'") }
      value = named.value
    }
    var rest = name.dropFirst(first.count)
    while let mark = rest.popFirst() {
      if mark == "." {
        let attribute = rest.prefix { $0 != "." && $0 != "[" }
        rest = rest.dropFirst(attribute.count)
        value = try interpreter.attribute(Scalars(attribute).string, of: value)
      } else {
        let key = rest.prefix { $0 != "]" }
        rest = rest.dropFirst(key.count + 1)
        let index = Int(Scalars(key).string).map(Value.int)
        value = try interpreter.item(index ?? .string(Text(freeOfCharge: Scalars(key))), of: value)
      }
    }
    return value
  }

  /// Adds a value as `[[fill]align][sign][#][0][width][,][.precision][type]` says.
  private func append(_ value: Value, _ specification: Scalars, to result: inout TextBuilder) throws {
    guard !specification.isEmpty else { return try value.printed(into: &result, interpreter.budget) }
    var rest = specification[...]
    func isAlignment(_ scalar: Unicode.Scalar) -> Bool { "<>=^".unicodeScalars.contains(scalar) }
    var (fill, alignment): (Unicode.Scalar, Unicode.Scalar?) = (" ", nil)
    if rest.count > 1, isAlignment(rest[rest.startIndex + 1]) {
      (fill, alignment) = (rest[rest.startIndex], rest[rest.startIndex + 1])
      rest = rest.dropFirst(2)
    } else if let first = rest.first, isAlignment(first) {
      alignment = rest.popFirst()
    }
    var number = NumberFormat()
    if let sign = rest.first, "+- ".unicodeScalars.contains(sign) {
      rest = rest.dropFirst()
      number.plus = sign == "-" ? "" : String(sign)
    }
    if rest.first == "#" {
      number.isAlternate = true
      rest = rest.dropFirst()
    }
    if rest.first == "0", alignment == nil { (fill, alignment) = ("0", value.isString ? "<" : "=") }
    func digits() throws -> Int? {
      let digits = rest.prefix { ("0"..."9").contains($0) }
      rest = rest.dropFirst(digits.count)
      guard !digits.isEmpty else { return nil }
      guard let number = Int(Scalars(digits).string), number < 1 << 31 else { throw fail("a width that is too large") }
      return number
    }
    let width = try digits() ?? 0
    if let comma = rest.first, comma == "," || comma == "_" {
      number.grouping = String(comma)
      rest = rest.dropFirst()
    }
    if rest.first == "." {
      rest = rest.dropFirst()
      number.precision = try digits() ?? 0
    }
    let form = rest.popFirst()
    guard rest.isEmpty else { throw fail("a format that is not known: \(specification.pythonQuoted)") }
    var (sign, body) = ("", Scalars())
    if value.number != nil {
      if case .bool = value, form == nil { number.form = "d" }
      if case .float(let float) = value, form == nil {
        guard number.precision == nil else { throw fail("a precision without a type, which is not built") }
        (sign, body) = (float.sign == .minus ? "-" : number.plus, Scalars(float.magnitude.pythonDescription))
      } else {
        number.form = form ?? "d"
        let text = try number.text(value)
        (sign, body) = (text.sign, Scalars(text.digits))
      }
    } else {
      guard value.isString, form == nil || form == "s" else { throw fail("a format for a value of the type '\(value.type)'") }
      body = Scalars(try value.text("a field").prefix(number.precision ?? .max))
    }
    let gap = max(0, width - sign.utf8.count - body.count)
    try interpreter.budget.require(4 * gap)
    let before =
      switch alignment ?? (value.isString ? "<" : ">") {
      case "<": 0
      case "^": gap / 2
      default: gap
      }
    if alignment == "=" { try result.append(sign) }
    try result.append(Scalars(repeating: fill, count: before))
    if alignment != "=" { try result.append(sign) }
    try result.append(body)
    try result.append(Scalars(repeating: fill, count: gap - before))
  }
}
