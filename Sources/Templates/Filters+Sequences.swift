extension Filters {
  private static func list(_ values: [Value], _ interpreter: Interpreter) throws -> Value { .list(try Items(values, interpreter.budget)) }

  /// Sorted by a key, equal ones in their order.
  private static func sorted(
    _ values: [Value], isReversed: Bool, _ interpreter: Interpreter, by key: (Interpreter, Value) throws -> Value
  ) throws -> [Value] {
    let keyed = try values.enumerated().map { (place: $0, key: try key(interpreter, $1), value: $1) }
    let budget = interpreter.budget
    // As Python does, only "less" is asked for.
    return try keyed.sorted { left, right in
      let (first, second) = isReversed ? (right, left) : (left, right)
      if try first.key.isLess(than: second.key, budget) { return true }
      if try second.key.isLess(than: first.key, budget) { return false }
      return left.place < right.place
    }.map(\.value)
  }

  /// Filters of lists and what else can be iterated.
  static let sequences: [String: Filter] = [
    "list": { interpreter, value, arguments in
      _ = try arguments.bound("list", [])
      return try list(value.elements(interpreter.budget), interpreter)
    },
    "first": { interpreter, value, arguments in
      _ = try arguments.bound("first", [])
      return try value.iterate(interpreter.budget).next() ?? .undefined(.hint("no first item, the sequence was empty"))
    },
    "last": { interpreter, value, arguments in
      _ = try arguments.bound("last", [])
      guard let count = try value.length(interpreter.budget) else {
        throw TemplateError("a value of the type '\(value.type)' has no last item")
      }
      guard count > 0 else { return .undefined(.hint("no last item, the sequence was empty")) }
      switch value {
      case .dict(let dictionary): return dictionary.entries[count - 1].key
      case .view(let view): return try view.element(count - 1, interpreter.budget)
      default: return try interpreter.item(.int(count - 1), of: value)
      }
    },
    "items": { interpreter, value, arguments in
      _ = try arguments.bound("items", [])
      if value.isUndefined { return .iterator(try value.iterate(interpreter.budget)) }
      guard case .dict(let dictionary) = value else { throw TemplateError("'items' of a value that is no mapping") }
      let pairs = Value.view(DictionaryView(dictionary: dictionary, part: .items))
      return .iterator(try pairs.iterate(interpreter.budget))
    },
    "join": { interpreter, value, arguments in
      let values = try arguments.bound("join", ["d", "attribute"])
      let mark = try values[0]?.printed(interpreter.budget) ?? []
      let get = try getter(values[1])
      let iteration = try value.iterate(interpreter.budget)
      var (result, isFirst) = (TextBuilder(interpreter.budget), true)
      while let element = try iteration.next() {
        if !isFirst { try result.append(mark) }
        isFirst = false
        try get(interpreter, element).printed(into: &result, interpreter.budget)
      }
      return try result.value()
    },
    "reverse": { interpreter, value, arguments in
      _ = try arguments.bound("reverse", [])
      if case .string = value { return try interpreter.slice(value, [.none, .none, .int(-1)]) }
      let elements = try value.elements(interpreter.budget)
      if case .iterator = value { return try list(elements.reversed(), interpreter) }
      let held = Value.list(try Items(elements.reversed(), interpreter.budget))
      return .iterator(try held.iterate(interpreter.budget))
    },
    "sort": { interpreter, value, arguments in
      let values = try arguments.bound("sort", ["reverse", "case_sensitive", "attribute"])
      let isSensitive = values[1]?.isTrue ?? false
      // Several attributes, parted by commas, are compared one after the other.
      var keys: [(Interpreter, Value) throws -> Value] = []
      if case .string(let names) = values[2] ?? .none {
        for name in names.scalars.split(separator: ",", omittingEmptySubsequences: false) {
          keys.append(try getter(.string(Text(freeOfCharge: Scalars(name))), ignoresCase: !isSensitive))
        }
      } else {
        keys.append(try getter(values[2], ignoresCase: !isSensitive))
      }
      let elements = try value.elements(interpreter.budget)
      return try list(
        sorted(elements, isReversed: values[0]?.isTrue ?? false, interpreter) { interpreter, value in
          .list(try Items(keys.map { try $0(interpreter, value) }, interpreter.budget))
        }, interpreter)
    },
    "dictsort": { interpreter, value, arguments in
      let values = try arguments.bound("dictsort", ["case_sensitive", "by", "reverse"])
      let by = try values[1]?.text("what 'dictsort' sorts by").string ?? "key"
      guard by == "key" || by == "value" else { throw TemplateError("'dictsort' by '\(by)', expected key or value") }
      guard case .dict(let dictionary) = value else { throw TemplateError("'dictsort' of a value that is no mapping") }
      let pairs = try dictionary.entries.map { Value.tuple(try Items([$0.key, $0.value], interpreter.budget)) }
      let get = try getter(.int(by == "key" ? 0 : 1), ignoresCase: !(values[0]?.isTrue ?? false))
      return try list(sorted(pairs, isReversed: values[2]?.isTrue ?? false, interpreter, by: get), interpreter)
    },
    "unique": { interpreter, value, arguments in
      let values = try arguments.bound("unique", ["case_sensitive", "attribute"])
      let get = try getter(values[1], ignoresCase: !(values[0]?.isTrue ?? false))
      let iteration = try value.iterate(interpreter.budget)
      var seen: Set<Key> = []
      return .iterator(
        try Iteration(depth: value.depth, interpreter.budget) { [unowned interpreter] in
          while let element = try iteration.next() {
            try interpreter.budget.take(64)
            if seen.insert(try Key(get(interpreter, element), interpreter.budget)).inserted { return element }
          }
          return nil
        })
    },
    "min": { try extreme("min", $0, $1, $2) { try $0.isLess(than: $1, $2) } },
    "max": { try extreme("max", $0, $1, $2) { try $1.isLess(than: $0, $2) } },
    "sum": { interpreter, value, arguments in
      let values = try arguments.bound("sum", ["attribute", "start"])
      let get = try getter(values[0])
      let iteration = try value.iterate(interpreter.budget)
      var sum = values[1] ?? .int(0)
      guard !sum.isString else { throw TemplateError("'sum' of texts, which are joined") }
      while let element = try iteration.next() { sum = try sum.combined(.add, get(interpreter, element), interpreter) }
      return sum
    },
    "batch": { interpreter, value, arguments in
      let values = try arguments.bound("batch", ["linecount", "fill_with"], required: 1)
      let count = try (values[0] ?? .none).integer("the length of a batch")
      let fill = values[1].flatMap { $0.isNone ? nil : $0 }
      let iteration = try value.iterate(interpreter.budget)
      var isOver = false
      return .iterator(
        try Iteration(depth: max(value.depth, fill?.depth ?? 0), interpreter.budget) { [unowned interpreter] in
          guard !isOver else { return nil }
          var batch: [Value] = []
          while count < 1 || batch.count < count {
            guard let element = try iteration.next() else {
              isOver = true
              break
            }
            try interpreter.budget.require(batch.count * MemoryLayout<Value>.stride)
            batch.append(element)
          }
          if batch.isEmpty { return nil }
          if let fill, batch.count < count {
            try interpreter.budget.require((count - batch.count) * MemoryLayout<Value>.stride)
            batch += Array(repeating: fill, count: count - batch.count)
          }
          return try list(batch, interpreter)
        })
    },
    "slice": { interpreter, value, arguments in
      let values = try arguments.bound("slice", ["slices", "fill_with"], required: 1)
      let count = try (values[0] ?? .none).integer("the number of slices")
      guard count != 0 else { throw TemplateError("division by zero") }
      let fill = values[1].flatMap { $0.isNone ? nil : $0 }
      let held = try Items(value.elements(interpreter.budget), interpreter.budget)
      var (number, start) = (0, 0)
      return .iterator(
        try Iteration(depth: max(held.depth, fill?.depth ?? 0), interpreter.budget) { [unowned interpreter] in
          guard number < count else { return nil }
          let hasExtra = number < held.values.count % count
          let end = start + held.values.count / count + (hasExtra ? 1 : 0)
          var part = Array(held.values[start..<end])
          if let fill, !hasExtra { part.append(fill) }
          (number, start) = (number + 1, end)
          return try list(part, interpreter)
        })
    },
    "groupby": { interpreter, value, arguments in
      let values = try arguments.bound("groupby", ["attribute", "default", "case_sensitive"], required: 1)
      let isSensitive = values[2]?.isTrue ?? false
      let key = try getter(values[0], fallback: values[1], ignoresCase: !isSensitive)
      let shown = try getter(values[0], fallback: values[1])
      var groups: [(key: Value, values: [Value])] = []
      for element in try sorted(value.elements(interpreter.budget), isReversed: false, interpreter, by: key) {
        let own = try key(interpreter, element)
        if let last = groups.last, try last.key.equals(own, interpreter.budget) {
          groups[groups.count - 1].values.append(element)
        } else {
          groups.append((own, [element]))
        }
      }
      return try list(
        groups.map { .tuple(try Items([try shown(interpreter, $0.values[0]), list($0.values, interpreter)], interpreter.budget)) },
        interpreter)
    },
  ]

  private static func extreme(
    _ name: String, _ interpreter: Interpreter, _ value: Value, _ arguments: Arguments, _ isBetter: (Value, Value, Budget) throws -> Bool
  ) throws -> Value {
    let values = try arguments.bound(name, ["case_sensitive", "attribute"])
    let get = try getter(values[1], ignoresCase: !(values[0]?.isTrue ?? false))
    let iteration = try value.iterate(interpreter.budget)
    guard var best = try iteration.next() else { return .undefined(.hint("no aggregated item, the sequence was empty")) }
    var bestKey = try get(interpreter, best)
    while let element = try iteration.next() {
      let key = try get(interpreter, element)
      if try isBetter(key, bestKey, interpreter.budget) { (best, bestKey) = (element, key) }
    }
    return best
  }

  // MARK: Choosing and changing each

  static let selections: [String: Filter] = [
    "map": { interpreter, value, arguments in
      guard value.isTrue else { return .iterator(try Value.undefined(.hint("")).iterate(interpreter.budget)) }
      let iteration = try value.iterate(interpreter.budget)
      if arguments.positional.isEmpty, arguments.named.contains(where: { $0.name == "attribute" }) {
        let values = try arguments.bound("map", ["attribute", "default"])
        let get = try getter(values[0], fallback: values[1])
        return .iterator(
          try Iteration(depth: iteration.depth, interpreter.budget) { [unowned interpreter] in
            try iteration.next().map { try get(interpreter, $0) }
          })
      }
      guard let name = try arguments.positional.first?.text("the name of a filter").string else {
        throw TemplateError("'map' without the name of a filter")
      }
      let rest = Arguments(Array(arguments.positional.dropFirst()), named: arguments.named)
      return .iterator(
        try Iteration(depth: depth(iteration, rest), interpreter.budget) { [unowned interpreter] in
          try iteration.next().map { try interpreter.filter(name, $0, rest) }
        })
    },
    "select": { try selected($0, $1, $2, keeps: true, hasAttribute: false) },
    "reject": { try selected($0, $1, $2, keeps: false, hasAttribute: false) },
    "selectattr": { try selected($0, $1, $2, keeps: true, hasAttribute: true) },
    "rejectattr": { try selected($0, $1, $2, keeps: false, hasAttribute: true) },
  ]

  private static func depth(_ iteration: Iteration, _ arguments: Arguments) -> Int {
    (arguments.positional + arguments.named.map(\.value)).reduce(iteration.depth) { max($0, $1.depth) }
  }

  private static func selected(_ interpreter: Interpreter, _ value: Value, _ arguments: Arguments, keeps: Bool, hasAttribute: Bool) throws
    -> Value
  {
    guard value.isTrue else { return .iterator(try Value.undefined(.hint("")).iterate(interpreter.budget)) }
    let iteration = try value.iterate(interpreter.budget)
    var positional = arguments.positional[...]
    if hasAttribute, positional.isEmpty { throw TemplateError("the name of an attribute is missing") }
    let get = try getter(hasAttribute ? positional.popFirst() : nil)
    let name = try positional.popFirst()?.text("the name of a test").string
    let rest = Arguments(Array(positional), named: arguments.named)
    return .iterator(
      try Iteration(depth: depth(iteration, rest), interpreter.budget) { [unowned interpreter] in
        while let element = try iteration.next() {
          let value = try get(interpreter, element)
          if try name.map({ try interpreter.test($0, value, rest) }) ?? value.isTrue == keeps { return element }
        }
        return nil
      })
  }
}
