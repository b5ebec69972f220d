import Checkpoints

/// Reads typed values out of a JSON configuration and remembers which keys were asked for.
///
/// Every violation is an error that names file, key, what was found and what was expected. `null` counts as absent.
struct ConfigurationReader {
  let file: String
  let object: JSON.Object
  private(set) var known: Set<String> = []

  init(contentsOf file: String) throws {
    try self.init(JSON(contentsOf: file), file: file)
  }

  init(_ json: JSON, file: String) throws {
    guard let object = json.objectValue else {
      throw CheckpointError(file: file, found: json.summary, expected: "a JSON object")
    }
    self.file = file
    self.object = object
  }

  /// The value under `key`; nil if it is absent or null.
  mutating func value(_ key: String) -> JSON? {
    known.insert(key)
    guard let value = object[key], value != .null else { return nil }
    return value
  }

  mutating func integer(_ key: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws -> Int {
    guard let value = value(key) else {
      guard let fallback else { throw missing(key, "a whole number in \(range)") }
      return fallback
    }
    guard let integer = value.intValue, range.contains(integer) else { throw error(key, value, "a whole number in \(range)") }
    return integer
  }

  mutating func number(_ key: String, default fallback: Double? = nil, _ expected: String, where isValid: (Double) -> Bool) throws -> Double
  {
    guard let value = value(key) else {
      guard let fallback else { throw missing(key, expected) }
      return fallback
    }
    guard let number = value.doubleValue, isValid(number) else { throw error(key, value, expected) }
    return number
  }

  mutating func bool(_ key: String, default fallback: Bool) throws -> Bool {
    guard let value = value(key) else { return fallback }
    guard let bool = value.boolValue else { throw error(key, value, "true or false") }
    return bool
  }

  mutating func string(_ key: String, default fallback: String? = nil, oneOf allowed: [String]) throws -> String {
    let expected = allowed.map { "\"\($0)\"" }.joined(separator: " or ")
    guard let value = value(key) else {
      guard let fallback else { throw missing(key, expected) }
      return fallback
    }
    guard let string = value.stringValue, allowed.contains(string) else { throw error(key, value, expected) }
    return string
  }

  /// Throws if a feature that this version does not have is switched on.
  mutating func refuse(
    _ key: String, unless isOff: (JSON) -> Bool = { $0.isEmptyOrOff },
    _ expected: String = "it absent or off; this feature is not built yet"
  )
    throws
  {
    guard let value = value(key), !isOff(value) else { return }
    throw error(key, value, expected)
  }

  /// Keys that nobody asked for and that are not in `inert`.
  func unknownKeys(inert: Set<String> = []) -> [String] {
    object.keys.filter { !known.contains($0) && !inert.contains($0) }
  }

  func error(_ key: String, _ found: JSON, _ expected: String) -> CheckpointError {
    let details = found.objectValue.map { "the object " + JSON.object($0).excerpt } ?? found.summary
    return CheckpointError(file: file, place: .key(key), found: details, expected: expected)
  }

  func error(_ key: String, found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .key(key), found: found, expected: expected)
  }

  func missing(_ key: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .key(key), found: "nothing", expected: expected)
  }
}

extension JSON {
  /// null, false, 0, "", [] or {}: a switch that is off, whatever its type.
  var isEmptyOrOff: Bool {
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
