extension StringMethods {
  private static func plain(_ change: @escaping @Sendable (Scalars) -> Scalars) -> Method {
    { interpreter, text, arguments in
      _ = try arguments.bound("a method of a text", [])
      try interpreter.budget.spend(text.scalars.count / 2)
      return try made(change(text.scalars), from: text, interpreter)
    }
  }

  static let changing: [String: Method] = [
    "upper": plain { $0.uppercased() }, "lower": plain { $0.lowercased() }, "capitalize": plain { $0.capitalized() },
    "title": plain { $0.titlecased() }, "swapcase": plain { $0.swappedCase() },
    "casefold": { _, text, _ in
      guard text.scalars.allSatisfy(\.isASCII) else { throw TemplateError("'casefold' of a text that is not ASCII, which is not built") }
      return .string(Text(freeOfCharge: text.scalars.lowercased()))
    },
    "strip": { try strip("strip", $0, $1, $2) },
    "lstrip": { try strip("lstrip", $0, $1, $2, right: false) },
    "rstrip": { try strip("rstrip", $0, $1, $2, left: false) },
    "replace": { interpreter, text, arguments in
      let values = try arguments.bound("replace", ["old", "new", "count"], required: 2)
      let old = try (values[0] ?? .none).text("what is replaced")
      let new = try escaped(values[1] ?? .none, for: text, "what replaces")
      return try replaced(text, old, new, try values[2]?.integer("the count of 'replace'") ?? -1, interpreter)
    },
    "removeprefix": { interpreter, text, arguments in
      let part = try (try arguments.bound("removeprefix", ["prefix"], required: 1)[0] ?? .none).text("a prefix")
      return try made(text.scalars.has(part, at: 0) ? Scalars(text.scalars.dropFirst(part.count)) : text.scalars, from: text, interpreter)
    },
    "removesuffix": { interpreter, text, arguments in
      let part = try (try arguments.bound("removesuffix", ["suffix"], required: 1)[0] ?? .none).text("a suffix")
      let isThere = text.scalars.has(part, at: text.scalars.count - part.count)
      return try made(isThere ? Scalars(text.scalars.dropLast(part.count)) : text.scalars, from: text, interpreter)
    },
    "join": { interpreter, text, arguments in
      let values = try (try arguments.bound("join", ["iterable"], required: 1)[0] ?? .none).iterate(interpreter.budget)
      var (joined, isFirst) = (TextBuilder(interpreter.budget), true)
      while let value = try values.next() {
        if !isFirst { try joined.append(text.scalars) }
        isFirst = false
        try joined.append(try escaped(value, for: text, "an element that is joined"))
      }
      return try joined.value(isMarkup: text.isMarkup)
    },
    "center": { try padded("center", $0, $1, $2) { $0 / 2 + ($0 & $1 & 1) } },
    "ljust": { try padded("ljust", $0, $1, $2) { _, _ in 0 } },
    "rjust": { try padded("rjust", $0, $1, $2) { gap, _ in gap } },
    "zfill": { interpreter, text, arguments in
      let width = try (try arguments.bound("zfill", ["width"], required: 1)[0] ?? .none).integer("a width")
      let gap = max(0, width.subtractingReportingOverflow(text.scalars.count).partialValue)
      try interpreter.budget.require(4 * min(gap, 1 << 40))
      let sign = text.scalars.first == "-" || text.scalars.first == "+" ? 1 : 0
      let zeros = Scalars(repeating: "0", count: gap)
      return try made(Scalars(text.scalars.prefix(sign)) + zeros + text.scalars.dropFirst(sign), from: text, interpreter)
    },
    "expandtabs": { interpreter, text, arguments in
      let size = try (try arguments.bound("expandtabs", ["tabsize"])[0] ?? .int(8)).integer("a tab's size")
      var (result, column) = (TextBuilder(interpreter.budget), 0)
      for scalar in text.scalars {
        if scalar == "\t" {
          let gap = size > 0 ? size - column % size : 0
          try interpreter.budget.require(4 * min(gap, 1 << 40))
          try result.append(Scalars(repeating: " ", count: gap))
          column += gap
        } else {
          try result.append([scalar])
          column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
        }
      }
      return try result.value(isMarkup: text.isMarkup)
    },
    "format": { interpreter, text, arguments in
      try made(try BraceFormat(text.scalars, arguments, interpreter).text(), from: text, interpreter)
    },
    "format_map": { interpreter, text, arguments in
      guard case .dict(let dictionary) = try arguments.bound("format_map", ["mapping"], required: 1)[0] else {
        throw TemplateError("'format_map' takes a mapping")
      }
      let named = try dictionary.entries.map { (try $0.key.text("a key").string, $0.value) }
      return try made(try BraceFormat(text.scalars, Arguments(named: named), interpreter).text(), from: text, interpreter)
    },
  ]

  private static func strip(
    _ name: String, _ interpreter: Interpreter, _ text: Text, _ arguments: Arguments, left: Bool = true, right: Bool = true
  ) throws -> Value {
    let set = try arguments.bound(name, ["chars"])[0].flatMap { $0.isNone ? nil : try $0.text("the characters of '\(name)'") }
    try interpreter.budget.spend(text.scalars.count / 16 * (1 + (set?.count ?? 0) / 16))
    return try made(text.scalars.stripped(set, left: left, right: right), from: text, interpreter)
  }

  /// The text with a part replaced, at most so many times; a negative count is none.
  static func replaced(_ text: Text, _ old: Scalars, _ new: Scalars, _ most: Int, _ interpreter: Interpreter) throws -> Value {
    let scalars = text.scalars
    var (result, from, left) = (TextBuilder(interpreter.budget), 0, most < 0 ? Int.max : most)
    while left > 0, let next = try scalars.find(old, from: from, interpreter.budget) {
      if old.isEmpty {
        // Nothing stands before every character, and at the end.
        try result.append(new)
        guard from < scalars.count else { return try result.value(isMarkup: text.isMarkup) }
        try result.append([scalars[from]])
        from += 1
      } else {
        try result.append(Scalars(scalars[from..<next]))
        try result.append(new)
        from = next + old.count
      }
      left -= 1
    }
    try result.append(Scalars(scalars[from...]))
    return try result.value(isMarkup: text.isMarkup)
  }

  private static func padded(
    _ name: String, _ interpreter: Interpreter, _ text: Text, _ arguments: Arguments, _ left: (_ gap: Int, _ width: Int) -> Int
  ) throws -> Value {
    let values = try arguments.bound(name, ["width", "fillchar"], required: 1)
    let width = try (values[0] ?? .none).integer("a width")
    let fill = try values[1]?.text("what fills") ?? [" "]
    guard fill.count == 1 else { throw TemplateError("'\(name)' fills with one character") }
    guard width > text.scalars.count else { return .string(text) }
    let gap = width - text.scalars.count
    try interpreter.budget.require(4 * min(width, 1 << 40))
    let before = left(gap, width)
    return try made(
      Scalars(repeating: fill[0], count: before) + text.scalars + Scalars(repeating: fill[0], count: gap - before), from: text, interpreter)
  }

  // MARK: Cutting

  static let cutting: [String: Method] = [
    "split": { try split("split", $0, $1, $2, fromRight: false) },
    "rsplit": { try split("rsplit", $0, $1, $2, fromRight: true) },
    "splitlines": { interpreter, text, arguments in
      let keeps = try arguments.bound("splitlines", ["keepends"])[0]?.isTrue ?? false
      return try list(text.scalars.lines(keepingEnds: keeps), text, interpreter)
    },
    "partition": { try parted("partition", $0, $1, $2, isLast: false) },
    "rpartition": { try parted("rpartition", $0, $1, $2, isLast: true) },
  ]

  private static func list(_ parts: [Scalars], _ text: Text, _ interpreter: Interpreter) throws -> Value {
    .list(try Items(parts.map { try made($0, from: text, interpreter) }, interpreter.budget))
  }

  private static func split(_ name: String, _ interpreter: Interpreter, _ text: Text, _ arguments: Arguments, fromRight: Bool) throws
    -> Value
  {
    let values = try arguments.bound(name, ["sep", "maxsplit"])
    let most = try values[1]?.integer("the count of '\(name)'") ?? -1
    let separator = try values[0].flatMap { $0.isNone ? nil : try $0.text("what '\(name)' cuts at") }
    guard separator?.isEmpty != true else { throw TemplateError("'\(name)' cuts at an empty text") }
    // From the right is from the left in the mirror.
    let scalars = fromRight ? text.scalars.reversed() : text.scalars
    var parts: [Scalars] = []
    func isDone() -> Bool { most >= 0 && parts.count >= most }
    try interpreter.budget.spend(scalars.count / 16)
    if let separator {
      let mark = fromRight ? separator.reversed() : separator
      var from = 0
      while !isDone(), let next = try scalars.find(mark, from: from, interpreter.budget) {
        try interpreter.budget.require(parts.count * 64)
        parts.append(Scalars(scalars[from..<next]))
        from = next + mark.count
      }
      parts.append(Scalars(scalars[from...]))
    } else {
      var from = scalars.firstIndex { !$0.isPythonSpace } ?? scalars.count
      while from < scalars.count {
        if isDone() {
          parts.append(Scalars(scalars[from...]))
          break
        }
        try interpreter.budget.require(parts.count * 64)
        let end = scalars[from...].firstIndex(where: \.isPythonSpace) ?? scalars.count
        parts.append(Scalars(scalars[from..<end]))
        from = scalars[end...].firstIndex { !$0.isPythonSpace } ?? scalars.count
      }
    }
    return try list(fromRight ? parts.reversed().map { $0.reversed() } : parts, text, interpreter)
  }

  private static func parted(_ name: String, _ interpreter: Interpreter, _ text: Text, _ arguments: Arguments, isLast: Bool) throws -> Value
  {
    let mark = try (try arguments.bound(name, ["sep"], required: 1)[0] ?? .none).text("what '\(name)' cuts at")
    guard !mark.isEmpty else { throw TemplateError("'\(name)' cuts at an empty text") }
    let scalars = text.scalars
    var place = try isLast ? Scalars(scalars.reversed()).find(mark.reversed(), interpreter.budget) : scalars.find(mark, interpreter.budget)
    if isLast { place = place.map { scalars.count - $0 - mark.count } }
    let parts =
      place.map { [Scalars(scalars[..<$0]), mark, Scalars(scalars[($0 + mark.count)...])] }
      ?? (isLast ? [[], [], scalars] : [scalars, [], []])
    return .tuple(try Items(parts.map { try made($0, from: text, interpreter) }, interpreter.budget))
  }
}
