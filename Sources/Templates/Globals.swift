/// Functions that every template has.
enum Globals {
  /// The function of a name; nil if there is none.
  static subscript(name: String) -> Value? {
    functions[name].map { body in .function(Function(name, type: name == "namespace" ? "type" : "function", body)) }
  }

  private static let mostElements = 100_000

  private static let functions: [String: @Sendable (Interpreter, Arguments) throws -> Value] = [
    "range": { _, arguments in
      guard arguments.named.isEmpty, (1...3).contains(arguments.positional.count) else {
        throw TemplateError("'range' takes 1 to 3 integers")
      }
      let bounds = try arguments.positional.map { try $0.integer("an argument of 'range'") }
      let step = bounds.count > 2 ? bounds[2] : 1
      guard step != 0 else { throw TemplateError("'range' with a step of 0") }
      let range = Progression(start: bounds.count > 1 ? bounds[0] : 0, stop: bounds.count > 1 ? bounds[1] : bounds[0], step: step)
      guard range.count <= mostElements else { throw TemplateError("a range of \(range.count) numbers, expected at most \(mostElements)") }
      return .range(range)
    },
    "dict": { interpreter, arguments in .dict(try Dictionary(pairs("dict", arguments, interpreter), interpreter.budget)) },
    "namespace": { interpreter, arguments in
      let namespace = try interpreter.namespace()
      for pair in try pairs("namespace", arguments, interpreter) {
        try interpreter.budget.take(64)
        namespace[try pair.key.text("the name of an attribute").string] = pair.value
      }
      return .namespace(namespace)
    },
    "raise_exception": { interpreter, arguments in
      let message = try arguments.bound("raise_exception", ["message"], required: 1)[0] ?? .none
      throw TemplateError(String(try message.printed(interpreter.budget).string.prefix(1000)), isRaised: true)
    },
    "strftime_now": { interpreter, arguments in
      let form = try (try arguments.bound("strftime_now", ["format"], required: 1)[0] ?? .none).text("the form of a date")
      guard let text = interpreter.now(form.string) else { throw TemplateError("a date in the form \(form.pythonQuoted.prefix(200))") }
      return .string(Text(try Buffer(Scalars(text), interpreter.budget)))
    },
    "cycler": { interpreter, arguments in try cycler(arguments.positional, interpreter) },
    "joiner": { interpreter, arguments in
      let mark = try arguments.bound("joiner", ["sep"])[0] ?? .string(Text(freeOfCharge: Scalars(", ")))
      let held = try Items([mark], interpreter.budget)
      var isUsed = false
      return .function(
        Function("joiner", type: "Joiner", depth: held.depth + 1) { _, _ in
          defer { isUsed = true }
          return isUsed ? held.values[0] : .string(Text(freeOfCharge: []))
        })
    },
  ]

  /// What a mapping or pairs and keyword arguments say together.
  private static func pairs(_ name: String, _ arguments: Arguments, _ interpreter: Interpreter) throws -> [(key: Value, value: Value)] {
    guard arguments.positional.count <= 1 else { throw TemplateError("'\(name)' takes at most one argument without a name") }
    var pairs: [(key: Value, value: Value)] = []
    if let first = arguments.positional.first {
      if case .dict(let dictionary) = first {
        pairs = dictionary.entries
      } else {
        for pair in try first.elements(interpreter.budget) {
          let pair = try pair.elements(interpreter.budget)
          guard pair.count == 2 else { throw TemplateError("'\(name)' takes pairs, found \(pair.count) values") }
          pairs.append((pair[0], pair[1]))
        }
      }
    }
    return pairs + arguments.named.map { (.string(Text(freeOfCharge: Scalars($0.name))), $0.value) }
  }

  private static func cycler(_ items: [Value], _ interpreter: Interpreter) throws -> Value {
    guard !items.isEmpty else { throw TemplateError("'cycler' without a value") }
    let held = try Items(items, interpreter.budget)
    var place = 0
    let next = Function("next", depth: held.depth) { _, _ in
      defer { place = (place + 1) % held.values.count }
      return held.values[place]
    }
    let reset = Function("reset") { _, _ in
      place = 0
      return .none
    }
    return .function(
      Function(
        "cycler", type: "Cycler", depth: held.depth + 1,
        attribute: { name in
          switch name {
          case "next": .function(next)
          case "reset": .function(reset)
          case "current": held.values[place]
          default: nil
          }
        }
      ) { _, _ in throw TemplateError("a value of the type 'Cycler' is called") })
  }
}
