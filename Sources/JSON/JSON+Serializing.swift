extension JSON {
  /// How much white space a text gets.
  public enum Style: Sendable {
    /// None: one line, for programs.
    case compact
    /// A line per element, indented by so many spaces per level, for files that people read.
    case indented(Int)
  }

  /// The value as RFC 8259 text: members in order, strings with the fewest escapes, numbers as they are kept.
  ///
  /// - Complexity: O(length of the text).
  public func serialized(_ style: Style = .compact) -> String {
    var text = ""
    append(to: &text, style, level: 0)
    return text
  }

  private func append(to text: inout String, _ style: Style, level: Int) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .number(let value): text += value.text
    case .string(let value): Self.append(value, to: &text)
    case .array(let elements):
      Self.append(elements, between: ("[", "]"), to: &text, style, level) { element, text in
        element.append(to: &text, style, level: level + 1)
      }
    case .object(let object):
      Self.append(object.members, between: ("{", "}"), to: &text, style, level) { member, text in
        Self.append(member.key, to: &text)
        if case .compact = style { text += ":" } else { text += ": " }
        member.value.append(to: &text, style, level: level + 1)
      }
    }
  }

  private static func append<Element>(
    _ elements: [Element], between brackets: (String, String), to text: inout String, _ style: Style, _ level: Int,
    _ appendElement: (Element, inout String) -> Void
  ) {
    func newLine(_ level: Int) {
      if case .indented(let width) = style { text += "\n" + String(repeating: " ", count: max(0, width) * level) }
    }
    text += brackets.0
    for (index, element) in elements.enumerated() {
      if index > 0 { text += "," }
      newLine(level + 1)
      appendElement(element, &text)
    }
    if !elements.isEmpty { newLine(level) }
    text += brackets.1
  }

  private static func append(_ string: String, to text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case "\u{8}": text += "\\b"
      case "\u{C}": text += "\\f"
      case "\u{0}"..."\u{1F}":
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}

extension JSON: CustomStringConvertible {
  /// The compact text.
  public var description: String { serialized() }
}
