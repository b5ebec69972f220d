/// Cuts a template into text and the pieces of its tags, with the rules for white space around tags.
///
///     {%- … -%}    takes all white space before and after
///     {%+ … +%}    leaves it; else a line break after a block's tag is dropped, and the blanks before one that begins a line
struct Lexer {
  private let source: Scalars
  private var position = 0
  private var line = 1
  private var tokens: [Token] = []
  /// Whether what was read last ends with a line break; a template begins like that.
  private var isAtLineStart = true

  init(_ text: String) {
    // Line breaks are all "\n", and the last one is dropped.
    var source = Scalars()
    var isAfterReturn = false
    for scalar in text.unicodeScalars {
      if scalar == "\n", isAfterReturn {
        isAfterReturn = false
        continue
      }
      isAfterReturn = scalar == "\r"
      source.append(isAfterReturn ? "\n" : scalar)
    }
    if source.last == "\n" { source.removeLast() }
    self.source = source
  }

  /// All pieces.
  ///
  /// - Throws: ``TemplateError`` for what is no piece of a template.
  mutating func allTokens() throws -> [Token] {
    while let tag = nextTag() {
      try readText(upTo: tag)
      switch source[tag + 1] {
      case "#": try readComment()
      case "{":
        add(.variableBegin)
        try readTag(isBlock: false)
      default:
        if try readRaw() { continue }
        add(.blockBegin)
        try readTag(isBlock: true)
      }
    }
    addText(Scalars(source[position...]))
    add(.end)
    return tokens
  }

  private mutating func add(_ kind: Token.Kind) { tokens.append(Token(kind: kind, line: line)) }

  private mutating func addText(_ text: Scalars) {
    if !text.isEmpty { add(.data(text)) }
  }

  private func fail(_ problem: String) -> TemplateError { TemplateError(problem, line: line) }

  /// Goes on to `end` and counts the lines between.
  private mutating func advance(to end: Int) {
    line += source[position..<end].count { $0 == "\n" }
    if end > position { isAtLineStart = source[end - 1] == "\n" }
    position = end
  }

  private func has(_ text: String, at i: Int) -> Bool {
    var i = i
    for scalar in text.unicodeScalars {
      guard i < source.count, source[i] == scalar else { return false }
      i += 1
    }
    return true
  }

  private func afterSpaces(_ i: Int) -> Int { source[i...].firstIndex { !$0.isPythonSpace } ?? source.count }

  // MARK: Text

  private func nextTag() -> Int? {
    var i = position
    while i + 1 < source.count {
      if source[i] == "{", source[i + 1] == "%" || source[i + 1] == "{" || source[i + 1] == "#" { return i }
      i += 1
    }
    return nil
  }

  /// Adds the text before a tag without what its sign drops, and goes on behind the sign.
  private mutating func readText(upTo tag: Int) throws {
    let text = Scalars(source[position..<tag])
    let sign = tag + 2 < source.count ? source[tag + 2] : " "
    addText(stripped(text, before: sign, isVariable: source[tag + 1] == "{"))
    advance(to: tag + 2 + (sign == "-" || sign == "+" ? 1 : 0))
  }

  private func stripped(_ text: Scalars, before sign: Unicode.Scalar, isVariable: Bool) -> Scalars {
    if sign == "-" { return text.stripped(left: false) }
    guard sign != "+", !isVariable else { return text }
    let start = text.lastIndex(of: "\n").map { $0 + 1 } ?? 0
    guard start > 0 || isAtLineStart, text[start...].allSatisfy(\.isPythonSpace) else { return text }
    return Scalars(text[..<start])
  }

  /// The end of a block's or comment's tag that begins at `i`: behind it the white space that it takes.
  private func end(of mark: String, at i: Int) -> Int? {
    if has("+" + mark, at: i) { return i + 3 }
    if has("-" + mark, at: i) { return afterSpaces(i + 3) }
    guard has(mark, at: i) else { return nil }
    return i + 2 < source.count && source[i + 2] == "\n" ? i + 3 : i + 2
  }

  private mutating func readComment() throws {
    var i = position
    while i < source.count {
      if let end = end(of: "#}", at: i) { return advance(to: end) }
      i += 1
    }
    throw fail("a comment without its end")
  }

  /// Reads `{% raw %}` … `{% endraw %}`; false if this is another tag.
  private mutating func readRaw() throws -> Bool {
    let word = afterSpaces(position)
    guard has("raw", at: word) else { return false }
    var begin = afterSpaces(word + 3)
    if has("-%}", at: begin) {
      begin = afterSpaces(begin + 3)
    } else if has("%}", at: begin) {
      begin += 2
    } else {
      return false
    }
    advance(to: begin)
    var i = position
    while i < source.count {
      if has("{%", at: i) {
        let sign: Unicode.Scalar = i + 2 < source.count ? source[i + 2] : " "
        let word = afterSpaces(i + (sign == "-" || sign == "+" ? 3 : 2))
        if has("endraw", at: word), let end = end(of: "%}", at: afterSpaces(word + 6)) {
          addText(stripped(Scalars(source[position..<i]), before: sign, isVariable: false))
          advance(to: end)
          return true
        }
      }
      i += 1
    }
    throw fail("{% raw %} without {% endraw %}")
  }

  // MARK: Tags

  private static let signs = ["//", "**", "==", "!=", ">=", "<="] + "+-/*%~[](){}><=.:|,;".map { String($0) }

  private mutating func readTag(isBlock: Bool) throws {
    var open: [String] = []
    while position < source.count {
      let next = source[position]
      if open.isEmpty, let end = isBlock ? end(of: "%}", at: position) : variableEnd(at: position) {
        add(isBlock ? .blockEnd : .variableEnd)
        return advance(to: end)
      }
      if next.isPythonSpace {
        advance(to: afterSpaces(position))
      } else if next.value < 128, next.isPythonDigit {
        try readNumber()
      } else if next.isWord {
        try readName()
      } else if next == "'" || next == "\"" {
        try readString(next)
      } else if let sign = Self.signs.first(where: { has($0, at: position) }) {
        switch sign {
        case "(": open.append(")")
        case "[": open.append("]")
        case "{": open.append("}")
        case ")", "]", "}":
          guard let expected = open.popLast() else { throw fail("unexpected '\(sign)'") }
          guard expected == sign else { throw fail("unexpected '\(sign)', expected '\(expected)'") }
        default: break
        }
        add(.sign(sign))
        advance(to: position + sign.utf8.count)
      } else {
        throw fail("unexpected character \(Scalars([next]).pythonQuoted)")
      }
    }
    throw fail("a tag without its end")
  }

  private func variableEnd(at i: Int) -> Int? { has("-}}", at: i) ? afterSpaces(i + 3) : has("}}", at: i) ? i + 2 : nil }

  private mutating func readName() throws {
    let end = source[position...].firstIndex { !$0.isWord && !$0.properties.isXIDContinue } ?? source.count
    let name = Scalars(source[position..<end])
    guard name[0] == "_" || name[0].properties.isXIDStart, name.allSatisfy({ $0.properties.isXIDContinue }) else {
      throw fail("a name with a character that names do not have: \(name.pythonQuoted)")
    }
    add(.name(name.string))
    advance(to: end)
  }

  private mutating func readNumber() throws {
    func digits(_ i: Int, _ isDigit: (Unicode.Scalar) -> Bool = { ("0"..."9").contains($0) }) -> Int {
      var i = i
      while i < source.count, isDigit(source[i]) || source[i] == "_" && i + 1 < source.count && isDigit(source[i + 1]) { i += 1 }
      return i
    }
    func text(_ end: Int) -> String { Scalars(source[position..<end].filter { $0 != "_" }).string }
    func isDigit(at i: Int) -> Bool { i < source.count && ("0"..."9").contains(source[i]) }
    var end = digits(position)
    var isFloat = false
    let isBehindPoint = position > 0 && source[position - 1] == "."
    if !isBehindPoint, end < source.count, source[end] == ".", isDigit(at: end + 1) { (isFloat, end) = (true, digits(end + 1)) }
    if !isBehindPoint, end < source.count, source[end] == "e" || source[end] == "E" {
      let hasSign = end + 1 < source.count && (source[end + 1] == "+" || source[end + 1] == "-")
      let exponent = end + (hasSign ? 2 : 1)
      if isDigit(at: exponent) { (isFloat, end) = (true, digits(exponent)) }
    }
    if isFloat {
      add(.float(Double(text(end)) ?? 0))
      return advance(to: end)
    }
    if source[position] == "0", position + 1 < source.count,
      let radix = ["b": 2, "o": 8, "x": 16][Scalars([source[position + 1]]).lowercased().string]
    {
      let last = digits(position + 2) { Int(String($0), radix: radix) != nil }
      if last > position + 2 {
        guard let value = Int(text(last).dropFirst(2), radix: radix) else { throw fail("an integer beyond 64 bits") }
        add(.integer(value))
        return advance(to: last)
      }
    }
    if source[position] == "0" { end = digits(position) { $0 == "0" } }
    guard let value = Int(text(end)) else { throw fail("an integer beyond 64 bits") }
    add(.integer(value))
    advance(to: end)
  }

  private mutating func readString(_ quote: Unicode.Scalar) throws {
    var end = position + 1
    while end < source.count, source[end] != quote { end += source[end] == "\\" ? 2 : 1 }
    guard end < source.count else { throw fail("a string without its end") }
    add(.string(try unescaped(Scalars(source[(position + 1)..<end]))))
    advance(to: end + 1)
  }

  private static let escapes: [Unicode.Scalar: Unicode.Scalar] = [
    "\\": "\\", "'": "'", "\"": "\"", "a": "\u{7}", "b": "\u{8}", "f": "\u{C}", "n": "\n", "r": "\r", "t": "\t", "v": "\u{B}",
  ]

  /// The characters of a string, its escapes read as Python reads them.
  private mutating func unescaped(_ text: Scalars) throws -> Scalars {
    var result = Scalars()
    var i = 0
    while i < text.count {
      guard text[i] == "\\", i + 1 < text.count else {
        result.append(text[i])
        i += 1
        continue
      }
      let letter = text[i + 1]
      i += 2
      if let scalar = Self.escapes[letter] {
        result.append(scalar)
      } else if letter == "\n" {
        continue
      } else if ("0"..."7").contains(letter) {
        let digits = text[(i - 1)..<min(i + 2, text.count)].prefix { ("0"..."7").contains($0) }
        result += Scalars([Unicode.Scalar(UInt32(Scalars(digits).string, radix: 8) ?? 0) ?? "?"])
        i += digits.count - 1
      } else if let count = ["x": 2, "u": 4, "U": 8][letter] {
        let digits = Scalars(text[i..<min(i + count, text.count)])
        guard digits.count == count, digits.allSatisfy({ $0.properties.isASCIIHexDigit }), let value = UInt32(digits.string, radix: 16),
          let scalar = Unicode.Scalar(value)
        else { throw fail("the escape \\\(letter)\(digits.string), which is no character") }
        result.append(scalar)
        i += count
      } else if letter == "N" {
        throw fail("the escape \\N, which is not built")
      } else {
        result += ["\\", letter]
      }
    }
    return result
  }
}
