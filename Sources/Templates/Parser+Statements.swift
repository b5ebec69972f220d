extension Parser {
  /// Text, values and tags up to a tag of one of the names, which stays to be read; up to the end where there are none.
  mutating func statements(until names: [String]) throws -> [Statement] {
    try nested { parser in
      var body: [Statement] = []
      while true {
        switch parser.current.kind {
        case .data(let text):
          parser.advance()
          body.append(.text(text))
        case .variableBegin:
          parser.advance()
          body.append(.output(try parser.tuple()))
          try parser.expect(.variableEnd)
        case .blockBegin:
          parser.advance()
          guard case .name(let name) = parser.current.kind else { throw parser.fail("found \(parser.current.description), expected a tag") }
          if names.contains(name) { return body }
          body += try parser.statement(name)
          try parser.expect(.blockEnd)
        case .end:
          guard names.isEmpty else { throw parser.fail("the template ends, expected {% \(names.joined(separator: " %} or {% ")) %}") }
          return body
        default: throw parser.fail("unexpected \(parser.current.description)")
        }
      }
    }
  }

  /// The body of a tag, and its closing tag, of which the name is read and given back.
  private mutating func body(until names: String...) throws -> (body: [Statement], end: String) {
    _ = skip(":")
    try expect(.blockEnd)
    let body = try statements(until: names)
    return (body, try expectName())
  }

  private mutating func statement(_ name: String) throws -> [Statement] {
    let line = line
    advance()
    switch name {
    case "for": return [.loop(try forLoop(line))]
    case "if": return [try choice()]
    case "set": return [try set(line)]
    case "macro":
      let macro = try expectName()
      return [.macro(try definition(macro, try signature(), until: "endmacro"))]
    case "call":
      let parameters = at("(") ? try signature() : ([], [])
      let call = try expression()
      guard case .call = call.kind else { throw fail("{% call %} without a call", line: line) }
      return [.call(call, try definition("caller", parameters, until: "endcall"))]
    case "filter":
      let filters = try filter(of: nil, isFirst: true)
      return [.filter(filters, try frame { try $0.body(until: "endfilter").body })]
    case "with": return [try with(line)]
    case "generation":
      return [.generation(try function { try $0.body(until: "endgeneration").body })]
    case "block":
      let block = try expectName()
      let isScoped = skip(name: "scoped")
      _ = skip(name: "required")
      let body = try function { try $0.body(until: "endblock").body }
      _ = skip(name: block)
      return [.block(body, isScoped: isScoped)]
    case "autoescape":
      let isOn = try expression()
      return [.autoescape(isOn, try frame { try $0.body(until: "endautoescape").body })]
    case "print": return try printed()
    case "break", "continue":
      guard loops > 0 else { throw fail("{% \(name) %} outside of a loop", line: line) }
      return [name == "break" ? .breakLoop : .continueLoop]
    case "include", "import", "from", "extends":
      while current.kind != .blockEnd, current.kind != .end { advance() }
      return [.otherTemplate(tag: name, line: line)]
    default: throw fail("the tag {% \(name) %}, which is not known", line: line)
    }
  }

  /// Reads what is a function of its own: no loop around it can be ended in it.
  private mutating func function<Result>(_ read: (inout Parser) throws -> Result) throws -> Result {
    let outside = loops
    loops = 0
    defer { loops = outside }
    return try frame(read)
  }

  private mutating func forLoop(_ line: Int) throws -> ForLoop {
    let target = try target(until: "in")
    guard skip(name: "in") else { throw fail("found \(current.description), expected 'in'") }
    let sequence = try tuple(withCondition: false, until: "recursive")
    let test = skip(name: "if") ? try frame { try $0.expression() } : nil
    let isRecursive = skip(name: "recursive")
    loops += 1
    let (body, end) = try frame { try $0.body(until: "endfor", "else") }
    loops -= 1
    let otherwise = end == "else" ? try frame { try $0.body(until: "endfor").body } : []
    return ForLoop(
      target: target, sequence: sequence, test: test, isRecursive: isRecursive, body: body, otherwise: otherwise, line: line)
  }

  private mutating func choice() throws -> Statement {
    let known = unknown.count
    var branches: [(Expression, [Statement])] = []
    var otherwise: [Statement] = []
    while true {
      let test = try tuple(withCondition: false)
      let (body, end) = try body(until: "elif", "else", "endif")
      branches.append((test, body))
      if end == "elif" { continue }
      if end == "else" { otherwise = try self.body(until: "endif").body }
      unknown.removeSubrange(known...)
      return .choice(branches, otherwise: otherwise)
    }
  }

  private mutating func set(_ line: Int) throws -> Statement {
    let target = try target(until: nil)
    if skip("=") { return .set(target, try tuple(), line: line) }
    let filters = at("|") ? try filter(of: nil, isFirst: false) : nil
    return .setBlock(target, filters: filters, try frame { try $0.body(until: "endset").body }, line: line)
  }

  private mutating func with(_ line: Int) throws -> Statement {
    var values: [(Target, Expression)] = []
    while current.kind != .blockEnd {
      if !values.isEmpty { try expect(.sign(",")) }
      let target = try target(until: nil, withNamespace: false)
      try expect(.sign("="))
      values.append((target, try expression()))
    }
    return .with(values, try frame { try $0.body(until: "endwith").body }, line: line)
  }

  private mutating func printed() throws -> [Statement] {
    var values: [Statement] = []
    while current.kind != .blockEnd {
      if !values.isEmpty { try expect(.sign(",")) }
      values.append(.output(try expression()))
    }
    return values
  }

  // MARK: Macros

  private mutating func signature() throws -> (parameters: [String], defaults: [Expression]) {
    var (parameters, defaults): ([String], [Expression]) = ([], [])
    try expect(.sign("("))
    while !at(")") {
      if !parameters.isEmpty { try expect(.sign(",")) }
      let name = try expectName()
      guard !parameters.contains(name) else { throw fail("the parameter '\(name)' twice") }
      parameters.append(name)
      if skip("=") {
        defaults.append(try expression())
      } else if !defaults.isEmpty {
        throw fail("the parameter '\(name)' without a default behind one that has one")
      }
    }
    try expect(.sign(")"))
    return (parameters, defaults)
  }

  private mutating func definition(_ name: String, _ signature: (parameters: [String], defaults: [Expression]), until end: String) throws
    -> MacroDefinition
  {
    let outside = names
    names = []
    let body = try function { try $0.body(until: end).body }
    let used = names
    names.formUnion(outside)
    return MacroDefinition(
      name: name, parameters: signature.parameters, defaults: signature.defaults, body: body, takesMore: used.contains("varargs"),
      takesMoreNamed: used.contains("kwargs"), takesCaller: used.contains("caller"))
  }

  // MARK: Targets

  /// What a value is given to; several are parted by commas, and end at the name `end`.
  private mutating func target(until end: String?, withNamespace: Bool = true) throws -> Target {
    var targets: [Target] = []
    var isTuple = false
    while true {
      if isTuple, !targets.isEmpty, isTupleEnd(end) || at("=") { break }
      targets.append(try oneTarget(withNamespace && end == nil))
      guard skip(",") else { break }
      isTuple = true
    }
    return isTuple ? .tuple(targets) : targets[0]
  }

  private mutating func oneTarget(_ withNamespace: Bool) throws -> Target {
    if skip("(") {
      let target = try nested { try $0.target(until: nil, withNamespace: withNamespace) }
      try expect(.sign(")"))
      return target
    }
    let name = try expectName()
    guard !["true", "false", "True", "False", "none", "None"].contains(name) else { throw fail("a value given to '\(name)'") }
    guard withNamespace, skip(".") else {
      if name == "loop", loops > 0 { throw fail("a value given to the variable 'loop' in a loop") }
      return .name(name)
    }
    return .attribute(namespace: name, try expectName())
  }
}
