/// Takes a regular expression apart, in Oniguruma's default syntax.
struct RegularParser {
  private let text: [UInt32]
  private var index = 0
  private var ignoresCase = false
  private var depth = 0

  init(_ source: String) { text = source.unicodeScalars.map(\.value) }

  /// The whole expression.
  mutating func parse() throws -> RegularNode {
    let node = try alternatives()
    if index < text.count { throw PatternError("a \")\" without its \"(\"") }
    return node
  }

  private var next: UInt32? { index < text.count ? text[index] : nil }

  private mutating func take(_ word: StaticString) -> Bool {
    let wanted = word.withUTF8Buffer { $0.map(UInt32.init) }
    guard text[index...].starts(with: wanted) else { return false }
    index += wanted.count
    return true
  }

  private mutating func alternatives() throws -> RegularNode {
    depth += 1
    defer { depth -= 1 }
    guard depth <= 64 else { throw PatternError("groups 64 deep") }
    var parts = [try sequence()]
    while take("|") { parts.append(try sequence()) }
    return .oneOf(parts[...])
  }

  private mutating func sequence() throws -> RegularNode {
    var parts: [RegularNode] = []
    // The letter before, where case is ignored.
    var last: UInt32?
    while let scalar = next, scalar != 0x7C, scalar != 0x29 {
      let start = index
      if let isOn = try option() {
        // The option holds to the end of the group, alternatives included.
        let outer = ignoresCase
        ignoresCase = isOn
        parts.append(try alternatives())
        ignoresCase = outer
        break
      }
      let literal = ignoresCase ? scalar : nil
      let atom = try self.atom()
      let isLetter = index == start + 1
      let repeated = try quantified(atom)
      parts.append(repeated)
      // Two letters may be one in another case (ss and U+00DF).
      if isLetter, let literal, let last, Self.ligatures.contains([last | 0x20, literal | 0x20]) {
        throw PatternError("letters that ignore case and have a ligature")
      }
      last = isLetter && index == start + 1 ? literal : nil
    }
    return parts.count == 1 ? parts[0] : .sequence(parts)
  }

  private static let ligatures: Set<[UInt32]> = Set(["ss", "ff", "fi", "fl", "st"].map { $0.unicodeScalars.map(\.value) })

  /// `(?i)` and `(?-i)`; nil where none stands here.
  private mutating func option() throws -> Bool? { take("(?i)") ? true : take("(?-i)") ? false : nil }

  private mutating func atom() throws -> RegularNode {
    let scalar = text[index]
    index += 1
    switch scalar {
    case 0x28: return try group()  // (
    case 0x5B:  // [
      index -= 1
      return .set(try characterClass())
    case 0x2E: return .set(ScalarSet(0x0A).inverted())  // .
    case 0x5E: return .anchor(.lineStart)  // ^
    case 0x24: return .anchor(.lineEnd)  // $
    case 0x5C: return try escape()
    case 0x2A, 0x2B, 0x3F: throw PatternError("a quantifier with nothing before it")
    default: return .set(try folded(ScalarSet(scalar)))
    }
  }

  private mutating func group() throws -> RegularNode {
    let outer = ignoresCase
    defer { ignoresCase = outer }
    let make: (RegularNode) throws -> RegularNode
    if take("?:") {
      make = { $0 }
    } else if take("?i:") {
      (make, ignoresCase) = ({ $0 }, true)
    } else if take("?-i:") {
      (make, ignoresCase) = ({ $0 }, false)
    } else if take("?=") {
      make = { .ahead($0, isNegated: false) }
    } else if take("?!") {
      make = { .ahead($0, isNegated: true) }
    } else if take("?<=") {
      make = { .behind($0, isNegated: false) }
    } else if take("?<!") {
      make = { .behind($0, isNegated: true) }
    } else if take("?>") {
      make = Self.atomic
    } else if take("?") {
      throw PatternError("the group \"(?\(shown(from: index, 4))\"")
    } else {
      make = { $0 }
    }
    let node = try alternatives()
    guard take(")") else { throw PatternError("a \"(\" without its \")\"") }
    return try make(node)
  }

  private static func atomic(_ node: RegularNode) throws -> RegularNode {
    guard !node.isUnbounded else { throw PatternError("a repetition without bound that may not be taken back") }
    return .atomic(node)
  }

  private mutating func quantified(_ atom: RegularNode) throws -> RegularNode {
    var node = atom
    while let (low, high, isInterval) = try quantifier() {
      if case .ahead = node { throw PatternError("a quantifier behind a look") }
      if case .behind = node { throw PatternError("a quantifier behind a look") }
      if case .anchor = node { throw PatternError("a quantifier behind an anchor") }
      if high == nil, node.isNullable { throw PatternError("a repetition of something that may be empty") }
      var mode = RegularNode.Mode.greedy
      if isInterval, next == 0x3F, low == high { throw PatternError("\"?\" behind a number of times") }
      if take("?") {
        mode = .lazy
      } else if !isInterval, take("+") {
        mode = .possessive
        if case .set = node {} else { (node, mode) = (try Self.atomic(.repeated(node, low, high, .greedy)), .greedy) }
        if case .atomic = node { continue }
      }
      node = .repeated(node, low, high, mode)
    }
    return node
  }

  /// `* + ? {n} {n,} {n,m} {,m}`; nil where none stands here.
  private mutating func quantifier() throws -> (Int, Int?, isInterval: Bool)? {
    if take("*") { return (0, nil, false) }
    if take("+") { return (1, nil, false) }
    if take("?") { return (0, 1, false) }
    let start = index
    guard take("{") else { return nil }
    let low = try number()
    var high = low
    if take(",") { high = try number() }
    let isOpen = index > 0 && text[index - 1] == 0x2C
    guard take("}"), low != nil || high != nil else {
      index = start  // a brace that stands for itself
      return nil
    }
    if let low, let high, low > high { throw PatternError("\(low) to \(high) times") }
    return (low ?? 0, isOpen ? nil : high, true)
  }

  private mutating func number() throws -> Int? {
    var value: Int?
    while let digit = next, digit >= 0x30, digit <= 0x39 {
      value = (value ?? 0) * 10 + Int(digit - 0x30)
      index += 1
      if let value, value > RegularProgram.repetitionLimit {
        throw PatternError("more than \(RegularProgram.repetitionLimit) times")
      }
    }
    return value
  }

  /// What an escape outside of a class matches.
  private mutating func escape() throws -> RegularNode {
    switch next {
    case 0x41: return anchor(.textStart)  // \A
    case 0x7A: return anchor(.textEnd)  // \z
    case 0x5A: return anchor(.lastLineEnd)  // \Z
    case 0x62: return anchor(.wordBoundary)  // \b
    case 0x42: return anchor(.noWordBoundary)  // \B
    default: return .set(try folded(escapedSet()))
    }
  }

  private mutating func anchor(_ anchor: RegularNode.Anchor) -> RegularNode {
    index += 1
    return .anchor(anchor)
  }

  /// The set of the escape whose backslash was read.
  private mutating func escapedSet(inClass: Bool = false) throws -> ScalarSet {
    guard let scalar = next else { throw PatternError("a \"\\\" at the end") }
    index += 1
    switch Character(Unicode.Scalar(scalar) ?? " ") {
    case "s": return UnicodeProperties.space
    case "S": return UnicodeProperties.space.inverted()
    case "d": return UnicodeProperties.digit
    case "D": return UnicodeProperties.digit.inverted()
    case "w": return inClass ? UnicodeProperties.wordInClass : UnicodeProperties.word
    case "W": return (inClass ? UnicodeProperties.wordInClass : UnicodeProperties.word).inverted()
    case "h": return Self.hexadecimal
    case "H": return Self.hexadecimal.inverted()
    case "n": return ScalarSet(0x0A)
    case "r": return ScalarSet(0x0D)
    case "t": return ScalarSet(0x09)
    case "f": return ScalarSet(0x0C)
    case "v": return ScalarSet(0x0B)
    case "a": return ScalarSet(0x07)
    case "e": return ScalarSet(0x1B)
    case "p", "P": return try property(isNegated: scalar == 0x50)
    case "u": return ScalarSet(try hexadecimal(4...4))
    case "x":
      guard take("{") else { return ScalarSet(try hexadecimal(1...2)) }
      let value = try hexadecimal(1...8)
      guard take("}") else { throw PatternError("\"\\x{\" without \"}\"") }
      return ScalarSet(value)
    default:
      // Letters and digits mean something else there (back references among it), or nothing.
      if scalar < 0x80, UnicodeProperties.word.contains(scalar) { throw PatternError("\"\\\(shown(from: index - 1, 1))\"") }
      return ScalarSet(scalar)
    }
  }

  private static let hexadecimal = ScalarSet([0x30...0x39, 0x41...0x46, 0x61...0x66])

  private mutating func hexadecimal(_ digits: ClosedRange<Int>) throws -> UInt32 {
    var value: UInt32 = 0
    var count = 0
    while count < digits.upperBound, let scalar = next.flatMap(Unicode.Scalar.init), let digit = Character(scalar).hexDigitValue,
      scalar.isASCII
    {
      value = value << 4 | UInt32(digit)
      index += 1
      count += 1
    }
    // Beyond ASCII a byte written this way would be part of a character.
    guard count >= digits.lowerBound, Unicode.Scalar(value) != nil, digits.upperBound > 2 || value < 0x80 else {
      throw PatternError("a character by its number that is none")
    }
    return value
  }

  private mutating func property(isNegated: Bool) throws -> ScalarSet {
    guard take("{") else { throw PatternError("\"\\p\" without \"{\"") }
    let isInverted = take("^") != isNegated
    let start = index
    while let scalar = next, scalar != 0x7D { index += 1 }
    let name = shown(from: start, index - start)
    guard take("}") else { throw PatternError("\"\\p{\" without \"}\"") }
    guard let set = UnicodeProperties.set(named: name) else { throw PatternError("the property \"\\p{\(name)}\"") }
    return isInverted ? set.inverted() : set
  }

  /// A class in brackets: its parts together; after `&&` only what is in both.
  private mutating func characterClass() throws -> ScalarSet {
    depth += 1
    defer { depth -= 1 }
    guard depth <= 64 else { throw PatternError("classes 64 deep") }
    index += 1
    let isNegated = take("^")
    var whole: ScalarSet?
    var ranges: [ClosedRange<UInt32>] = []
    func joined() -> ScalarSet { whole.map { $0.intersection(ScalarSet(ranges)) } ?? ScalarSet(ranges) }
    if next == 0x5D { throw PatternError("a class that begins with \"]\"") }
    while true {
      guard let scalar = next else { throw PatternError("a \"[\" without its \"]\"") }
      if take("]") { break }
      if take("&&") {
        whole = joined()
        ranges = []
        continue
      }
      if scalar == 0x5B {
        if text[index...].starts(with: [0x5B, 0x3A]) { throw PatternError("a class \"[:…:]\"") }
        ranges += try characterClass().ranges
        continue
      }
      let item = try classItem()
      guard let low = item.single, next == 0x2D, index + 1 < text.count, text[index + 1] != 0x5D else {
        ranges += try folded(item.set).ranges
        continue
      }
      index += 1
      guard next != 0x5B, let high = try classItem().single else { throw PatternError("a range that ends in a class") }
      guard low <= high else { throw PatternError("a range that goes backwards") }
      ranges += try folded(ScalarSet([low...high])).ranges
    }
    return isNegated ? joined().inverted() : joined()
  }

  private mutating func classItem() throws -> (set: ScalarSet, single: UInt32?) {
    guard let scalar = next else { throw PatternError("a \"[\" without its \"]\"") }
    index += 1
    guard scalar == 0x5C else { return (ScalarSet(scalar), scalar) }
    if take("b") { return (ScalarSet(0x08), 0x08) }
    let set = try escapedSet(inClass: true)
    let isSingle = set.ranges.count == 1 && set.ranges[0].count == 1
    return (set, isSingle ? set.ranges[0].lowerBound : nil)
  }

  /// The set with the other cases of its letters, where case is ignored: those of ASCII, with the long s and the sign of the Kelvin.
  private func folded(_ set: ScalarSet) throws -> ScalarSet {
    guard ignoresCase else { return set }
    guard set.isDisjoint(with: UnicodeProperties.cased.intersection(ScalarSet([0x80...0x10FFFF]))) else {
      throw PatternError("a letter beyond ASCII that ignores case")
    }
    var ranges = set.ranges
    for letter in UInt32(0x61)...0x7A where set.contains(letter) || set.contains(letter & ~0x20) {
      ranges += [letter...letter, (letter & ~0x20)...(letter & ~0x20)]
      if letter == 0x73 { ranges.append(0x17F...0x17F) }
      if letter == 0x6B { ranges.append(0x212A...0x212A) }
    }
    return ScalarSet(ranges)
  }

  private func shown(from start: Int, _ count: Int) -> String {
    var view = String.UnicodeScalarView()
    for value in text[start..<min(start + count, text.count)] { view.append(Unicode.Scalar(value) ?? "\u{FFFD}") }
    return String(view)
  }
}
