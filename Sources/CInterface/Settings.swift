import MixLoRA
import Platform

/// The settings of a call: one JSON object, of which every key must be read.
struct Settings {
  let reader: JSONReader

  init(_ text: UnsafePointer<CChar>?) throws {
    guard let text else { throw InterfaceError("found NULL; expected settings, a JSON object") }
    let json = try JSON(parsing: UnsafeBufferPointer(start: text, count: length(of: text)).map { UInt8(bitPattern: $0) }, file: Self.name)
    reader = try JSONReader(json, file: Self.name)
  }

  private static let name = "settings"

  /// Throws if there is a key that nobody asked for; the error lists those that were.
  func finish() throws { try reader.finish("no such setting; there are \(reader.askedNames.joined(separator: ", "))") }

  // MARK: Values; what is absent leaves what is there

  func take(_ value: inout String, _ key: String) throws { if reader.value(key) != nil { value = try reader.string(key) } }
  func take(_ value: inout String?, _ key: String) throws { if reader.value(key) != nil { value = try reader.string(key) } }
  func take(_ value: inout Bool, _ key: String) throws { value = try reader.bool(key, default: value) }

  func take(_ value: inout Int, _ key: String) throws { value = try reader.integer(key, in: Int.min...Int.max, default: value) }
  func take(_ value: inout Int?, _ key: String, from least: Int = .min) throws {
    if reader.value(key) != nil { value = try reader.integer(key, in: least...Int.max) }
  }
  func take(_ value: inout UInt64, _ key: String) throws {
    if reader.value(key) != nil { value = UInt64(try reader.integer(key, in: 0...Int.max)) }
  }

  func take(_ value: inout Double, _ key: String) throws { value = try reader.number(key, default: value, "a number") { $0.isFinite } }
  func take(_ value: inout Double?, _ key: String) throws {
    if reader.value(key) != nil { value = try reader.number(key, "a number ≥ 0") { $0.isFinite && $0 >= 0 } }
  }

  func take<Choice: RawRepresentable & CaseIterable>(_ value: inout Choice, _ key: String) throws where Choice.RawValue == String {
    let name = try reader.string(key, default: value.rawValue, oneOf: Choice.allCases.map(\.rawValue))
    value = Choice(rawValue: name) ?? value
  }
  func take<Choice: RawRepresentable & CaseIterable>(_ value: inout Choice?, _ key: String) throws where Choice.RawValue == String {
    guard reader.value(key) != nil else { return }
    value = Choice(rawValue: try reader.string(key, oneOf: Choice.allCases.map(\.rawValue)))
  }

  func strings(_ key: String) throws -> [String] { reader.value(key) == nil ? [] : try reader.strings(key) }

  /// The threads of a backend.
  func threads() throws -> Int { try reader.integer("threads", in: 1...1024, default: POSIX.usableCores) }
}

/// The arithmetic of a model.
enum Arithmetic: String, CaseIterable {
  case float32
  case float64
}

/// A path or a name from C.
///
/// - Throws: `InterfaceError` for NULL.
func string(_ text: UnsafePointer<CChar>?, _ expected: String) throws -> String {
  guard let text else { throw InterfaceError("found NULL; expected \(expected)") }
  return String(cString: text)
}

private func length(of text: UnsafePointer<CChar>) -> Int {
  var length = 0
  while text[length] != 0 { length += 1 }
  return length
}

extension JSON {
  /// An object of members in this order.
  static func members(_ members: [(key: String, value: JSON)]) -> JSON {
    var object = Object()
    for (key, value) in members { object[key] = value }
    return .object(object)
  }
}
