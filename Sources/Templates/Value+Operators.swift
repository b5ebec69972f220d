import Platform

extension Value {
  /// A binary operator.
  ///
  /// - Throws: ``TemplateError`` for types that it does not take, and an integer beyond 64 bits.
  func combined(_ operation: Expression.Operator, _ other: Value, _ interpreter: Interpreter) throws -> Value {
    if case .undefined(let value) = self { throw value.error }
    if case .undefined(let value) = other, !(operation == .modulo && isString) { throw value.error }
    if let left = index, let right = other.index { return try Self.integer(operation, left, right) }
    if let left = number, let right = other.number { return try Self.float(operation, left, right) }
    let budget = interpreter.budget
    switch (operation, self, other) {
    case (.add, .string(let left), .string(let right)):
      // Markup escapes what it meets.
      let isMarkup = left.isMarkup || right.isMarkup
      var text = TextBuilder(budget)
      try text.append(isMarkup && !left.isMarkup ? left.scalars.escapedForHTML() : left.scalars)
      try text.append(isMarkup && !right.isMarkup ? right.scalars.escapedForHTML() : right.scalars)
      return try text.value(isMarkup: isMarkup)
    case (.add, .list(let left), .list(let right)): return .list(try Items(left.values + right.values, budget))
    case (.add, .tuple(let left), .tuple(let right)): return .tuple(try Items(left.values + right.values, budget))
    case (.multiply, _, _):
      if let count = other.index, let repeated = try repeated(count, budget) { return repeated }
      if let count = index, let repeated = try other.repeated(count, budget) { return repeated }
    case (.modulo, .string(let format), _):
      return .string(Text(try Buffer(try PercentFormat(format, interpreter).text(other), budget), isMarkup: format.isMarkup))
    default: break
    }
    throw TemplateError("'\(operation.rawValue)' is not defined between '\(type)' and '\(other.type)'")
  }

  /// The value so many times, if it is a text, list or tuple.
  private func repeated(_ count: Int, _ budget: Budget) throws -> Value? {
    func elements<Element>(_ elements: [Element]) throws -> [Element] {
      guard count > 0, !elements.isEmpty else { return [] }
      let (total, isTooMuch) = elements.count.multipliedReportingOverflow(by: count)
      try budget.require(isTooMuch || total > 1 << 40 ? .max : total * MemoryLayout<Element>.stride)
      return Array(repeatElement(elements, count: count).joined())
    }
    switch self {
    case .string(let text): return .string(Text(try Buffer(try elements(text.scalars), budget), isMarkup: text.isMarkup))
    case .list(let items): return .list(try Items(try elements(items.values), budget))
    case .tuple(let items): return .tuple(try Items(try elements(items.values), budget))
    default: return nil
    }
  }

  private static var overflow: TemplateError { TemplateError("an integer beyond 64 bits") }

  private static func integer(_ operation: Expression.Operator, _ left: Int, _ right: Int) throws -> Value {
    func checked(_ result: (partialValue: Int, overflow: Bool)) throws -> Value {
      if result.overflow { throw overflow }
      return .int(result.partialValue)
    }
    switch operation {
    case .add: return try checked(left.addingReportingOverflow(right))
    case .subtract: return try checked(left.subtractingReportingOverflow(right))
    case .multiply: return try checked(left.multipliedReportingOverflow(by: right))
    case .divide: return try float(.divide, Double(left), Double(right))
    case .floorDivide, .modulo:
      guard right != 0 else { throw TemplateError("division by zero") }
      if right == -1 { return operation == .modulo ? .int(0) : try checked((0).subtractingReportingOverflow(left)) }
      let (quotient, rest) = left.quotientAndRemainder(dividingBy: right)
      let isBelow = rest != 0 && (rest < 0) != (right < 0)  // Python rounds down
      return .int(operation == .modulo ? (isBelow ? rest + right : rest) : (isBelow ? quotient - 1 : quotient))
    case .power:
      guard right >= 0 else { return try float(.power, Double(left), Double(right)) }
      if left == 0 || left == 1 { return .int(right == 0 ? 1 : left) }
      if left == -1 { return .int(right % 2 == 0 ? 1 : -1) }
      guard right < 64 else { throw overflow }
      return try (0..<right).reduce(.int(1)) { power, _ in try checked((power.index ?? 0).multipliedReportingOverflow(by: left)) }
    }
  }

  private static func float(_ operation: Expression.Operator, _ left: Double, _ right: Double) throws -> Value {
    switch operation {
    case .add: return .float(left + right)
    case .subtract: return .float(left - right)
    case .multiply: return .float(left * right)
    case .divide, .floorDivide, .modulo:
      guard right != 0 else { throw TemplateError("division by zero") }
      if operation == .divide { return .float(left / right) }
      var rest = left.truncatingRemainder(dividingBy: right)
      if rest != 0, (rest < 0) != (right < 0) { rest += right }
      if rest == 0 { rest = Double(signOf: right, magnitudeOf: 0) }
      if operation == .modulo { return .float(rest) }
      let quotient = (left - rest) / right
      let floor = quotient.rounded(.down)
      return .float(quotient == 0 ? Double(signOf: left / right, magnitudeOf: 0) : quotient - floor > 0.5 ? floor + 1 : floor)
    case .power:
      let isWhole = right == right.rounded(.towardZero)
      guard left >= 0 || isWhole else { throw TemplateError("a power that is a complex number") }
      guard left != 0 || right >= 0 else { throw TemplateError("zero to a negative power") }
      let size = Double.pow(left.magnitude, right)
      let power = left < 0 && right.truncatingRemainder(dividingBy: 2) != 0 ? -size : size
      guard power.isFinite || !left.isFinite || !right.isFinite else { throw TemplateError("a power beyond floating-point numbers") }
      return .float(power)
    }
  }

  /// `-value`.
  func negated() throws -> Value {
    switch self {
    case .undefined(let value): throw value.error
    case .float(let value): return .float(-value)
    default:
      guard let value = index else { throw TemplateError("'-' is not defined for '\(type)'") }
      guard value != .min else { throw Self.overflow }
      return .int(-value)
    }
  }
}
