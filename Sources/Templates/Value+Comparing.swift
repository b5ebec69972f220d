extension Value {
  /// `left == right`.
  func equals(_ other: Value, _ budget: Budget) throws -> Bool {
    try budget.spend()
    switch (self, other) {
    case (.undefined, .undefined), (.none, .none): return true
    case (.string(let left), .string(let right)):
      try budget.spend(min(left.scalars.count, right.scalars.count) / 32)
      return left == right
    case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
      guard left.values.count == right.values.count else { return false }
      return try zip(left.values, right.values).allSatisfy { try $0.equals($1, budget) }
    case (.dict(let left), .dict(let right)):
      guard left.entries.count == right.entries.count else { return false }
      return try left.entries.allSatisfy { entry in try right.value(entry.key, budget).map { try entry.value.equals($0, budget) } ?? false }
    case (.range(let left), .range(let right)):
      return left.count == right.count
        && (left.count == 0 || left.start == right.start && (left.count == 1 || left.step == right.step))
    case (.namespace(let left), .namespace(let right)): return left === right
    case (.iterator(let left), .iterator(let right)): return left === right
    case (.function(let left), .function(let right)): return left === right
    case (.loop(let left), .loop(let right)): return left === right
    case (.view(let left), .view(let right)):
      guard left.part == right.part, left.part != .values, left.dictionary.entries.count == right.dictionary.entries.count else {
        return false
      }
      return try left.dictionary.entries.allSatisfy { entry in
        guard let value = try right.dictionary.value(entry.key, budget) else { return false }
        return try left.part == .keys || entry.value.equals(value, budget)
      }
    default:
      if let left = index, let right = other.index { return left == right }
      guard let left = number, let right = other.number else { return false }
      // An integer that no Double is equals none.
      return left == right && (index.map { Int(exactly: right) == $0 } ?? true) && (other.index.map { Int(exactly: left) == $0 } ?? true)
    }
  }

  /// `left < right`.
  ///
  /// - Throws: ``TemplateError`` for values that have no order.
  func isLess(than other: Value, _ budget: Budget) throws -> Bool {
    try budget.spend()
    switch (self, other) {
    case (.undefined(let value), _), (_, .undefined(let value)): throw value.error
    case (.string(let left), .string(let right)):
      try budget.spend(min(left.scalars.count, right.scalars.count) / 32)
      return left.scalars.lexicographicallyPrecedes(right.scalars)
    case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
      for (left, right) in zip(left.values, right.values) where try !left.equals(right, budget) {
        return try left.isLess(than: right, budget)
      }
      return left.values.count < right.values.count
    default:
      if let left = index, let right = other.index { return left < right }
      guard let left = number, let right = other.number else {
        throw TemplateError("'<' is not defined between '\(type)' and '\(other.type)'")
      }
      return left < right
    }
  }

  /// `part in self`.
  func contains(_ part: Value, _ budget: Budget) throws -> Bool {
    switch self {
    case .string(let text):
      guard case .string(let part) = part else { throw TemplateError("'in <string>' requires a string, found '\(part.type)'") }
      return try text.scalars.find(part.scalars, budget) != nil
    case .dict(let dictionary): return try dictionary.value(part, budget) != nil
    case .view(let view) where view.part == .keys: return try view.dictionary.value(part, budget) != nil
    default:
      let iteration = try iterate(budget)
      while let element = try iteration.next() {
        if try element.equals(part, budget) { return true }
      }
      return false
    }
  }

  /// The values one after the other.
  ///
  /// - Throws: ``TemplateError`` for a value that cannot be iterated.
  func iterate(_ budget: Budget) throws -> Iteration {
    func counted(_ type: String, _ count: Int, _ element: @escaping (Int) throws -> Value) throws -> Iteration {
      var i = 0
      return try Iteration(type, depth: depth, budget) {
        guard i < count else { return nil }
        defer { i += 1 }
        return try element(i)
      }
    }
    switch self {
    case .undefined: return try counted("generator", 0) { _ in .none }
    case .string(let text): return try counted("str_iterator", text.scalars.count) { .string(Text(try Buffer([text.scalars[$0]], budget))) }
    case .list(let items): return try counted("list_iterator", items.values.count) { items.values[$0] }
    case .tuple(let items): return try counted("tuple_iterator", items.values.count) { items.values[$0] }
    case .dict(let dictionary): return try counted("dict_keyiterator", dictionary.entries.count) { dictionary.entries[$0].key }
    case .view(let view): return try counted("dict_iterator", view.dictionary.entries.count) { try view.element($0, budget) }
    case .range(let range): return try counted("range_iterator", range.count) { .int(range[$0]) }
    case .iterator(let iteration): return iteration
    case .none, .bool, .int, .float, .namespace, .loop, .function: throw TemplateError("'\(type)' cannot be iterated")
    }
  }

  /// All values that iterating gives.
  func elements(_ budget: Budget) throws -> [Value] {
    if case .list(let items) = self { return items.values }
    if case .tuple(let items) = self { return items.values }
    let iteration = try iterate(budget)
    var elements: [Value] = []
    while let element = try iteration.next() {
      try budget.require(elements.count * MemoryLayout<Value>.stride)
      elements.append(element)
    }
    return elements
  }

  /// `len(value)`; nil if it has none.
  func length(_ budget: Budget) throws -> Int? {
    switch self {
    case .undefined: 0
    case .string(let text): text.scalars.count
    case .list(let items), .tuple(let items): items.values.count
    case .dict(let dictionary): dictionary.entries.count
    case .view(let view): view.dictionary.entries.count
    case .range(let range): range.count
    case .loop(let loop): try loop.length(budget)
    default: nil
    }
  }
}

extension Scalars {
  /// The first place of a part; nil if it is not in here.
  func find(_ part: Scalars, from start: Int = 0, to end: Int? = nil, _ budget: Budget) throws -> Int? {
    let end = end ?? count
    guard start <= end, part.count <= end - start else { return nil }
    guard let first = part.first else { return start }
    var compared = 0
    for i in start...(end - part.count) {
      if self[i] == first {
        var length = 1
        while length < part.count, self[i + length] == part[length] { length += 1 }
        compared += length
        if length == part.count {
          try budget.spend((compared + i - start) / 32)
          return i
        }
        if compared > 1 << 16 {
          try budget.spend(compared / 32)
          compared = 0
        }
      }
    }
    try budget.spend((compared + end - start) / 32)
    return nil
  }
}
