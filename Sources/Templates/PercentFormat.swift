/// `format % values`: the conversions of C that Python has.
struct PercentFormat {
  private let format: Text
  private let interpreter: Interpreter
  private var position = 0

  init(_ format: Text, _ interpreter: Interpreter) {
    self.format = format
    self.interpreter = interpreter
  }

  private func fail(_ problem: String) -> TemplateError { TemplateError("'%': \(problem)") }

  /// The text with the values in it: those of a tuple, of a mapping by name, or one.
  func text(_ values: Value) throws -> Scalars {
    var reader = self
    return try reader.filled(values)
  }

  private mutating func filled(_ values: Value) throws -> Scalars {
    var result = TextBuilder(interpreter.budget)
    var list = [values]
    if case .tuple(let items) = values { list = items.values }
    var used = 0
    var isMapped = false
    func next() throws -> Value {
      guard used < list.count else { throw TemplateError("'%': not enough values") }
      used += 1
      return list[used - 1]
    }
    let scalars = format.scalars
    while position < scalars.count {
      let end = scalars[position...].firstIndex(of: "%") ?? scalars.count
      try result.append(Scalars(scalars[position..<end]))
      position = end + 1
      guard end < scalars.count else { break }
      var chosen: Value?
      if peek() == "(" {
        let close = scalars[position...].firstIndex(of: ")") ?? scalars.count
        guard close < scalars.count else { throw fail("a name without its end") }
        let key = Value.string(Text(freeOfCharge: Scalars(scalars[(position + 1)..<close])))
        guard case .dict(let dictionary) = values else { throw fail("a name, and the values are no mapping") }
        guard let value = try dictionary.value(key, interpreter.budget) else { throw fail("no value of a name") }
        (chosen, isMapped) = (value, true)
        position = close + 1
      }
      var flags: Set<Unicode.Scalar> = []
      while let flag = peek(), "#0- +".unicodeScalars.contains(flag) {
        flags.insert(flag)
        position += 1
      }
      var width = try number(next) ?? 0
      if width < 0 {
        flags.insert("-")
        width = -max(width, -(1 << 40))
      }
      var precision: Int?
      if peek() == "." {
        position += 1
        precision = try number(next) ?? 0
      }
      while let letter = peek(), "hlL".unicodeScalars.contains(letter) { position += 1 }
      guard let form = peek() else { throw fail("a format without its end") }
      position += 1
      if form == "%" {
        try result.append("%")
        continue
      }
      try append(try chosen ?? next(), form, flags, width, precision, to: &result)
    }
    if case .dict = values { isMapped = true }
    guard used == list.count || isMapped && used == 0 else { throw fail("not all values were used") }
    result.discard()
    return result.scalars
  }

  private func peek() -> Unicode.Scalar? { position < format.scalars.count ? format.scalars[position] : nil }

  /// A width or precision: digits, or `*` for a value; nil where there is none.
  private mutating func number(_ next: () throws -> Value) throws -> Int? {
    if peek() == "*" {
      position += 1
      return try next().integer("a width")
    }
    let start = position
    while let digit = peek(), ("0"..."9").contains(digit) { position += 1 }
    guard position > start else { return nil }
    guard let number = Int(Scalars(format.scalars[start..<position]).string), number < 1 << 31 else {
      throw fail("a width that is too large")
    }
    return number
  }

  private func append(
    _ value: Value, _ form: Unicode.Scalar, _ flags: Set<Unicode.Scalar>, _ width: Int, _ precision: Int?, to result: inout TextBuilder
  ) throws {
    var (sign, body) = ("", Scalars())
    var isNumber = false
    switch form {
    case "s", "r", "a":
      var text = TextBuilder(interpreter.budget)
      if form == "s" {
        try value.printed(into: &text, interpreter.budget)
      } else {
        try value.represented(into: &text, interpreter.budget)
      }
      text.discard()
      var isSafe = false
      if case .string(let part) = value { isSafe = part.isMarkup }
      body = format.isMarkup && !isSafe ? text.scalars.escapedForHTML() : text.scalars
      if let precision { body = Scalars(body.prefix(max(0, precision))) }
    case "c":
      if let code = value.index {
        guard let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) else { throw fail("a number that is no character") }
        body = [scalar]
      } else {
        body = try value.text("a character")
        guard body.count == 1 else { throw fail("'c' takes one character") }
      }
    default:
      isNumber = true
      var number = NumberFormat(form: form, plus: flags.contains("+") ? "+" : flags.contains(" ") ? " " : "")
      number.isAlternate = flags.contains("#")
      number.precision = precision
      guard form != "b", form != "%" else { throw fail("the format '\(form)', which is not known") }
      // A whole number's format takes the whole part of any number.
      var value = value
      if "diu".unicodeScalars.contains(form), case .float(let float) = value {
        guard let whole = Int(exactly: float.rounded(.towardZero)) else { throw fail("an integer beyond 64 bits") }
        value = .int(whole)
      }
      let (before, digits) = try number.text(value)
      (sign, body) = (before, Scalars(digits))
    }
    let gap = max(0, width - sign.utf8.count - body.count)
    try interpreter.budget.require(4 * gap)
    let isLeft = flags.contains("-")
    let isZero = flags.contains("0") && isNumber && !isLeft
    if !isLeft, !isZero { try result.append(Scalars(repeating: " ", count: gap)) }
    try result.append(sign)
    if isZero { try result.append(Scalars(repeating: "0", count: gap)) }
    try result.append(body)
    if isLeft { try result.append(Scalars(repeating: " ", count: gap)) }
  }
}
