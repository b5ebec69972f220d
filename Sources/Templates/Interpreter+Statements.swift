extension Interpreter {
  /// How a body ended.
  enum Outcome {
    case done, breakLoop, continueLoop
  }

  /// Carries out statements until one leaves the loop.
  func execute(_ body: [Statement], _ scope: Scope) throws -> Outcome {
    for statement in body {
      let outcome = try nested { try execute(statement, scope) }
      guard outcome == .done else { return outcome }
    }
    return .done
  }

  private func execute(_ statement: Statement, _ scope: Scope) throws -> Outcome {
    switch statement {
    case .text(let text): try write(text)
    case .output(let expression): try write(evaluate(expression, scope))
    case .set(let target, let expression, let line):
      let value = try evaluate(expression, scope)
      self.line = line
      try assign(target, value, scope)
    case .setBlock(let target, let filters, let body, let line):
      var outcome = Outcome.done
      let text = try captured { outcome = try execute(body, Scope(parent: scope)) }
      guard outcome == .done else { return outcome }
      let value = try filters.map { try filtered(text, through: $0, scope) } ?? text
      self.line = line
      try assign(target, value, scope)
    case .choice(let branches, let otherwise):
      for branch in branches where try evaluate(branch.test, scope).isTrue { return try execute(branch.body, scope) }
      return try execute(otherwise, scope)
    case .loop(let loop): return try execute(loop, scope)
    case .macro(let definition): scope.set(definition.name, .function(try macro(definition, scope)))
    case .call(let call, let definition):
      guard case .call(let callee, let arguments) = call.kind else { return .done }
      let caller = try macro(definition, scope)
      var values = try self.arguments(arguments, scope)
      values.named.append(("caller", .function(caller)))
      line = call.line
      try write(self.call(evaluate(callee, scope), values))
    case .filter(let filters, let body):
      var outcome = Outcome.done
      let text = try captured { outcome = try execute(body, Scope(parent: scope)) }
      guard outcome == .done else { return outcome }
      try write(filtered(text, through: filters, scope))
    case .with(let values, let body, let line):
      let inner = Scope(parent: scope)
      for (target, expression) in values {
        let value = try evaluate(expression, scope)
        self.line = line
        try assign(target, value, inner)
      }
      return try execute(body, inner)
    case .generation(let body): try writeGeneration(captured { _ = try execute(body, Scope(parent: scope)) })
    case .block(let body, let isScoped): _ = try execute(body, Scope(parent: isScoped ? scope : root))
    case .autoescape(let isOn, let body):
      guard try !evaluate(isOn, scope).isTrue else {
        line = isOn.line
        throw TemplateError("{% autoescape %}, which is not built")
      }
      return try execute(body, Scope(parent: scope))
    case .breakLoop: return .breakLoop
    case .continueLoop: return .continueLoop
    case .otherTemplate(let tag, let line):
      self.line = line
      throw TemplateError("{% \(tag) %}: a chat template has no other templates")
    }
    return .done
  }

  // MARK: Targets

  private func assign(_ target: Target, _ value: Value, _ scope: Scope) throws {
    switch target {
    case .name(let name): scope.set(name, value)
    case .attribute(let name, let attribute):
      guard case .namespace(let namespace) = scope.value(name) else {
        throw TemplateError("an attribute of '\(name)' is set, which is no namespace")
      }
      if namespace[attribute] == nil { try budget.take(64) }
      namespace[attribute] = value
    case .tuple(let targets):
      let iteration = try value.iterate(budget)
      var values: [Value] = []
      while values.count <= targets.count, let element = try iteration.next() { values.append(element) }
      guard values.count == targets.count else {
        throw TemplateError("\(values.count > targets.count ? "more" : "\(values.count)") values for \(targets.count) variables")
      }
      for (target, value) in zip(targets, values) { try assign(target, value, scope) }
    }
  }

  // MARK: Loops

  private func execute(_ node: ForLoop, _ scope: Scope) throws -> Outcome {
    let sequence = try evaluate(node.sequence, scope)
    guard node.isRecursive else { return try run(node, sequence, depth0: 0, scope) }
    try write(text(of: node, sequence, depth0: 0, scope))
    return .done
  }

  /// What a recursive loop writes.
  private func text(of node: ForLoop, _ sequence: Value, depth0: Int, _ scope: Scope) throws -> Value {
    try nested { try captured { _ = try run(node, sequence, depth0: depth0, scope) } }
  }

  private func run(_ node: ForLoop, _ sequence: Value, depth0: Int, _ scope: Scope) throws -> Outcome {
    line = node.line
    let recursion = node.isRecursive ? { [unowned self] in try text(of: node, $0, depth0: $1, scope) } : nil
    let loop = try LoopState(
      sequence, elements(of: sequence, node, scope), isFiltered: node.test != nil, depth0: depth0, recursion: recursion, budget)
    defer { loop.finish() }
    var isEmpty = true
    while let element = try loop.next() {
      isEmpty = false
      try budget.spend(2)
      let inner = Scope(parent: scope)
      inner.set("loop", .loop(loop))
      line = node.line
      try assign(node.target, element, inner)
      if try execute(node.body, inner) == .breakLoop { break }
    }
    return isEmpty ? try execute(node.otherwise, Scope(parent: scope)) : .done
  }

  /// The elements that a loop visits: where it has a condition, those that meet it, each looked at when its turn comes.
  private func elements(of sequence: Value, _ node: ForLoop, _ scope: Scope) throws -> Iteration {
    let iteration = try sequence.iterate(budget)
    guard let test = node.test else { return iteration }
    return try Iteration(depth: iteration.depth, budget) { [unowned self] in
      while let element = try iteration.next() {
        let inner = Scope(parent: scope)
        try assign(node.target, element, inner)
        if try evaluate(test, inner).isTrue { return element }
      }
      return nil
    }
  }

  // MARK: Macros

  private func macro(_ definition: MacroDefinition, _ scope: Scope) throws -> Function {
    try keep(scope)
    return Function(
      definition.name, type: "Macro",
      attribute: { name in
        switch name {
        case "name": .string(Text(freeOfCharge: Scalars(definition.name)))
        case "catch_kwargs": .bool(definition.takesMoreNamed)
        case "catch_varargs": .bool(definition.takesMore)
        case "caller": .bool(definition.takesCaller)
        default: nil
        }
      },
      { interpreter, arguments in try interpreter.run(definition, scope, arguments) })
  }

  private func run(_ macro: MacroDefinition, _ scope: Scope, _ arguments: Arguments) throws -> Value {
    let inner = Scope(parent: scope)
    var named = arguments.named
    func take(_ name: String) -> Value? { named.firstIndex { $0.name == name }.map { named.remove(at: $0).value } }
    let optional = macro.parameters.count - macro.defaults.count
    var missing: [(String, Expression?)] = []
    for (i, name) in macro.parameters.enumerated() {
      if let value = i < arguments.positional.count ? arguments.positional[i] : take(name) {
        inner.set(name, value)
      } else {
        missing.append((name, i >= optional ? macro.defaults[i - optional] : nil))
      }
    }
    if macro.takesCaller, !macro.parameters.contains("caller") {
      inner.set("caller", take("caller") ?? .undefined(.hint("no caller defined")))
    }
    if macro.takesMoreNamed {
      inner.set("kwargs", .dict(try Dictionary(named.map { (.string(Text(freeOfCharge: Scalars($0.name))), $0.value) }, budget)))
    } else if let name = named.first?.name {
      throw TemplateError("the macro '\(macro.name)' takes no argument '\(name)'")
    }
    let more = Array(arguments.positional.dropFirst(macro.parameters.count))
    if macro.takesMore {
      inner.set("varargs", .tuple(try Items(more, budget)))
    } else if !more.isEmpty {
      throw TemplateError("the macro '\(macro.name)' takes no more than \(macro.parameters.count) arguments")
    }
    for (name, fallback) in missing {
      inner.set(name, try fallback.map { try evaluate($0, inner) } ?? .undefined(.hint("the parameter '\(name)' was not provided")))
    }
    return try nested { try captured { _ = try execute(macro.body, inner) } }
  }
}
