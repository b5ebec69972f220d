import JSON

/// Reads one object of a JSON file in which every key counts, and refuses what nobody asked for.
package struct ComponentReader {
  package let file: String
  /// The way to the object, as in `pre_tokenizer.pretokenizers[0]`; empty for the whole file.
  package let path: String
  private let object: JSON.Object
  private var asked: Set<String> = []

  package init(_ json: JSON, file: String, path: String) throws {
    guard let object = json.objectValue else {
      throw CheckpointError(file: file, place: path.isEmpty ? .file : .key(path), found: json.summary, expected: "an object")
    }
    self.file = file
    self.path = path
    self.object = object
  }

  /// The name of a key in messages.
  package func name(_ key: String) -> String { path.isEmpty ? key : path + "." + key }

  package func error(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .key(name(key)), found: found, expected: expected)
  }

  /// The value of a key; nil if it is absent or null.
  package mutating func value(_ key: String) -> JSON? {
    asked.insert(key)
    guard let value = object[key], value != .null else { return nil }
    return value
  }

  /// The value of a key that must be there.
  package mutating func required(_ key: String, _ expected: String) throws -> JSON {
    guard let value = value(key) else { throw error(key, "nothing", expected) }
    return value
  }

  package mutating func bool(_ key: String, default fallback: Bool) throws -> Bool {
    guard let value = value(key) else { return fallback }
    guard let bool = value.boolValue else { throw error(key, value.summary, "true or false") }
    return bool
  }

  /// The UTF-8 of a string; nil if it is absent or null.
  package mutating func bytes(_ key: String) throws -> [UInt8]? {
    guard let value = value(key) else { return nil }
    guard let string = value.stringValue else { throw error(key, value.summary, "a string") }
    return Array(string.utf8)
  }

  package mutating func array(_ key: String) throws -> [JSON] {
    let value = try required(key, "an array")
    guard let array = value.arrayValue else { throw error(key, value.summary, "an array") }
    return array
  }

  /// The component's type, one of those that are built.
  package mutating func type(oneOf allowed: [String]) throws -> String {
    let expected = allowed.map { "\"\($0)\"" }.joined(separator: " or ") + "; others are not built yet"
    let value = try required("type", expected)
    guard let type = value.stringValue, allowed.contains(where: { $0.utf8.elementsEqual(type.utf8) }) else {
      throw error("type", value.summary, expected)
    }
    return type
  }

  /// Throws unless a value, if there is one, is among the harmless ones.
  package mutating func require(_ key: String, _ harmless: [JSON], _ expected: String) throws {
    guard let value = value(key), !harmless.contains(value) else { return }
    throw error(key, value.summary, expected + "; other values are not built yet")
  }

  /// An object under a key; nil if it is absent or null.
  package mutating func component(_ key: String) throws -> ComponentReader? {
    try value(key).map { try ComponentReader($0, file: file, path: name(key)) }
  }

  /// The objects of an array.
  package mutating func components(_ key: String) throws -> [ComponentReader] {
    try array(key).enumerated().map { try ComponentReader($1, file: file, path: name("\(key)[\($0)]")) }
  }

  /// Throws if there is a key that was not asked for; `expected` says why there must not be.
  package func finish(_ expected: String) throws {
    for member in object.members where !asked.contains(member.key) { throw error(member.key, member.value.summary, expected) }
  }
}
