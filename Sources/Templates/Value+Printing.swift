extension Value {
  /// `str(value)`.
  func printed(into text: inout TextBuilder, _ budget: Budget) throws {
    switch self {
    case .undefined: break
    case .string(let value): try text.append(value.scalars)
    default: try represented(into: &text, budget)
    }
  }

  /// `str(value)` as a text of its own; a text as it is.
  func printed(_ budget: Budget) throws -> Scalars {
    if case .string(let text) = self { return text.scalars }
    var text = TextBuilder(budget)
    try printed(into: &text, budget)
    text.discard()
    return text.scalars
  }

  /// `repr(value)`.
  ///
  /// - Parameter level: values around this one; a namespace may hold itself.
  func represented(into text: inout TextBuilder, _ budget: Budget, level: Int = 0) throws {
    guard level <= Budget.depth else { throw TemplateError("values nested more than \(Budget.depth) deep are printed") }
    func list(_ begin: String, _ values: [Value], _ end: String) throws {
      try text.append(begin)
      for (i, value) in values.enumerated() {
        if i > 0 { try text.append(", ") }
        try value.represented(into: &text, budget, level: level + 1)
      }
      try text.append(end)
    }
    func pairs(_ pairs: [(key: Value, value: Value)]) throws {
      try text.append("{")
      for (i, pair) in pairs.enumerated() {
        if i > 0 { try text.append(", ") }
        try pair.key.represented(into: &text, budget, level: level + 1)
        try text.append(": ")
        try pair.value.represented(into: &text, budget, level: level + 1)
      }
      try text.append("}")
    }
    switch self {
    case .undefined: try text.append("Undefined")
    case .none: try text.append("None")
    case .bool(let value): try text.append(value ? "True" : "False")
    case .int(let value): try text.append(String(value))
    case .float(let value): try text.append(value.pythonDescription)
    case .string(let value):
      try text.append(value.isMarkup ? "Markup(" : "")
      try text.append(value.scalars.pythonQuoted)
      try text.append(value.isMarkup ? ")" : "")
    case .list(let items): try list("[", items.values, "]")
    case .tuple(let items): try list("(", items.values, items.values.count == 1 ? ",)" : ")")
    case .dict(let dictionary): try pairs(dictionary.entries)
    case .range(let range): try text.append("range(\(range.start), \(range.stop)" + (range.step == 1 ? ")" : ", \(range.step))"))
    case .view(let view):
      let elements = try view.dictionary.entries.indices.map { try view.element($0, budget) }
      try list("\(view.part.type)([", elements, "])")
    case .namespace(let namespace):
      try text.append("<Namespace ")
      try pairs(namespace.names.map { (.string(Text(freeOfCharge: Scalars($0))), namespace[$0] ?? .none) })
      try text.append(">")
    case .function(let function) where function.type == "Macro": try text.append("<Macro \(Scalars(function.name).pythonQuoted)>")
    case .loop(let loop): try text.append("<LoopContext \(loop.index0 + 1)/\(try loop.length(budget))>")
    case .iterator, .function:
      // Python prints the place in memory, which is another each time.
      throw TemplateError("a value of the type '\(type)' is printed, whose text is chance")
    }
  }
}

extension Scalars {
  /// The text in quotes, as `repr` writes it.
  var pythonQuoted: String {
    let quote: Unicode.Scalar = contains("'") && !contains("\"") ? "\"" : "'"
    var text = String.UnicodeScalarView()
    text.append(quote)
    for scalar in self {
      switch scalar {
      case quote, "\\": text.append(contentsOf: ["\\", scalar])
      case "\n": text.append(contentsOf: ["\\", "n"])
      case "\r": text.append(contentsOf: ["\\", "r"])
      case "\t": text.append(contentsOf: ["\\", "t"])
      case _ where (32..<127).contains(scalar.value) || scalar.value > 127 && scalar.isPrintable: text.append(scalar)
      default:
        let (letter, width) = scalar.value < 0x100 ? ("x", 2) : scalar.value < 0x10000 ? ("u", 4) : ("U", 8)
        text.append(contentsOf: ("\\" + letter + scalar.hexadecimal(width)).unicodeScalars)
      }
    }
    text.append(quote)
    return String(text)
  }
}

extension Unicode.Scalar {
  func hexadecimal(_ width: Int) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
  }
}

extension Double {
  /// `repr`: the shortest digits that read back as the same number; an exponent below 1e-4 and from 1e16 on.
  var pythonDescription: String {
    guard isFinite else { return isNaN ? "nan" : self < 0 ? "-inf" : "inf" }
    let (digits, point) = shortestDigits
    let sign = self.sign == .minus ? "-" : ""
    if point > 16 || point < -3 {
      let exponent = point - 1
      let fraction = digits.count > 1 ? "." + digits.dropFirst() : ""
      let size = String(exponent.magnitude)
      return sign + digits.prefix(1) + fraction + "e" + (exponent < 0 ? "-" : "+") + (size.utf8.count < 2 ? "0" : "") + size
    }
    if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + digits }
    if digits.utf8.count <= point { return sign + digits + String(repeating: "0", count: point - digits.utf8.count) + ".0" }
    return sign + digits.prefix(point) + "." + digits.dropFirst(point)
  }

  /// The shortest digits, and how many of them stand before the point: "15" and 1 for 1.5.
  private var shortestDigits: (digits: String, point: Int) {
    guard self != 0 else { return ("0", 1) }
    // Swift finds the same digits; only where the point and the exponent stand differs.
    let parts = magnitude.description.split(separator: "e")
    let mantissa = parts[0].split(separator: ".", omittingEmptySubsequences: false)
    var digits = String(mantissa[0]) + (mantissa.count > 1 ? mantissa[1] : "")
    var point = mantissa[0].utf8.count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
    while digits.hasPrefix("0"), digits.utf8.count > 1 {
      digits.removeFirst()
      point -= 1
    }
    while digits.hasSuffix("0"), digits.utf8.count > 1 { digits.removeLast() }
    return (digits, point)
  }
}
