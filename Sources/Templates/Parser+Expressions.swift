extension Parser {
  // MARK: From the weakest operator to the strongest

  mutating func expression(withCondition: Bool = true) throws -> Expression {
    try nested { try withCondition ? $0.conditional() : $0.or() }
  }

  private func make(_ kind: Expression.Kind, _ line: Int) throws -> Expression { try Expression(kind, line: line) }

  private mutating func conditional() throws -> Expression {
    let (line, known) = (line, unknown.count)
    var value = try or()
    while skip(name: "if") {
      let test = try or()
      let otherwise = skip(name: "else") ? try nested { try $0.conditional() } : nil
      value = try make(.conditional(test: test, then: value, otherwise: otherwise), line)
      unknown.removeSubrange(known...)
    }
    return value
  }

  private mutating func or() throws -> Expression {
    let line = line
    var left = try and()
    while skip(name: "or") { left = try make(.or(left, try and()), line) }
    return left
  }

  private mutating func and() throws -> Expression {
    let line = line
    var left = try not()
    while skip(name: "and") { left = try make(.and(left, try not()), line) }
    return left
  }

  private mutating func not() throws -> Expression {
    let line = line
    guard skip(name: "not") else { return try comparison() }
    return try make(.not(try nested { try $0.not() }), line)
  }

  private mutating func comparison() throws -> Expression {
    let line = line
    let first = try sum()
    var others: [(Expression.Comparison, Expression)] = []
    while true {
      if case .sign(let sign) = current.kind, let operation = Expression.Comparison(rawValue: sign) {
        advance()
        others.append((operation, try sum()))
      } else if skip(name: "in") {
        others.append((.isIn, try sum()))
      } else if at(name: "not"), next.kind == .name("in") {
        advance()
        advance()
        others.append((.isNotIn, try sum()))
      } else {
        return others.isEmpty ? first : try make(.comparison(first, others), line)
      }
    }
  }

  private mutating func binary(_ signs: [String], _ operand: (inout Parser) throws -> Expression) throws -> Expression {
    let line = line
    var left = try operand(&self)
    while case .sign(let sign) = current.kind, signs.contains(sign), let operation = Expression.Operator(rawValue: sign) {
      advance()
      left = try make(.binary(operation, left, try operand(&self)), line)
    }
    return left
  }

  private mutating func sum() throws -> Expression { try binary(["+", "-"]) { try $0.concatenation() } }

  private mutating func concatenation() throws -> Expression {
    let line = line
    var parts = [try product()]
    while skip("~") { parts.append(try product()) }
    return parts.count == 1 ? parts[0] : try make(.concatenation(parts), line)
  }

  private mutating func product() throws -> Expression { try binary(["*", "/", "//", "%"]) { try $0.power() } }

  private mutating func power() throws -> Expression { try binary(["**"]) { try $0.unary(withFilter: true) } }

  private mutating func unary(withFilter: Bool) throws -> Expression {
    let line = line
    var value: Expression
    if skip("-") {
      value = try make(.negative(try nested { try $0.unary(withFilter: false) }), line)
    } else if skip("+") {
      value = try make(.positive(try nested { try $0.unary(withFilter: false) }), line)
    } else {
      value = try primary()
    }
    value = try postfix(value)
    return withFilter ? try filtered(value) : value
  }

  // MARK: Values

  private mutating func primary() throws -> Expression {
    let line = line
    switch current.kind {
    case .name(let name):
      advance()
      switch name {
      case "true", "True": return try make(.bool(true), line)
      case "false", "False": return try make(.bool(false), line)
      case "none", "None": return try make(.none, line)
      default:
        names.insert(name)
        return try make(.name(name), line)
      }
    case .string(var text):
      advance()
      while case .string(let more) = current.kind {
        text += more
        advance()
      }
      return try make(.string(text), line)
    case .integer(let value):
      advance()
      return try make(.integer(value), line)
    case .float(let value):
      advance()
      return try make(.float(value), line)
    case .sign("("):
      advance()
      let value = try tuple(isInParentheses: true)
      try expect(.sign(")"))
      return value
    case .sign("["):
      advance()
      return try make(.list(try elements(until: "]") { try $0.expression() }), line)
    case .sign("{"):
      advance()
      let pairs = try elements(until: "}") { parser in
        let key = try parser.expression()
        try parser.expect(.sign(":"))
        return (key: key, value: try parser.expression())
      }
      return try make(.dict(pairs), line)
    default: throw fail("unexpected \(current.description)")
    }
  }

  /// Elements parted by commas, one of which may stand behind the last.
  private mutating func elements<Element>(until end: String, _ element: (inout Parser) throws -> Element) throws -> [Element] {
    var elements: [Element] = []
    while !at(end) {
      if !elements.isEmpty {
        try expect(.sign(","))
        if at(end) { break }
      }
      elements.append(try element(&self))
    }
    advance()
    return elements
  }

  func isTupleEnd(_ end: String?) -> Bool {
    current.kind == .variableEnd || current.kind == .blockEnd || at(")") || end.map { at(name: $0) } ?? false
  }

  /// An expression, or several parted by commas.
  mutating func tuple(withCondition: Bool = true, isInParentheses: Bool = false, until end: String? = nil) throws -> Expression {
    let line = line
    var parts: [Expression] = []
    var isTuple = false
    while true {
      if !parts.isEmpty { try expect(.sign(",")) }
      if isTupleEnd(end) { break }
      parts.append(try expression(withCondition: withCondition))
      guard at(",") else { break }
      isTuple = true
    }
    if !isTuple {
      if let only = parts.first { return only }
      guard isInParentheses else { throw fail("found \(current.description), expected an expression") }
    }
    return try make(.tuple(parts), line)
  }

  // MARK: What follows a value

  private mutating func postfix(_ value: Expression) throws -> Expression {
    var value = value
    while true {
      if at(".") || at("[") {
        value = try subscripted(value)
      } else if at("(") {
        value = try called(value)
      } else {
        return value
      }
    }
  }

  private mutating func filtered(_ value: Expression) throws -> Expression {
    var value = value
    while true {
      if at("|") {
        value = try filter(of: value, isFirst: false)
      } else if at(name: "is") {
        value = try test(value)
      } else if at("(") {
        value = try called(value)
      } else {
        return value
      }
    }
  }

  private mutating func called(_ value: Expression) throws -> Expression {
    let line = line
    return try make(.call(value, try arguments()), line)
  }

  private mutating func subscripted(_ value: Expression) throws -> Expression {
    let line = line
    if skip(".") {
      switch advance().kind {
      case .name(let name): return try make(.attribute(value, name), line)
      case .integer(let index): return try make(.item(value, try make(.integer(index), line)), line)
      default: throw fail("found \(current.description), expected a name or a number", line: line)
      }
    }
    advance()
    let keys = try elements(until: "]") { try $0.key() }
    return try make(.item(value, keys.count == 1 ? keys[0] : try make(.tuple(keys), line)), line)
  }

  /// What stands in brackets: a value, or a slice.
  private mutating func key() throws -> Expression {
    let line = line
    let start = at(":") ? nil : try expression()
    guard skip(":") else {
      guard let start else { throw fail("found \(current.description), expected an expression") }
      return start
    }
    func isOver() -> Bool { at(":") || at("]") || at(",") }
    let stop = isOver() ? nil : try expression()
    let step = skip(":") && !isOver() ? try expression() : nil
    return try make(.slice(start, stop, step), line)
  }

  private mutating func arguments() throws -> Expression.Arguments {
    let line = line
    try expect(.sign("("))
    var arguments = Expression.Arguments()
    func ensure(_ isRight: Bool) throws {
      if !isRight { throw fail("arguments in an order that calls do not have", line: line) }
    }
    var isFirst = true
    while !at(")") {
      if !isFirst {
        try expect(.sign(","))
        if at(")") { break }
      }
      isFirst = false
      if skip("*") {
        try ensure(arguments.more == nil && arguments.moreNamed == nil)
        arguments.more = try expression()
      } else if skip("**") {
        try ensure(arguments.moreNamed == nil)
        arguments.moreNamed = try expression()
      } else if case .name(let name) = current.kind, next.kind == .sign("=") {
        try ensure(arguments.moreNamed == nil)
        advance()
        advance()
        guard !arguments.named.contains(where: { $0.name == name }) else { throw fail("the argument '\(name)' twice") }
        arguments.named.append((name, try expression()))
      } else {
        try ensure(arguments.more == nil && arguments.moreNamed == nil && arguments.named.isEmpty)
        arguments.positional.append(try expression())
      }
    }
    try expect(.sign(")"))
    return arguments
  }

  private mutating func dottedName() throws -> String {
    var name = try expectName()
    while skip(".") { name += "." + (try expectName()) }
    return name
  }

  /// A chain of filters.
  mutating func filter(of value: Expression?, isFirst: Bool) throws -> Expression {
    var value = value
    var isFirst = isFirst
    while isFirst || at("|") {
      if !isFirst { advance() }
      isFirst = false
      let line = line
      let name = try dottedName()
      if Filters.all[name] == nil { unknown.append(fail("no filter named '\(name)'", line: line)) }
      value = try make(.filter(value, name, at("(") ? try arguments() : Expression.Arguments()), line)
    }
    guard let value else { throw fail("found \(current.description), expected a filter") }
    return value
  }

  private mutating func test(_ value: Expression) throws -> Expression {
    let line = line
    advance()
    let isNegated = skip(name: "not")
    let name = try dottedName()
    if Tests.all[name] == nil { unknown.append(fail("no test named '\(name)'", line: line)) }
    var arguments = Expression.Arguments()
    if at("(") {
      arguments = try self.arguments()
    } else if beginsArgument {
      if at(name: "is") { throw fail("a test of a test") }
      arguments.positional = [try nested { try $0.postfix(try $0.primary()) }]
    }
    let test = try make(.test(value, name, arguments), line)
    return isNegated ? try make(.not(test), line) : test
  }

  /// Whether a test's argument without parentheses begins here.
  private var beginsArgument: Bool {
    switch current.kind {
    case .name(let name): !["else", "or", "and"].contains(name)
    case .string, .integer, .float, .sign("["), .sign("{"): true
    default: false
    }
  }
}
