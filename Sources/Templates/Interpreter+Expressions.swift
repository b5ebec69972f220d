extension Interpreter {
  /// The value of an expression.
  func evaluate(_ expression: Expression, _ scope: Scope) throws -> Value {
    try nested { try value(of: expression, scope) }
  }

  private func value(of expression: Expression, _ scope: Scope) throws -> Value {
    switch expression.kind {
    case .none: return .none
    case .bool(let value): return .bool(value)
    case .integer(let value): return .int(value)
    case .float(let value): return .float(value)
    case .string(let text): return .string(Text(freeOfCharge: text))
    case .name(let name): return scope.value(name) ?? Globals[name] ?? .undefined(.variable(name))
    case .list(let parts): return .list(try Items(parts.map { try evaluate($0, scope) }, budget))
    case .tuple(let parts): return .tuple(try Items(parts.map { try evaluate($0, scope) }, budget))
    case .dict(let pairs):
      let values = try pairs.map { (key: try evaluate($0.key, scope), value: try evaluate($0.value, scope)) }
      line = expression.line
      return .dict(try Dictionary(values, budget))
    case .attribute(let value, let name):
      let value = try evaluate(value, scope)
      line = expression.line
      return try attribute(name, of: value)
    case .item(let value, let key):
      let value = try evaluate(value, scope)
      if case .slice(let start, let stop, let step) = key.kind {
        let bounds = try [start, stop, step].map { try $0.map { try evaluate($0, scope) } ?? .none }
        line = expression.line
        return try slice(value, bounds)
      }
      let key = try evaluate(key, scope)
      line = expression.line
      return try item(key, of: value)
    case .slice:
      line = expression.line
      throw TemplateError("several slices of one value")
    case .call(let callee, let arguments):
      let callee = try evaluate(callee, scope)
      let arguments = try self.arguments(arguments, scope)
      line = expression.line
      return try call(callee, arguments)
    case .filter(let value, let name, let arguments):
      let value = try value.map { try evaluate($0, scope) } ?? .none
      return try apply(name, to: value, arguments, expression.line, scope)
    case .test(let value, let name, let arguments):
      let value = try evaluate(value, scope)
      let arguments = try self.arguments(arguments, scope)
      line = expression.line
      return .bool(try test(name, value, arguments))
    case .not(let value): return .bool(try !evaluate(value, scope).isTrue)
    case .negative(let value):
      let value = try evaluate(value, scope)
      line = expression.line
      return try value.negated()
    case .positive(let value):
      let value = try evaluate(value, scope)
      line = expression.line
      if case .bool(let bool) = value { return .int(bool ? 1 : 0) }
      if value.number == nil { _ = try value.negated() }
      return value
    case .and(let left, let right):
      let left = try evaluate(left, scope)
      return left.isTrue ? try evaluate(right, scope) : left
    case .or(let left, let right):
      let left = try evaluate(left, scope)
      return left.isTrue ? left : try evaluate(right, scope)
    case .binary(let operation, let left, let right):
      let (left, right) = (try evaluate(left, scope), try evaluate(right, scope))
      line = expression.line
      return try left.combined(operation, right, self)
    case .concatenation(let parts):
      var text = TextBuilder(budget)
      for part in parts { try evaluate(part, scope).printed(into: &text, budget) }
      return try text.value()
    case .comparison(let first, let others):
      var left = try evaluate(first, scope)
      for (operation, other) in others {
        let right = try evaluate(other, scope)
        line = expression.line
        guard try compare(left, operation, right) else { return .bool(false) }
        left = right
      }
      return .bool(true)
    case .conditional(let test, let then, let otherwise):
      if try evaluate(test, scope).isTrue { return try evaluate(then, scope) }
      return try otherwise.map { try evaluate($0, scope) }
        ?? .undefined(.hint("the condition of an inline 'if' without 'else' is false"))
    }
  }

  func compare(_ left: Value, _ operation: Expression.Comparison, _ right: Value) throws -> Bool {
    switch operation {
    case .equal: try left.equals(right, budget)
    case .unequal: try !left.equals(right, budget)
    case .less: try left.isLess(than: right, budget)
    case .greater: try right.isLess(than: left, budget)
    case .lessOrEqual: try isAtMost(left, right)
    case .greaterOrEqual: try isAtMost(right, left)
    case .isIn: try right.contains(left, budget)
    case .isNotIn: try !right.contains(left, budget)
    }
  }

  /// `left <= right`: NaN is neither less nor equal.
  private func isAtMost(_ left: Value, _ right: Value) throws -> Bool {
    if try left.isLess(than: right, budget) { return true }
    return try left.equals(right, budget)
  }

  // MARK: Calls

  /// Calls a function, or a recursive loop.
  func call(_ callee: Value, _ arguments: Arguments) throws -> Value {
    switch callee {
    case .function(let function): return try nested { try function.body(self, arguments) }
    case .loop(let loop):
      guard let recursion = loop.recursion else { throw TemplateError("a loop is called that is not 'recursive'") }
      let values = try arguments.bound("loop", ["iterable"], required: 1)
      return try recursion(values[0] ?? .none, loop.depth0 + 1)
    case .undefined(let value): throw value.error
    default: throw TemplateError("a value of the type '\(callee.type)' is called")
    }
  }

  /// The values of a call's arguments.
  func arguments(_ arguments: Expression.Arguments, _ scope: Scope) throws -> Arguments {
    var values = Arguments(try arguments.positional.map { try evaluate($0, scope) })
    for (name, expression) in arguments.named { values.named.append((name, try evaluate(expression, scope))) }
    if let more = arguments.more { values.positional += try evaluate(more, scope).elements(budget) }
    if let more = arguments.moreNamed {
      guard case .dict(let dictionary) = try evaluate(more, scope) else { throw TemplateError("what stands behind ** is no mapping") }
      for entry in dictionary.entries {
        let name = try entry.key.text("a key behind **").string
        guard !values.named.contains(where: { $0.name == name }) else { throw TemplateError("the argument '\(name)' twice") }
        values.named.append((name, entry.value))
        try budget.spend(values.named.count)
      }
    }
    return values
  }

  // MARK: Filters and tests

  private func apply(_ name: String, to value: Value, _ arguments: Expression.Arguments, _ line: Int, _ scope: Scope) throws -> Value {
    let arguments = try self.arguments(arguments, scope)
    self.line = line
    return try filter(name, value, arguments)
  }

  /// A text through a chain of filters that begins with nothing.
  func filtered(_ text: Value, through chain: Expression, _ scope: Scope) throws -> Value {
    guard case .filter(let before, let name, let arguments) = chain.kind else { return text }
    let value = try before.map { try filtered(text, through: $0, scope) } ?? text
    return try apply(name, to: value, arguments, chain.line, scope)
  }

  /// A value through a filter.
  func filter(_ name: String, _ value: Value, _ arguments: Arguments) throws -> Value {
    guard let filter = Filters.all[name] else { throw TemplateError("no filter named '\(name)'") }
    return try nested { try filter(self, value, arguments) }
  }

  /// Whether a value passes a test.
  func test(_ name: String, _ value: Value, _ arguments: Arguments) throws -> Bool {
    guard let test = Tests.all[name] else { throw TemplateError("no test named '\(name)'") }
    return try nested { try test(self, value, arguments) }
  }
}
