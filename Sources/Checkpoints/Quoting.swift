/// A name from a file, made safe for one line of a terminal: in quotes, control characters escaped, cut after 200 characters.
func quoted(_ name: String) -> String {
  let limit = 200
  var text = "\""
  for scalar in name.unicodeScalars.prefix(limit) {
    switch scalar {
    case "\"", "\\": text += "\\\(scalar)"
    case _ where scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format:
      text += "\\u{\(String(scalar.value, radix: 16, uppercase: true))}"
    default: text.unicodeScalars.append(scalar)
    }
  }
  return text + (name.unicodeScalars.count > limit ? "…\"" : "\"")
}
