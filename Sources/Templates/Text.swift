/// Code points: what Python's strings are made of.
typealias Scalars = [Unicode.Scalar]

extension Scalars {
  init(_ text: String) { self = Array(text.unicodeScalars) }

  /// The same code points as Swift's text.
  var string: String {
    var text = String.UnicodeScalarView()
    text.append(contentsOf: self)
    return String(text)
  }
}

/// Python's `str`, or `Markup`, its kind that escapes what is added to it.
struct Text: Hashable {
  private let buffer: Buffer<Unicode.Scalar>
  let isMarkup: Bool

  init(_ buffer: Buffer<Unicode.Scalar>, isMarkup: Bool = false) {
    self.buffer = buffer
    self.isMarkup = isMarkup
  }

  /// A text that something else holds anyway.
  init(freeOfCharge scalars: Scalars) { self.init(Buffer(freeOfCharge: scalars)) }

  var scalars: Scalars { buffer.elements }
  var string: String { scalars.string }

  static func == (left: Text, right: Text) -> Bool { left.scalars == right.scalars }

  func hash(into hasher: inout Hasher) { hasher.combine(scalars) }
}

// MARK: Characters, as Python 3.11 classifies them

extension Unicode.Scalar {
  /// Whether Python 3.11's tables, those of Unicode 14, have the character.
  private var isKnown: Bool { properties.age.map { $0 <= (14, 0) } ?? false }

  /// `str.isspace`.
  var isPythonSpace: Bool {
    switch value {
    case 9...13, 28...32, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
    default: false
    }
  }

  /// Where `str.splitlines` breaks.
  var isLineBreak: Bool {
    switch value {
    case 10...13, 28...30, 0x85, 0x2028, 0x2029: true
    default: false
    }
  }

  /// `str.isalpha`.
  var isPythonLetter: Bool {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: isKnown
    default: false
    }
  }

  /// `str.isdecimal`.
  var isPythonDecimal: Bool { properties.numericType == .decimal && isKnown }
  /// `str.isdigit`.
  var isPythonDigit: Bool { (properties.numericType == .decimal || properties.numericType == .digit) && isKnown }
  /// `str.isnumeric`.
  var isPythonNumeric: Bool { properties.numericType != nil && isKnown }
  /// `str.isalnum`.
  var isPythonAlphanumeric: Bool { isPythonLetter || isPythonNumeric }
  /// What `\w` of a regular expression matches.
  var isWord: Bool { isPythonAlphanumeric || self == "_" }

  /// `str.isprintable`: what `repr` shows as it is.
  var isPrintable: Bool {
    switch properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
    case .spaceSeparator: self == " "
    default: isKnown
    }
  }

  /// The digit's value; nil if it is no decimal one.
  var decimalValue: Int? { isPythonDecimal ? properties.numericValue.map { Int($0) } : nil }

  var isCased: Bool { properties.isCased && isKnown }
  var isUpper: Bool { properties.isUppercase && isKnown }
  var isLower: Bool { properties.isLowercase && isKnown }
  var isTitle: Bool { properties.generalCategory == .titlecaseLetter && isKnown }
  var upper: Scalars { isKnown ? Scalars(properties.uppercaseMapping) : [self] }
  var title: Scalars { isKnown ? Scalars(properties.titlecaseMapping) : [self] }
  var lower: Scalars { isKnown ? Scalars(properties.lowercaseMapping) : [self] }
}

// MARK: Case

extension Scalars {
  func uppercased() -> Scalars {
    joined {
      $0.value < 128 ? nil : $0.upper
    } ascii: {
      $0.asciiUpper
    }
  }

  func lowercased() -> Scalars { lowercased(indices) }

  private func lowercased(_ range: Range<Int>) -> Scalars {
    var result = Scalars()
    result.reserveCapacity(range.count)
    for i in range {
      if self[i].value < 128 { result.append(self[i].asciiLower) } else { result += lower(at: i) }
    }
    return result
  }

  private func joined(_ wide: (Unicode.Scalar) -> Scalars?, ascii: (Unicode.Scalar) -> Unicode.Scalar) -> Scalars {
    var result = Scalars()
    result.reserveCapacity(count)
    for scalar in self {
      if let mapped = wide(scalar) { result += mapped } else { result.append(ascii(scalar)) }
    }
    return result
  }

  /// The first character in title case, the rest in lower case.
  func capitalized() -> Scalars { isEmpty ? [] : self[0].title + lowercased(1..<count) }

  /// Every cased character behind one that has no case in title case, the others in lower case.
  func titlecased() -> Scalars {
    var isInside = false
    var result = Scalars()
    for i in indices {
      result += isInside ? lower(at: i) : self[i].title
      isInside = self[i].isCased
    }
    return result
  }

  func swappedCase() -> Scalars {
    var result = Scalars()
    for i in indices { result += self[i].isUpper ? lower(at: i) : self[i].isLower ? self[i].upper : [self[i]] }
    return result
  }

  /// Σ is ς at the end of a word.
  private func lower(at i: Int) -> Scalars {
    let scalar = self[i]
    guard scalar.value == 0x3A3 else { return scalar.lower }
    let before = self[..<i].last { !$0.properties.isCaseIgnorable }
    let after = self[(i + 1)...].first { !$0.properties.isCaseIgnorable }
    let isFinal = before?.isCased == true && after?.isCased != true
    return [isFinal ? "\u{3C2}" : "\u{3C3}"]
  }

  /// Whether there are cased characters, all of them upper (or lower) case.
  func isAll(_ isWanted: (Unicode.Scalar) -> Bool, not isOther: (Unicode.Scalar) -> Bool) -> Bool {
    !contains { isOther($0) || $0.isTitle } && contains(where: isWanted)
  }

  var isTitle: Bool {
    var (isInside, hasCased) = (false, false)
    for scalar in self {
      if scalar.isUpper || scalar.isTitle {
        if isInside { return false }
        (isInside, hasCased) = (true, true)
      } else if scalar.isLower {
        if !isInside { return false }
        hasCased = true
      } else {
        isInside = false
      }
    }
    return hasCased
  }
}

extension Unicode.Scalar {
  fileprivate var asciiUpper: Unicode.Scalar { (97...122).contains(value) ? Unicode.Scalar(UInt8(value - 32)) : self }
  fileprivate var asciiLower: Unicode.Scalar { (65...90).contains(value) ? Unicode.Scalar(UInt8(value + 32)) : self }
}

// MARK: Parts

extension Scalars {
  /// Without what stands at its ends: white space, or the characters of a set.
  func stripped(_ set: Scalars? = nil, left: Bool = true, right: Bool = true) -> Scalars {
    func isDropped(_ scalar: Unicode.Scalar) -> Bool { set?.contains(scalar) ?? scalar.isPythonSpace }
    var (start, end) = (0, count)
    if left { while start < end, isDropped(self[start]) { start += 1 } }
    if right { while end > start, isDropped(self[end - 1]) { end -= 1 } }
    return Scalars(self[start..<end])
  }

  /// The lines, without or with their breaks.
  func lines(keepingEnds: Bool = false) -> [Scalars] {
    var lines: [Scalars] = []
    var start = 0
    while start < count {
      var end = start
      while end < count, !self[end].isLineBreak { end += 1 }
      var next = Swift.min(end + 1, count)
      if end + 1 < count, self[end] == "\r", self[end + 1] == "\n" { next += 1 }
      lines.append(Scalars(self[start..<(keepingEnds ? next : end)]))
      start = next
    }
    return lines
  }

  func has(_ part: Scalars, at i: Int) -> Bool { i >= 0 && i + part.count <= count && part.indices.allSatisfy { self[i + $0] == part[$0] } }

  /// `&`, `<`, `>` and quotes as HTML writes them.
  func escapedForHTML() -> Scalars {
    flatMap { scalar -> Scalars in
      switch scalar {
      case "&": Scalars("&amp;")
      case "<": Scalars("&lt;")
      case ">": Scalars("&gt;")
      case "'": Scalars("&#39;")
      case "\"": Scalars("&#34;")
      default: [scalar]
      }
    }
  }
}
