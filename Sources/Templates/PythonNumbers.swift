import Platform

/// Numbers as Python reads and rounds them.
enum PythonNumbers {
  /// `int(text, base)`; nil for what is none.
  ///
  /// - Throws: ``TemplateError`` for one beyond 64 bits.
  static func integer(_ text: Scalars, base: Int) throws -> Int? {
    guard base == 0 || (2...36).contains(base) else { throw TemplateError("'int' with the base \(base)") }
    var digits = text.stripped()[...]
    var sign = ""
    if let first = digits.first, first == "-" || first == "+" {
      sign = first == "-" ? "-" : ""
      digits = digits.dropFirst()
    }
    var base = base
    if digits.count > 2, digits.first == "0" {
      let letter = Scalars([digits[digits.startIndex + 1]]).lowercased().string
      if let radix = ["x": 16, "o": 8, "b": 2][letter], base == 0 || base == radix {
        base = radix
        digits = digits.dropFirst(2)
        if digits.first == "_" { digits = digits.dropFirst() }
      }
    }
    if base == 0 {
      base = 10
      if digits.first == "0", digits.contains(where: { $0 != "0" && $0 != "_" }) { return nil }
    }
    guard let plain = plain(digits) else { return nil }
    let isNumber = plain.allSatisfy {
      $0.value < 128 && ($0.properties.isAlphabetic || $0.isPythonDigit) && Int(String($0), radix: base) != nil
    }
    guard !plain.isEmpty, isNumber else { return nil }
    guard let value = Int(sign + plain.string, radix: base) else { throw TemplateError("an integer beyond 64 bits") }
    return value
  }

  /// `float(text)`; nil for what is none.
  static func float(_ text: Scalars) -> Double? {
    guard let plain = plain(text.stripped()[...]) else { return nil }
    let text = plain.string
    let word = text.lowercased().drop { $0 == "+" || $0 == "-" }
    if ["inf", "infinity", "nan"].contains(word) { return Double(text) }
    // Swift reads hexadecimal numbers and names of its own too.
    guard plain.allSatisfy({ "0123456789+-.eE".unicodeScalars.contains($0) }), plain.contains(where: { ("0"..."9").contains($0) }) else {
      return nil
    }
    return Double(text) ?? Double(padded(text))
  }

  /// Digits of any script as those of ASCII, single underscores between digits dropped; nil where one stands elsewhere.
  private static func plain(_ digits: ArraySlice<Unicode.Scalar>) -> Scalars? {
    var plain = Scalars()
    for i in digits.indices {
      if digits[i] == "_" {
        func isDigit(_ j: Int) -> Bool { digits.indices.contains(j) && (digits[j].isPythonDecimal || digits[j].properties.isAlphabetic) }
        guard isDigit(i - 1), isDigit(i + 1) else { return nil }
      } else if let value = digits[i].decimalValue {
        plain.append(Unicode.Scalar(UInt8(48 + value)))
      } else {
        plain.append(digits[i])
      }
    }
    return plain
  }

  /// "1." and ".5" with the zero that Swift wants.
  private static func padded(_ text: String) -> String {
    var result = ""
    var previous: Character = "e"
    for character in text {
      if character == ".", !previous.isNumber { result += "0" }
      if previous == ".", !character.isNumber { result += "0" }
      result.append(character)
      previous = character
    }
    return previous == "." ? result + "0" : result
  }

  static func powerOfTen(_ exponent: Int) -> Double { Double("1e\(exponent)") ?? 0 }

  /// `round(number, precision)`: the decimal that is next, an even last digit where two are.
  static func rounded(_ number: Double, _ precision: Int) -> Double {
    guard number.isFinite else { return number }
    if precision >= 0 {
      let digits = POSIX.decimal(number.magnitude, form: "f", precision: precision, isAlternate: false)
      return Double(digits).map { Double(signOf: number, magnitudeOf: $0) } ?? number
    }
    let power = powerOfTen(-precision)
    return (number / power).rounded(.toNearestOrEven) * power
  }

  /// As above, of an integer.
  static func rounded(_ number: Int, _ precision: Int) throws -> Int {
    guard precision < 0 else { return number }
    guard precision > -19 else { return 0 }
    let power = (0..<(-precision)).reduce(1) { result, _ in result * 10 }
    let rest = ((number % power) + power) % power
    let low = number.subtractingReportingOverflow(rest)
    guard !low.overflow else { throw TemplateError("an integer beyond 64 bits") }
    let isUp = rest > power - rest || rest == power - rest && (low.partialValue / power) % 2 != 0
    let result = low.partialValue.addingReportingOverflow(isUp ? power : 0)
    guard !result.overflow else { throw TemplateError("an integer beyond 64 bits") }
    return result.partialValue
  }
}
