import Checkpoints

/// Typed fields of one line of a data file; errors name file, line and key.
struct LineFields {
  let json: JSON
  let file: String

  init(_ json: JSON, file: String) {
    self.json = json
    self.file = file
  }

  func string(_ key: String) throws -> String {
    guard let value = json[key]?.stringValue else { throw error(key, found(key), "a string") }
    return value
  }

  func bool(_ key: String) throws -> Bool {
    guard let value = json[key]?.boolValue else { throw error(key, found(key), "true or false") }
    return value
  }

  /// A whole number, written as a number or, as some data sets have it, as a string.
  func integer(_ key: String, in range: ClosedRange<Int>) throws -> Int {
    guard let value = json[key]?.intValue ?? json[key]?.stringValue.flatMap({ Int($0) }), range.contains(value) else {
      throw error(key, found(key), "a whole number in \(range)")
    }
    return value
  }

  func object(_ key: String) throws -> LineFields {
    guard let value = json[key], value.objectValue != nil else { throw error(key, found(key), "an object") }
    return LineFields(value, file: file)
  }

  func strings(_ key: String) throws -> [String] {
    guard let values = json[key]?.arrayValue else { throw error(key, found(key), "an array of strings") }
    return try values.map { value in
      guard let string = value.stringValue else { throw error(key, value.summary, "an array of strings") }
      return string
    }
  }

  func error(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .key(key), found: found, expected: expected)
  }

  private func found(_ key: String) -> String { json[key]?.summary ?? "nothing" }
}
