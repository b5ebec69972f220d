/// What stands behind `|`. The tables are in `Filters+Texts.swift`, `Filters+Sequences.swift` and here.
enum Filters {
  typealias Filter = @Sendable (Interpreter, Value, Arguments) throws -> Value

  static let all: [String: Filter] = values.merging(texts) { $1 }.merging(sequences) { $1 }.merging(selections) { $1 }.merging(unbuilt) {
    $1
  }

  /// Filters of Jinja that are about pages or chance: a template may name them where it never comes.
  private static let unbuilt: [String: Filter] = [String: Filter](
    uniqueKeysWithValues: ["pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"].map { name in
      (name, { @Sendable _, _, _ in throw TemplateError("the filter '\(name)', which is not built") } as Filter)
    })

  /// Filters of values of any kind.
  private static let values: [String: Filter] = [
    "default": fallback, "d": fallback,
    "length": length, "count": length,
    "string": { interpreter, value, arguments in
      _ = try arguments.bound("string", [])
      return value.isString ? value : .string(Text(try Buffer(try value.printed(interpreter.budget), interpreter.budget)))
    },
    "int": { interpreter, value, arguments in
      let values = try arguments.bound("int", ["default", "base"])
      let base = try values[1]?.integer("the base of 'int'") ?? 10
      return try integer(value, base: base) ?? values[0] ?? .int(0)
    },
    "float": { _, value, arguments in
      let fallback = try arguments.bound("float", ["default"])[0] ?? .float(0)
      if case .undefined(let undefined) = value { throw undefined.error }
      if case .string(let text) = value { return PythonNumbers.float(text.scalars).map(Value.float) ?? fallback }
      return value.number.map(Value.float) ?? fallback
    },
    "abs": { _, value, arguments in
      _ = try arguments.bound("abs", [])
      if case .float(let number) = value { return .float(number.magnitude) }
      guard let number = value.index, number >= 0 else { return try value.negated() }
      return .int(number)
    },
    "round": round,
    "attr": { interpreter, value, arguments in
      let name = try (try arguments.bound("attr", ["name"], required: 1)[0] ?? .none).text("the name of an attribute").string
      // An element of the name does not count here.
      if case .dict = value, DictionaryMethods.all[name] == nil {
        return .undefined(.member(of: value.type, named: Scalars(name).pythonQuoted))
      }
      return try interpreter.attribute(name, of: value)
    },
    "tojson": { interpreter, value, arguments in
      let options = try arguments.bound("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
      var writer = try JSONText(
        interpreter.budget, ensuresASCII: options[0], indent: options[1], separators: options[2], sortsKeys: options[3])
      return try writer.text(value)
    },
    "filesizeformat": { _, value, arguments in
      let isBinary = try arguments.bound("filesizeformat", ["binary"])[0]?.isTrue ?? false
      let number = if case .string(let text) = value { PythonNumbers.float(text.scalars) } else { value.number }
      guard let bytes = number else { throw TemplateError("'filesizeformat' of a value that is no number") }
      let base = isBinary ? 1024.0 : 1000.0
      if bytes == 1 { return .string(Text(freeOfCharge: Scalars("1 Byte"))) }
      if bytes < base, let whole = Int(exactly: bytes.rounded(.towardZero)) {
        return .string(Text(freeOfCharge: Scalars("\(whole) Bytes")))
      }
      let letters = isBinary ? ["K", "M", "G", "T", "P", "E", "Z", "Y"] : ["k", "M", "G", "T", "P", "E", "Z", "Y"]
      var (unit, step) = (base * base, 0)
      while bytes >= unit, step + 1 < letters.count { (unit, step) = (unit * base, step + 1) }
      let size = try NumberFormat(form: "f", precision: 1).text(.float(base * bytes / unit))
      return .string(Text(freeOfCharge: Scalars("\(size.sign)\(size.digits) \(letters[step])\(isBinary ? "iB" : "B")")))
    },
  ]

  private static let fallback: Filter = { _, value, arguments in
    let values = try arguments.bound("default", ["default_value", "boolean"])
    let isEmpty = value.isUndefined || values[1]?.isTrue ?? false && !value.isTrue
    return isEmpty ? values[0] ?? .string(Text(freeOfCharge: [])) : value
  }

  private static let length: Filter = { interpreter, value, arguments in
    _ = try arguments.bound("length", [])
    guard let length = try value.length(interpreter.budget) else {
      throw TemplateError("a value of the type '\(value.type)' has no length")
    }
    return .int(length)
  }

  /// `int`: of a text also the whole part of a number with a point; nil for what is none.
  private static func integer(_ value: Value, base: Int) throws -> Value? {
    func whole(_ number: Double) throws -> Value? {
      guard number.isFinite else { return nil }
      guard let integer = Int(exactly: number.rounded(.towardZero)) else { throw TemplateError("an integer beyond 64 bits") }
      return .int(integer)
    }
    switch value {
    case .undefined(let undefined): throw undefined.error
    case .string(let text):
      if let integer = try PythonNumbers.integer(text.scalars, base: base) { return .int(integer) }
      return try PythonNumbers.float(text.scalars).flatMap(whole)
    case .float(let number): return try whole(number)
    default: return value.index.map(Value.int)
    }
  }

  private static let round: Filter = { _, value, arguments in
    let values = try arguments.bound("round", ["precision", "method"])
    let precision = try values[0]?.integer("the precision of 'round'") ?? 0
    let method = try values[1]?.text("the method of 'round'").string ?? "common"
    guard ["common", "ceil", "floor"].contains(method) else {
      throw TemplateError("the method '\(method)' of 'round', expected common, ceil or floor")
    }
    guard let number = value.number else {
      if case .undefined(let undefined) = value { throw undefined.error }
      throw TemplateError("'round' of a value of the type '\(value.type)'")
    }
    guard (-300...300).contains(precision) else { throw TemplateError("'round' with a precision of \(precision)") }
    if method == "common" {
      guard value.index == nil else { return .int(try PythonNumbers.rounded(value.index ?? 0, precision)) }
      return .float(PythonNumbers.rounded(number, precision))
    }
    let power = PythonNumbers.powerOfTen(precision)
    let scaled = number * power
    guard scaled.isFinite else { throw TemplateError("'round' beyond floating-point numbers") }
    return .float(scaled.rounded(method == "ceil" ? .up : .down) / power)
  }

  // MARK: Attributes

  /// What `attribute='a.0.b'` means: gets one after the other.
  ///
  /// - Parameter fallback: what stands in for what is not there.
  static func getter(_ attribute: Value?, fallback: Value? = nil, ignoresCase: Bool = false) throws -> (Interpreter, Value) throws -> Value
  {
    var parts: [Value] = []
    if let attribute, !attribute.isNone {
      if case .string(let text) = attribute {
        parts = text.scalars.split(separator: ".", omittingEmptySubsequences: false).map { part in
          let digits = Scalars(part)
          let isIndex = !digits.isEmpty && digits.allSatisfy(\.isPythonDigit)
          return isIndex ? Int(digits.string).map(Value.int) ?? .none : .string(Text(freeOfCharge: digits))
        }
      } else {
        parts = [attribute]
      }
    }
    return { interpreter, value in
      var value = value
      for part in parts {
        value = try interpreter.item(part, of: value)
        if let fallback, !fallback.isNone, value.isUndefined { value = fallback }
      }
      return try ignoresCase ? lowered(value, interpreter) : value
    }
  }

  /// A text in lower case, another value as it is.
  static func lowered(_ value: Value, _ interpreter: Interpreter) throws -> Value {
    guard case .string(let text) = value else { return value }
    try interpreter.budget.spend(text.scalars.count / 4)
    return .string(Text(try Buffer(text.scalars.lowercased(), interpreter.budget)))
  }
}
