/// A value that stands under a key: of a JSON object, or in the metadata of a GGUF file.
package protocol KeyedValue {
  /// Whether it stands for an absent value.
  var isNull: Bool { get }
  /// The truth value; nil if it is none.
  var boolValue: Bool? { get }
  /// The whole number; nil if it is none or beyond `Int`.
  var intValue: Int? { get }
  /// The number, whole ones included; nil if it is none.
  var doubleValue: Double? { get }
  /// The text; nil if it is none.
  var stringValue: String? { get }
  /// The value in a few words, for messages.
  var summary: String { get }
}

extension JSON: KeyedValue {
  /// Whether it is `null`.
  package var isNull: Bool { self == .null }
}

package typealias JSONReader = KeyedReader<JSON>

/// Reads typed values by their keys and remembers which keys were asked for, so that what nobody asked for can be refused or listed.
///
/// Every violation is a `CheckpointError` that names file, key, what was found and what was expected. Copies share their memory.
package struct KeyedReader<Value: KeyedValue> {
  /// What messages call the file.
  package let file: String
  /// What stands before the point and a key in messages, such as `pre_tokenizer.pretokenizers[0]`; empty for the whole file.
  package let path: String
  /// Keys as messages name them, in the order of the file.
  private let names: [String]
  private let lookup: (String) -> Value?
  private let describe: (Value) -> String
  /// Whether null is as good as no value.
  private let dropsNull: Bool
  private let asked = Asked()

  private final class Asked { var names: Set<String> = [] }

  /// - Parameters:
  ///   - names: all keys, with the path before them.
  ///   - describe: a found value in the words of a message.
  ///   - lookup: the value of a key, without the path.
  package init(
    file: String, path: String, names: [String], dropsNull: Bool = true, describe: @escaping (Value) -> String = { $0.summary },
    lookup: @escaping (String) -> Value?
  ) {
    (self.file, self.path, self.names, self.dropsNull) = (file, path, names, dropsNull)
    (self.describe, self.lookup) = (describe, lookup)
  }

  /// The name of a key in messages.
  package func name(_ key: String) -> String { path.isEmpty ? key : path + "." + key }

  package func error(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .key(name(key)), found: found, expected: expected)
  }

  package func error(_ key: String, _ found: Value, _ expected: String) -> CheckpointError { error(key, describe(found), expected) }

  /// What stands under a key, null too, without remembering it.
  package subscript(key: String) -> Value? { lookup(key) }

  /// The value of a key; nil if it is absent or null.
  package func value(_ key: String) -> Value? {
    asked.names.insert(name(key))
    guard let value = lookup(key), !(dropsNull && value.isNull) else { return nil }
    return value
  }

  /// The value of a key that must be there.
  package func required(_ key: String, _ expected: String) throws -> Value {
    guard let value = value(key) else { throw error(key, "nothing", expected) }
    return value
  }

  package func bool(_ key: String, default fallback: Bool? = nil) throws -> Bool {
    let expected = "true or false"
    guard let value = try value(key, or: fallback, expected) else { return fallback ?? false }
    guard let bool = value.boolValue else { throw error(key, value, expected) }
    return bool
  }

  package func integer(_ key: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws -> Int {
    let expected = "a whole number in \(range)"
    guard let value = value(key) else {
      guard let fallback, range.contains(fallback) else { throw error(key, fallback.map { "nothing, hence \($0)" } ?? "nothing", expected) }
      return fallback
    }
    guard let integer = value.intValue, range.contains(integer) else { throw error(key, value, expected) }
    return integer
  }

  package func number(_ key: String, default fallback: Double? = nil, _ expected: String, where isValid: (Double) -> Bool) throws -> Double
  {
    guard let value = try value(key, or: fallback, expected) else { return fallback ?? .nan }
    guard let number = value.doubleValue, isValid(number) else { throw error(key, value, expected) }
    return number
  }

  package func string(_ key: String) throws -> String {
    let value = try required(key, "a string")
    guard let string = value.stringValue else { throw error(key, value, "a string") }
    return string
  }

  package func string(_ key: String, default fallback: String? = nil, oneOf allowed: [String]) throws -> String {
    let expected = allowed.map { "\"\($0)\"" }.joined(separator: " or ")
    guard let value = try value(key, or: fallback, expected) else { return fallback ?? "" }
    guard let string = value.stringValue, allowed.contains(string) else { throw error(key, value, expected) }
    return string
  }

  /// Throws if there is a value that says something which is not built.
  package func refuse(_ key: String, unless isHarmless: (Value) -> Bool, _ expected: String) throws {
    guard let value = value(key), !isHarmless(value) else { return }
    throw error(key, value, expected)
  }

  /// Keys that were asked for, whether there or not, in alphabetical order.
  package var askedNames: [String] { asked.names.sorted() }

  /// Keys that nobody asked for, named as in messages, in the order of the file.
  package var unknownNames: [String] { names.filter { !asked.names.contains($0) } }

  /// The value of a key; nil if it is absent and there is a fallback.
  private func value<T>(_ key: String, or fallback: T?, _ expected: String) throws -> Value? {
    guard let value = value(key) else {
      guard fallback != nil else { throw error(key, "nothing", expected) }
      return nil
    }
    return value
  }
}

// MARK: Objects of JSON

extension KeyedReader where Value == JSON {
  /// Reads an object.
  ///
  /// - Throws: `CheckpointError` for any other value.
  package init(
    _ json: JSON, file: String, path: String = "", _ expected: String = "an object", describe: @escaping (JSON) -> String = { $0.summary }
  ) throws {
    guard let object = json.objectValue else {
      throw CheckpointError(file: file, place: path.isEmpty ? .file : .key(path), found: json.summary, expected: expected)
    }
    self.init(
      file: file, path: path, names: object.keys.map { path.isEmpty ? $0 : path + "." + $0 }, describe: describe, lookup: { object[$0] })
  }

  /// Reads the fields of a record, in which null is a value like others; a record that is no object has none.
  package init(fieldsOf json: JSON, file: String) {
    self.init(file: file, path: "", names: json.objectValue?.keys ?? [], dropsNull: false, lookup: { json[$0] })
  }

  /// Throws if a feature that this version does not have is switched on.
  package func refuse(_ key: String, _ expected: String = Self.unbuilt) throws {
    try refuse(key, unless: { $0.isEmptyOrOff }, expected)
  }

  /// As above; `isOff` says which values switch it off.
  package func refuse(_ key: String, unless isOff: (JSON) -> Bool) throws { try refuse(key, unless: isOff, Self.unbuilt) }

  package static var unbuilt: String { "no such key, or one that is off; this feature is not built yet" }

  /// Throws unless a value, if there is one, is among the harmless ones.
  package func require(_ key: String, _ harmless: [JSON], _ expected: String) throws {
    try refuse(key, unless: harmless.contains, expected + "; other values are not built yet")
  }

  /// The UTF-8 of a string; nil if it is absent or null.
  package func bytes(_ key: String) throws -> [UInt8]? {
    guard let value = value(key) else { return nil }
    guard let string = value.stringValue else { throw error(key, value, "a string") }
    return Array(string.utf8)
  }

  package func array(_ key: String) throws -> [JSON] {
    let value = try required(key, "an array")
    guard let array = value.arrayValue else { throw error(key, value, "an array") }
    return array
  }

  package func strings(_ key: String) throws -> [String] {
    let expected = "an array of strings"
    let value = try required(key, expected)
    guard let values = value.arrayValue else { throw error(key, value, expected) }
    return try values.map { value in
      guard let string = value.stringValue else { throw error(key, value, expected) }
      return string
    }
  }

  /// The component's type, one of those that are built.
  package func type(oneOf allowed: [String]) throws -> String {
    let expected = allowed.map { "\"\($0)\"" }.joined(separator: " or ") + "; others are not built yet"
    let value = try required("type", expected)
    guard let type = value.stringValue, allowed.contains(where: { $0.utf8.elementsEqual(type.utf8) }) else {
      throw error("type", value, expected)
    }
    return type
  }

  /// An object under a key; nil if it is absent or null.
  package func component(_ key: String) throws -> JSONReader? {
    try value(key).map { try JSONReader($0, file: file, path: name(key)) }
  }

  /// The objects of an array.
  package func components(_ key: String) throws -> [JSONReader] {
    try array(key).enumerated().map { try JSONReader($1, file: file, path: name("\(key)[\($0)]")) }
  }

  /// Throws if there is a key that was not asked for; `expected` says why there must not be.
  package func finish(_ expected: String) throws {
    guard let name = unknownNames.first else { return }
    let key = String(decoding: path.isEmpty ? name.utf8[...] : name.utf8.dropFirst(path.utf8.count + 1), as: UTF8.self)
    throw error(key, lookup(key) ?? .null, expected)
  }
}

extension JSON {
  /// null, false, 0, "", [] or {}: a switch that is off, whatever its type.
  package var isEmptyOrOff: Bool {
    switch self {
    case .null: true
    case .bool(let value): !value
    case .number(let value): value.double == 0
    case .string(let value): value.isEmpty
    case .array(let value): value.isEmpty
    case .object(let value): value.count == 0
    }
  }
}
