/// A name from a file, made safe for one line of a terminal: in quotes, control characters escaped, cut after 200 characters.
package func quoted(_ name: String) -> String { "\"" + presentable(name, escaping: ["\"", "\\"]) + "\"" }

/// The first 200 characters of a text from a file, with control characters, and `marks`, escaped.
package func presentable(_ whole: String, escaping marks: [Unicode.Scalar] = []) -> String {
  let limit = 200
  var text = ""
  for scalar in whole.unicodeScalars.prefix(limit) {
    switch scalar {
    case _ where marks.contains(scalar): text += "\\\(scalar)"
    case _ where scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format:
      text += "\\u{\(String(scalar.value, radix: 16, uppercase: true))}"
    default: text.unicodeScalars.append(scalar)
    }
  }
  return text + (whole.unicodeScalars.count > limit ? "…" : "")
}
