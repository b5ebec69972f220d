extension Filters {
  /// `soft_str`: a text as it is, another value as it prints.
  private static func soft(_ value: Value, _ interpreter: Interpreter) throws -> Text {
    if case .string(let text) = value { return text }
    return Text(try Buffer(try value.printed(interpreter.budget), interpreter.budget))
  }

  /// A filter that is a method of the text.
  private static func method(_ name: String, _ parameters: [String] = []) -> Filter {
    { interpreter, value, arguments in
      guard let method = StringMethods.all[name] else { throw TemplateError("no method '\(name)'") }
      let values = try arguments.bound(name, parameters).compactMap { $0 }
      return try method(interpreter, try soft(value, interpreter), Arguments(values))
    }
  }

  private static func plainText(_ scalars: Scalars, _ interpreter: Interpreter, isMarkup: Bool = false) throws -> Value {
    .string(Text(try Buffer(scalars, interpreter.budget), isMarkup: isMarkup))
  }

  private static let escape: Filter = { interpreter, value, arguments in
    _ = try arguments.bound("escape", [])
    let text = try soft(value, interpreter)
    return text.isMarkup ? .string(text) : try plainText(text.scalars.escapedForHTML(), interpreter, isMarkup: true)
  }

  /// Filters that make a text.
  static let texts: [String: Filter] = [
    "upper": method("upper"), "lower": method("lower"), "capitalize": method("capitalize"),
    "trim": { interpreter, value, arguments in
      let set = try arguments.bound("trim", ["chars"])[0] ?? .none
      return try StringMethods.all["strip"]?(interpreter, try soft(value, interpreter), Arguments([set])) ?? .none
    },
    "center": { interpreter, value, arguments in
      let width = try arguments.bound("center", ["width"])[0] ?? .int(80)
      return try StringMethods.all["center"]?(interpreter, try soft(value, interpreter), Arguments([width])) ?? .none
    },
    "title": { interpreter, value, arguments in
      _ = try arguments.bound("title", [])
      let text = try soft(value, interpreter).scalars
      try interpreter.budget.spend(text.count / 2)
      // A word begins behind a blank, a hyphen or an opening bracket, and nowhere else.
      var (result, start) = (Scalars(), 0)
      func isBreak(_ scalar: Unicode.Scalar) -> Bool { scalar.isPythonSpace || "-({[<".unicodeScalars.contains(scalar) }
      while start < text.count {
        let isWord = !isBreak(text[start])
        let end = text[start...].firstIndex { isBreak($0) == isWord } ?? text.count
        result += text[start...start].map { $0 }.uppercased() + Scalars(text[(start + 1)..<end]).lowercased()
        start = end
      }
      return try plainText(result, interpreter)
    },
    "replace": { interpreter, value, arguments in
      let values = try arguments.bound("replace", ["old", "new", "count"], required: 2)
      let (old, new) = (try (values[0] ?? .none).printed(interpreter.budget), try (values[1] ?? .none).printed(interpreter.budget))
      let most = try values[2].flatMap { $0.isNone ? nil : try $0.integer("the count of 'replace'") } ?? -1
      return try StringMethods.replaced(Text(freeOfCharge: try value.printed(interpreter.budget)), old, new, most, interpreter)
    },
    "escape": escape, "e": escape,
    "forceescape": { interpreter, value, _ in
      try plainText(try value.printed(interpreter.budget).escapedForHTML(), interpreter, isMarkup: true)
    },
    "safe": { interpreter, value, _ in try plainText(try value.printed(interpreter.budget), interpreter, isMarkup: true) },
    "format": { interpreter, value, arguments in
      guard arguments.positional.isEmpty || arguments.named.isEmpty else { throw TemplateError("'format' with both kinds of arguments") }
      let named = arguments.named.map { (key: Value.string(Text(freeOfCharge: Scalars($0.name))), value: $0.value) }
      let values =
        named.isEmpty
        ? Value.tuple(try Items(arguments.positional, interpreter.budget)) : .dict(try Dictionary(named, interpreter.budget))
      return try Value.string(try soft(value, interpreter)).combined(.modulo, values, interpreter)
    },
    "indent": { interpreter, value, arguments in
      let values = try arguments.bound("indent", ["width", "first", "blank"])
      return try indented(value, values[0] ?? .int(4), first: values[1]?.isTrue ?? false, blank: values[2]?.isTrue ?? false, interpreter)
    },
    "truncate": { interpreter, value, arguments in
      let values = try arguments.bound("truncate", ["length", "killwords", "end", "leeway"])
      let (length, end) = (
        try values[0]?.integer("the length of 'truncate'") ?? 255, try values[2]?.text("the end of 'truncate'") ?? Scalars("...")
      )
      let leeway = try values[3].flatMap { $0.isNone ? nil : try $0.integer("the leeway of 'truncate'") } ?? 5
      guard length >= end.count, leeway >= 0 else { throw TemplateError("'truncate' to \(length) characters with an end of \(end.count)") }
      let text = try value.text("what is truncated")
      guard text.count - leeway > length else { return value }
      var kept = Scalars(text.prefix(length - end.count))
      if !(values[1]?.isTrue ?? false), let blank = kept.lastIndex(of: " ") { kept = Scalars(kept[..<blank]) }
      return try plainText(kept + end, interpreter)
    },
    "wordcount": { interpreter, value, arguments in
      _ = try arguments.bound("wordcount", [])
      let text = try soft(value, interpreter).scalars
      try interpreter.budget.spend(text.count / 4)
      var (count, isInside) = (0, false)
      for scalar in text {
        if scalar.isWord, !isInside { count += 1 }
        isInside = scalar.isWord
      }
      return .int(count)
    },
    "urlencode": { interpreter, value, arguments in
      _ = try arguments.bound("urlencode", [])
      if value.isString || (try? value.iterate(interpreter.budget)) == nil {
        return try plainText(encoded(try value.printed(interpreter.budget), keeping: "/"), interpreter)
      }
      let pairs =
        if case .dict(let dictionary) = value { dictionary.entries.map { [$0.key, $0.value] } } else {
          try value.elements(interpreter.budget).map { try $0.elements(interpreter.budget) }
        }
      var result = TextBuilder(interpreter.budget)
      for (i, pair) in pairs.enumerated() {
        guard pair.count == 2 else { throw TemplateError("'urlencode' of what are no pairs") }
        try result.append(i > 0 ? "&" : "")
        try result.append(encoded(try pair[0].printed(interpreter.budget), keeping: ""))
        try result.append("=")
        try result.append(encoded(try pair[1].printed(interpreter.budget), keeping: ""))
      }
      return try result.value()
    },
  ]

  private static func encoded(_ text: Scalars, keeping: String) -> Scalars {
    var result = ""
    for byte in text.string.utf8 {
      let character = Unicode.Scalar(byte)
      if character.isASCII, character.isPythonAlphanumeric || ("_.-~" + keeping).unicodeScalars.contains(character) {
        result.unicodeScalars.append(character)
      } else if byte == 32, keeping.isEmpty {
        result += "+"
      } else {
        result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
      }
    }
    return Scalars(result)
  }

  private static func indented(_ value: Value, _ width: Value, first: Bool, blank: Bool, _ interpreter: Interpreter) throws -> Value {
    guard case .string(let text) = value else {
      if case .undefined(let undefined) = value { throw undefined.error }
      throw TemplateError("'indent' of a value of the type '\(value.type)'")
    }
    var indention = Scalars()
    if case .string(let own) = width {
      indention = own.scalars
    } else {
      let count = max(0, try width.integer("the width of 'indent'"))
      try interpreter.budget.require(4 * min(count, 1 << 40))
      indention = Scalars(repeating: " ", count: count)
    }
    // A line break at the end makes one line more, which is empty.
    let lines = (text.scalars + ["\n"]).lines()
    var result = TextBuilder(interpreter.budget)
    if first { try result.append(indention) }
    for (i, line) in lines.enumerated() {
      if i > 0 {
        try result.append(["\n"])
        if blank || !line.isEmpty { try result.append(indention) }
      }
      try result.append(line)
    }
    return try result.value(isMarkup: text.isMarkup)
  }
}
