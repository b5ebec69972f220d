// What a point, brackets and a slice reach: what Python's values have and the immutable sandbox lets through, and nothing else.

extension Interpreter {
  /// `value.name`: an attribute, else an element.
  ///
  /// - Throws: ``TemplateError`` for something of what is not there.
  func attribute(_ name: String, of value: Value) throws -> Value {
    if case .undefined(let undefined) = value { throw undefined.error }
    if let member = try member(name, of: value) { return member }
    if case .dict(let dictionary) = value, let element = try dictionary.value(.string(Text(freeOfCharge: Scalars(name))), budget) {
      return element
    }
    return .undefined(.member(of: value.type, named: Scalars(name).pythonQuoted))
  }

  /// `value[key]`: an element, else an attribute.
  ///
  /// - Throws: ``TemplateError`` for something of what is not there.
  func item(_ key: Value, of value: Value) throws -> Value {
    if let element = try element(key, of: value) { return element }
    if case .string(let name) = key, let member = try member(name.string, of: value) { return member }
    var text = TextBuilder(budget)
    try key.represented(into: &text, budget)
    text.discard()
    return .undefined(.member(of: value.type, named: String(text.scalars.string.prefix(200))))
  }

  private func element(_ key: Value, of value: Value) throws -> Value? {
    func at(_ count: Int) -> Int? {
      guard let index = key.index else { return nil }
      let i = index < 0 ? index + count : index
      return (0..<count).contains(i) ? i : nil
    }
    switch value {
    case .undefined(let undefined): throw undefined.error
    case .string(let text):
      return try at(text.scalars.count).map { .string(Text(try Buffer([text.scalars[$0]], budget), isMarkup: text.isMarkup)) }
    case .list(let items), .tuple(let items): return at(items.values.count).map { items.values[$0] }
    case .range(let range): return at(range.count).map { .int(range[$0]) }
    case .dict(let dictionary):
      // A key without hash is as good as one that is not there.
      do { return try dictionary.value(key, budget) } catch let error as TemplateError {
        if case .list = key { return nil }
        if case .dict = key { return nil }
        throw error
      }
    default: return nil
    }
  }

  /// `value[start:stop:step]`.
  func slice(_ value: Value, _ bounds: [Value]) throws -> Value {
    func bound(_ value: Value) throws -> Int? { value.isNone ? nil : try value.integer("a bound of a slice") }
    let step = try bound(bounds[2]) ?? 1
    func part<Element>(_ elements: [Element]) throws -> [Element] {
      let places = try Self.places(try bound(bounds[0]), try bound(bounds[1]), step, elements.count)
      guard step != 1 else { return Array(elements[places.start..<max(places.start, places.stop)]) }
      return (0..<places.count).map { elements[places[$0]] }
    }
    switch value {
    case .undefined(let undefined): throw undefined.error
    case .string(let text): return .string(Text(try Buffer(try part(text.scalars), budget), isMarkup: text.isMarkup))
    case .list(let items): return .list(try Items(try part(items.values), budget))
    case .tuple(let items): return .tuple(try Items(try part(items.values), budget))
    case .range(let range):
      let places = try Self.places(try bound(bounds[0]), try bound(bounds[1]), step, range.count)
      return .range(Progression(start: range[places.start], stop: range[places.stop], step: range.step &* step))
    default: return .undefined(.member(of: value.type, named: "slice"))
    }
  }

  /// The places that a slice means, as `slice.indices` gives them.
  private static func places(_ start: Int?, _ stop: Int?, _ step: Int, _ count: Int) throws -> Progression {
    guard step != 0 else { throw TemplateError("a slice whose step is 0") }
    let (low, high) = step > 0 ? (0, count) : (-1, count - 1)
    func place(_ bound: Int?, _ fallback: Int) -> Int { bound.map { min(max($0 < 0 ? $0 + count : $0, low), high) } ?? fallback }
    let (first, last) = (place(start, step > 0 ? low : high), place(stop, step > 0 ? high : low))
    // A step beyond all places is as good as one that just leaves them.
    return Progression(start: first, stop: last, step: min(max(step, -count - 1), count + 1))
  }

  // MARK: Attributes of Python's values

  /// The attribute of a value; nil if it has none of that name, and what is not there where the sandbox keeps it.
  private func member(_ name: String, of value: Value) throws -> Value? {
    let unsafe = Value.undefined(.unsafe(of: value.type, named: name))
    if name.hasPrefix("_") {
      if Self.internals.contains(name) { return unsafe }
      if case .namespace(let namespace) = value, namespace[name] != nil { return unsafe }
      return nil
    }
    switch value {
    case .string(let text): return StringMethods.all[name].map { method in bound(name, to: value) { try method($0, text, $1) } }
    case .dict(let dictionary):
      if ["clear", "pop", "popitem", "setdefault", "update"].contains(name) { return unsafe }
      return DictionaryMethods.all[name].map { method in bound(name, to: value) { try method($0, dictionary, $1) } }
    case .list(let items):
      if ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"].contains(name) { return unsafe }
      if name == "copy" { return bound(name, to: value) { _, _ in value } }
      return SequenceMethods.all[name].map { method in bound(name, to: value) { try method($0, items.values, $1) } }
    case .tuple(let items): return SequenceMethods.all[name].map { method in bound(name, to: value) { try method($0, items.values, $1) } }
    case .int, .bool, .float: return NumberMethods.attribute(name, of: value)
    case .namespace(let namespace): return namespace[name]
    case .loop(let loop): return try loop.attribute(name, budget)
    case .function(let function): return function.attribute(name)
    case .range(let range):
      switch name {
      case "start": return .int(range.start)
      case "stop": return .int(range.stop)
      case "step": return .int(range.step)
      default: return nil
      }
    case .undefined, .none, .view, .iterator: return nil
    }
  }

  private func bound(_ name: String, to value: Value, _ body: @escaping (Interpreter, Arguments) throws -> Value) -> Value {
    .function(Function(name, depth: value.depth, body))
  }

  /// What every value of Python has and the sandbox gives nobody.
  private static let internals: Set<String> = [
    "__class__", "__delattr__", "__dir__", "__doc__", "__eq__", "__format__", "__ge__", "__getattribute__", "__getstate__", "__gt__",
    "__hash__", "__init__", "__init_subclass__", "__le__", "__lt__", "__ne__", "__new__", "__reduce__", "__reduce_ex__", "__repr__",
    "__setattr__", "__sizeof__", "__str__", "__subclasshook__",
  ]
}

// MARK: Methods of values that are no texts

/// Methods of `dict` that change nothing.
enum DictionaryMethods {
  typealias Method = @Sendable (Interpreter, Dictionary, Arguments) throws -> Value

  static let all: [String: Method] = [
    "get": { interpreter, dictionary, arguments in
      guard arguments.named.isEmpty else { throw TemplateError("'get' takes no keyword arguments") }
      let values = try arguments.bound("get", ["key", "default"], required: 1)
      return try dictionary.value(values[0] ?? .none, interpreter.budget) ?? values[1] ?? .none
    },
    "keys": { _, dictionary, arguments in try view(.keys, dictionary, arguments) },
    "values": { _, dictionary, arguments in try view(.values, dictionary, arguments) },
    "items": { _, dictionary, arguments in try view(.items, dictionary, arguments) },
    "copy": { _, dictionary, _ in .dict(dictionary) },
  ]

  private static func view(_ part: DictionaryView.Part, _ dictionary: Dictionary, _ arguments: Arguments) throws -> Value {
    _ = try arguments.bound(part.rawValue, [])
    return .view(DictionaryView(dictionary: dictionary, part: part))
  }
}

/// Methods of `list` and `tuple` that change nothing.
enum SequenceMethods {
  typealias Method = @Sendable (Interpreter, [Value], Arguments) throws -> Value

  static let all: [String: Method] = [
    "count": { interpreter, values, arguments in
      let wanted = try arguments.bound("count", ["value"], required: 1)[0] ?? .none
      return .int(try values.reduce(0) { try $0 + ($1.equals(wanted, interpreter.budget) ? 1 : 0) })
    },
    "index": { interpreter, values, arguments in
      let bounds = try arguments.bound("index", ["value", "start", "stop"], required: 1)
      func place(_ value: Value?, _ fallback: Int) throws -> Int {
        guard let index = try value?.integer("a bound of 'index'") else { return fallback }
        return min(max(index < 0 ? index + values.count : index, 0), values.count)
      }
      let (start, stop) = (try place(bounds[1], 0), try place(bounds[2], values.count))
      for i in start..<max(start, stop) where try values[i].equals(bounds[0] ?? .none, interpreter.budget) { return .int(i) }
      throw TemplateError("'index': the value is not in the list")
    },
  ]
}

/// Attributes of numbers.
enum NumberMethods {
  static func attribute(_ name: String, of value: Value) -> Value? {
    switch (name, value) {
    case ("real", .float), ("real", .int): value
    case ("imag", .float): .float(0)
    case ("imag", _): .int(0)
    case ("real", _), ("numerator", .bool), ("numerator", .int): .int(value.index ?? 0)
    case ("denominator", .bool), ("denominator", .int): .int(1)
    case ("is_integer", .float(let number)):
      .function(Function(name) { _, _ in .bool(number.isFinite && number == number.rounded(.towardZero)) })
    case ("bit_length", .int(let number)):
      .function(Function(name) { _, _ in .int(Int.bitWidth - number.magnitude.leadingZeroBitCount) })
    default: nil
    }
  }
}
