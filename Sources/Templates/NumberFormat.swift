import Platform

/// How a number is written: the part of a format that `%` and `format` share.
struct NumberFormat {
  /// `d`, `x`, `f` and the like.
  var form: Unicode.Scalar = "d"
  /// What stands before a positive number: nothing, "+" or " ".
  var plus = ""
  /// `#`: 0x, 0o, 0b.
  var isAlternate = false
  var precision: Int?
  /// What parts thousands: nothing, "," or "_".
  var grouping = ""

  private static let mostPrecision = 1000

  /// Sign and digits.
  ///
  /// - Throws: ``TemplateError`` for a value that is no such number.
  func text(_ value: Value) throws -> (sign: String, digits: String) {
    switch form {
    case "d", "i", "u", "b", "o", "x", "X":
      guard let integer = value.index else { throw TemplateError("the format '\(form)' of a value of the type '\(value.type)'") }
      let radix = form == "b" ? 2 : form == "o" ? 8 : form == "x" || form == "X" ? 16 : 10
      var digits = String(integer.magnitude, radix: radix, uppercase: form == "X")
      if let precision { digits = String(repeating: "0", count: max(0, min(precision, Self.mostPrecision) - digits.utf8.count)) + digits }
      let prefix = isAlternate && radix != 10 ? "0\(form)" : ""
      return (integer < 0 ? "-" : plus, prefix + grouped(digits))
    case "e", "E", "f", "F", "g", "G", "%":
      guard let number = value.number else { throw TemplateError("the format '\(form)' of a value of the type '\(value.type)'") }
      guard precision ?? 0 <= Self.mostPrecision else { throw TemplateError("a format with a precision above \(Self.mostPrecision)") }
      let scaled = form == "%" ? number * 100 : number
      let kind = form == "%" ? "f" : form
      var digits: String
      if scaled.isFinite {
        digits = POSIX.decimal(scaled.magnitude, form: kind, precision: precision ?? 6, isAlternate: isAlternate)
      } else {
        digits = scaled.isNaN ? "nan" : "inf"
        if form.properties.isUppercase { digits = digits.uppercased() }
      }
      return (scaled.sign == .minus && !scaled.isNaN ? "-" : plus, grouped(digits) + (form == "%" ? "%" : ""))
    default: throw TemplateError("the format '\(form)', which is not known")
    }
  }

  /// The digits before the point in threes.
  private func grouped(_ digits: String) -> String {
    guard !grouping.isEmpty else { return digits }
    let whole = Array(digits.prefix { $0.isNumber })
    var text = ""
    for (i, digit) in whole.enumerated() {
      if i > 0, (whole.count - i) % 3 == 0 { text += grouping }
      text.append(digit)
    }
    return text + digits.dropFirst(whole.count)
  }
}
