import JSON

/// A value of a template: one of Python's, or what Jinja adds to them.
///
/// Lists and dictionaries never change, since the immutable sandbox lets nobody change them; a namespace does.
enum Value {
  /// A variable, attribute or element that is not there.
  indirect case undefined(Undefined)
  case none
  case bool(Bool)
  case int(Int)
  case float(Double)
  case string(Text)
  case list(Items)
  case tuple(Items)
  case dict(Dictionary)
  indirect case range(Progression)
  case view(DictionaryView)
  case iterator(Iteration)
  case namespace(Namespace)
  case loop(LoopState)
  case function(Function)

  /// The type's name in Python.
  var type: String {
    switch self {
    case .undefined: "Undefined"
    case .none: "NoneType"
    case .bool: "bool"
    case .int: "int"
    case .float: "float"
    case .string(let text): text.isMarkup ? "Markup" : "str"
    case .list: "list"
    case .tuple: "tuple"
    case .dict: "dict"
    case .range: "range"
    case .view(let view): view.part.type
    case .iterator(let iteration): iteration.type
    case .namespace: "Namespace"
    case .loop: "LoopContext"
    case .function(let function): function.type
    }
  }

  /// How many values lie inside of each other, this one included. What the depth of a namespace would be is not its holder's concern:
  /// it is a reference.
  var depth: Int {
    switch self {
    case .list(let items), .tuple(let items): items.depth
    case .dict(let dictionary): dictionary.depth
    case .view(let view): view.dictionary.depth
    case .iterator(let iteration): iteration.depth
    case .function(let function): function.depth
    case .loop(let loop): loop.depth
    default: 1
    }
  }

  var isUndefined: Bool { if case .undefined = self { true } else { false } }
  var isNone: Bool { if case .none = self { true } else { false } }
  /// Whether it is a `str`, `Markup` too.
  var isString: Bool { if case .string = self { true } else { false } }

  /// The truth value.
  var isTrue: Bool {
    switch self {
    case .undefined, .none: false
    case .bool(let value): value
    case .int(let value): value != 0
    case .float(let value): value != 0
    case .string(let text): !text.scalars.isEmpty
    case .list(let items), .tuple(let items): !items.values.isEmpty
    case .dict(let dictionary): !dictionary.entries.isEmpty
    case .view(let view): !view.dictionary.entries.isEmpty
    case .range(let range): range.count > 0
    case .iterator, .namespace, .loop, .function: true
    }
  }

  /// The whole number that stands for an index or a count; nil if it is none.
  var index: Int? {
    switch self {
    case .int(let value): value
    case .bool(let value): value ? 1 : 0
    default: nil
    }
  }

  /// The number; nil if it is none.
  var number: Double? {
    if case .float(let value) = self { value } else { index.map(Double.init) }
  }
}

/// What is not there, and why. It prints as nothing, is false and empty, and whatever else is done with it is an error.
enum Undefined {
  /// A variable.
  case variable(String)
  /// An attribute or element of a value of a type.
  case member(of: String, named: String)
  /// For a reason.
  case hint(String)
  /// What the sandbox keeps.
  case unsafe(of: String, named: String)

  var problem: String {
    switch self {
    case .variable(let name): "'\(name)' is undefined"
    case .member(let type, let name): "'\(type)' has no attribute or element \(name)"
    case .hint(let hint): hint
    case .unsafe(let type, let name): "access to attribute \(name) of '\(type)' is not safe"
    }
  }

  var error: TemplateError { TemplateError(problem) }
}

/// What a list or tuple holds.
struct Items {
  private let buffer: Buffer<Value>
  let depth: Int

  var values: [Value] { buffer.elements }

  /// - Throws: ``TemplateError`` for what lies too deep or is too much.
  init(_ values: [Value], _ budget: Budget?) throws {
    var depth = 1
    for value in values { depth = max(depth, value.depth + 1) }
    guard depth <= Budget.depth else { throw TemplateError("values nested more than \(Budget.depth) deep") }
    buffer = try Buffer(values, budget)
    self.depth = depth
  }
}

/// Python's `dict`: its entries in the order in which they came.
final class Dictionary {
  let entries: [(key: Value, value: Value)]
  let depth: Int
  private let index: [Key: Int]
  private let budget: Budget?

  private static func bytes(_ count: Int) -> Int { 96 + 160 * count }

  /// - Throws: ``TemplateError`` for a key that has no hash, and as `Items`.
  init(_ pairs: [(key: Value, value: Value)], _ budget: Budget?) throws {
    var entries: [(key: Value, value: Value)] = []
    var index: [Key: Int] = [:]
    var depth = 1
    try budget?.spend(pairs.count)
    for pair in pairs {
      let key = try Key(pair.key, budget)
      depth = max(depth, pair.value.depth + 1, pair.key.depth + 1)
      if let i = index[key] {
        entries[i].value = pair.value
      } else {
        index[key] = entries.count
        entries.append(pair)
      }
    }
    guard depth <= Budget.depth else { throw TemplateError("values nested more than \(Budget.depth) deep") }
    try budget?.take(Self.bytes(entries.count))
    (self.entries, self.index, self.depth, self.budget) = (entries, index, depth, budget)
  }

  deinit { budget?.release(Self.bytes(entries.count)) }

  /// The value of a key; nil if there is none.
  ///
  /// - Throws: ``TemplateError`` for a key that has no hash.
  func value(_ key: Value, _ budget: Budget?) throws -> Value? { try index[Key(key, budget)].map { entries[$0].value } }
}

/// What equal values have in common: `1`, `1.0` and `True` are one key.
enum Key: Hashable {
  case undefined, none
  case int(Int)
  case float(Double)
  case string(Scalars)
  case tuple([Key])
  case identity(ObjectIdentifier)

  /// - Throws: ``TemplateError`` for a value that has no hash.
  init(_ value: Value, _ budget: Budget?) throws {
    try budget?.spend(8)
    switch value {
    case .undefined: self = .undefined
    case .none: self = .none
    case .bool(let bool): self = .int(bool ? 1 : 0)
    case .int(let int): self = .int(int)
    case .float(let float): self = Int(exactly: float).map(Key.int) ?? .float(float)
    case .string(let text): self = .string(text.scalars)
    case .tuple(let items): self = .tuple(try items.values.map { try Key($0, budget) })
    case .namespace(let namespace): self = .identity(ObjectIdentifier(namespace))
    case .function(let function): self = .identity(ObjectIdentifier(function))
    case .iterator(let iteration): self = .identity(ObjectIdentifier(iteration))
    case .loop(let loop): self = .identity(ObjectIdentifier(loop))
    case .list, .dict, .range, .view: throw TemplateError("a key of the type '\(value.type)', which has no hash")
    }
  }
}

/// Python's `range`.
struct Progression: Equatable {
  let start: Int
  let stop: Int
  let step: Int

  var count: Int {
    let (low, high) = step > 0 ? (start, stop) : (stop, start)
    // The distance of two integers fits into a word without sign.
    return high > low ? Int(clamping: (UInt(bitPattern: high) &- UInt(bitPattern: low) - 1) / step.magnitude + 1) : 0
  }

  subscript(i: Int) -> Int { start &+ i &* step }
}

/// `keys()`, `values()` or `items()` of a dictionary.
struct DictionaryView {
  /// Which of them.
  enum Part: String {
    case keys, values, items

    var type: String { "dict_" + rawValue }
  }

  let dictionary: Dictionary
  let part: Part

  func element(_ i: Int, _ budget: Budget) throws -> Value {
    let entry = dictionary.entries[i]
    return switch part {
    case .keys: entry.key
    case .values: entry.value
    case .items: .tuple(try Items([entry.key, entry.value], budget))
    }
  }
}

/// Values that come one after the other, and once.
final class Iteration {
  let type: String
  let depth: Int
  private let advance: () throws -> Value?
  private let budget: Budget?

  /// - Parameter depth: that of what the closure holds.
  init(_ type: String = "generator", depth: Int, _ budget: Budget?, _ advance: @escaping () throws -> Value?) throws {
    guard depth < Budget.depth else { throw TemplateError("values nested more than \(Budget.depth) deep") }
    try budget?.take(256)
    (self.type, self.depth, self.advance, self.budget) = (type, depth + 1, advance, budget)
  }

  deinit { budget?.release(256) }

  func next() throws -> Value? {
    try budget?.spend()
    return try advance()
  }
}

/// A thing with attributes that `set` may change.
final class Namespace {
  /// The attributes' names, in the order in which they came.
  private(set) var names: [String] = []
  private var values: [String: Value] = [:]

  subscript(name: String) -> Value? {
    get { values[name] }
    set {
      if values.updateValue(newValue ?? .none, forKey: name) == nil { names.append(name) }
    }
  }

  /// Lets go of all values, so that namespaces that hold each other are freed.
  func clear() {
    names = []
    values = [:]
  }
}

/// What can be called.
final class Function {
  let name: String
  let type: String
  let depth: Int
  let body: (Interpreter, Arguments) throws -> Value
  /// Attributes that it has beside those that the sandbox keeps.
  let attribute: (String) -> Value?

  init(
    _ name: String, type: String = "builtin_function_or_method", depth: Int = 1, attribute: @escaping (String) -> Value? = { _ in nil },
    _ body: @escaping (Interpreter, Arguments) throws -> Value
  ) {
    (self.name, self.type, self.depth, self.attribute, self.body) = (name, type, depth, attribute, body)
  }
}

// MARK: JSON

extension Value {
  /// The value that `json.loads` makes.
  ///
  /// - Throws: ``TemplateError`` for an integer beyond 64 bits.
  init(_ json: JSON) throws {
    switch json {
    case .null: self = .none
    case .bool(let value): self = .bool(value)
    case .string(let text): self = .string(Text(freeOfCharge: Scalars(text)))
    case .array(let elements): self = .list(try Items(elements.map(Value.init), nil))
    case .object(let object):
      self = .dict(
        try Dictionary(object.members.map { (key: .string(Text(freeOfCharge: Scalars($0.key))), value: try Value($0.value)) }, nil))
    case .number(let number):
      if number.text.utf8.contains(where: { ".eE".utf8.contains($0) }) {
        self = .float(number.double)
      } else if let value = Int(number.text) {
        self = .int(value)
      } else {
        throw TemplateError("the integer \(number.text.prefix(40)), expected one of 64 bits")
      }
    }
  }
}
