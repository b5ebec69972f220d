/// What stands behind `is`.
enum Tests {
  typealias Test = @Sendable (Interpreter, Value, Arguments) throws -> Bool

  static let all: [String: Test] = kinds.merging(numbers) { $1 }.merging(comparisons) { $1 }

  private static func plain(_ test: @escaping @Sendable (Value) throws -> Bool) -> Test {
    { _, value, arguments in
      _ = try arguments.bound("a test", [])
      return try test(value)
    }
  }

  private static let kinds: [String: Test] = [
    "defined": plain { !$0.isUndefined },
    "undefined": plain { $0.isUndefined },
    "none": plain { $0.isNone },
    "boolean": plain { if case .bool = $0 { true } else { false } },
    "true": plain { if case .bool(true) = $0 { true } else { false } },
    "false": plain { if case .bool(false) = $0 { true } else { false } },
    "integer": plain { if case .int = $0 { true } else { false } },
    "float": plain { if case .float = $0 { true } else { false } },
    "number": plain { $0.number != nil },
    "string": plain { $0.isString },
    "mapping": plain { if case .dict = $0 { true } else { false } },
    "sequence": plain { value in
      switch value {
      case .undefined, .string, .list, .tuple, .dict, .range: true
      default: false
      }
    },
    "iterable": plain { value in
      switch value {
      case .none, .bool, .int, .float, .namespace, .function: false
      default: true
      }
    },
    "callable": plain { value in
      switch value {
      case .function, .loop, .undefined: true
      default: false
      }
    },
    "escaped": plain { if case .string(let text) = $0 { text.isMarkup } else { false } },
    "filter": plain { Filters.all[try $0.text("the name of a filter").string] != nil },
    "test": plain { Tests.all[try $0.text("the name of a test").string] != nil },
    "lower": { interpreter, value, _ in try value.printed(interpreter.budget).isAll(\.isLower, not: \.isUpper) },
    "upper": { interpreter, value, _ in try value.printed(interpreter.budget).isAll(\.isUpper, not: \.isLower) },
    "in": { interpreter, value, arguments in
      try (try arguments.bound("in", ["seq"], required: 1)[0] ?? .none).contains(value, interpreter.budget)
    },
    "sameas": { interpreter, value, arguments in
      let other = try arguments.bound("sameas", ["other"], required: 1)[0] ?? .none
      return try value.type == other.type && value.equals(other, interpreter.budget)
    },
  ]

  private static func remainder(_ value: Value, _ divisor: Value, _ interpreter: Interpreter) throws -> Value {
    try value.combined(.modulo, divisor, interpreter)
  }

  private static let numbers: [String: Test] = [
    "odd": { interpreter, value, _ in try remainder(value, .int(2), interpreter).equals(.int(1), interpreter.budget) },
    "even": { interpreter, value, _ in try remainder(value, .int(2), interpreter).equals(.int(0), interpreter.budget) },
    "divisibleby": { interpreter, value, arguments in
      let divisor = try arguments.bound("divisibleby", ["num"], required: 1)[0] ?? .none
      return try remainder(value, divisor, interpreter).equals(.int(0), interpreter.budget)
    },
  ]

  private static let comparisons: [String: Test] = {
    let names: [(Expression.Comparison, [String])] = [
      (.equal, ["==", "eq", "equalto"]), (.unequal, ["!=", "ne"]), (.greater, [">", "gt", "greaterthan"]), (.greaterOrEqual, [">=", "ge"]),
      (.less, ["<", "lt", "lessthan"]), (.lessOrEqual, ["<=", "le"]),
    ]
    var tests: [String: Test] = [:]
    for (comparison, names) in names {
      for name in names {
        tests[name] = { interpreter, value, arguments in
          try interpreter.compare(value, comparison, try arguments.bound(name, ["other"], required: 1)[0] ?? .none)
        }
      }
    }
    return tests
  }()
}
