/// Reads the text of a ``ModulePattern``.
struct ModulePatternParser {
  typealias Node = ModulePattern.Node
  typealias CharacterSet = ModulePattern.CharacterSet

  private static let longest = 8192  // one that lists every module by name has some thousands
  private static let deepest = 64

  static let digitBytes = Set(UInt8(ascii: "0")...UInt8(ascii: "9"))
  static let wordBytes = letterBytes.union(digitBytes).union([UInt8(ascii: "_")])
  private static let letterBytes = Set(UInt8(ascii: "a")...UInt8(ascii: "z")).union(UInt8(ascii: "A")...UInt8(ascii: "Z"))
  private static let spaceBytes: Set<UInt8> = [9, 10, 11, 12, 13, 32, 28, 29, 30, 31]

  private let bytes: [UInt8]
  private var offset = 0
  private var depth = 0
  private var ignoresCase = false

  init(_ text: String) throws {
    bytes = Array(text.utf8)
    guard bytes.count <= Self.longest else {
      throw PatternError(found: "a pattern of \(bytes.count) bytes", expected: "at most \(Self.longest)")
    }
    guard let byte = bytes.first(where: { $0 >= 0x80 || $0 == 0 }) else { return }
    throw PatternError(found: "the byte \(byte) in a pattern", expected: "ASCII, as the names of modules are")
  }

  /// The whole pattern.
  mutating func parse() throws -> Node {
    if skip("(?i)") { ignoresCase = true }
    let node = try alternatives()
    guard offset == bytes.count else { throw error("a closing parenthesis") }
    return node
  }

  // MARK: Grammar

  private mutating func alternatives() throws -> Node {
    depth += 1
    defer { depth -= 1 }
    guard depth <= Self.deepest else { throw PatternError(found: "groups within groups", expected: "at most \(Self.deepest) levels") }
    var choices: [Node] = [try sequence()]
    while skip("|") { choices.append(try sequence()) }
    return choices.count == 1 ? choices[0] : .alternatives(choices)
  }

  private mutating func sequence() throws -> Node {
    var parts: [Node] = []
    while let next = peek, next != UInt8(ascii: "|"), next != UInt8(ascii: ")") { parts.append(try repeated(atom())) }
    return parts.count == 1 ? parts[0] : .sequence(parts)
  }

  /// What stands behind a part: `* + ? {n} {n,} {,m} {n,m}`, each perhaps followed by `?`.
  private mutating func repeated(_ part: Node) throws -> Node {
    let begin = offset
    let (least, most): (Int, Int?)
    if skip("*") {
      (least, most) = (0, nil)
    } else if skip("+") {
      (least, most) = (1, nil)
    } else if skip("?") {
      (least, most) = (0, 1)
    } else if let counts = counts() {
      (least, most) = counts
    } else {
      return part
    }
    switch part {
    case .start, .end, .wordBoundary: throw error(at: begin, "a repetition of no character")
    default: break
    }
    if let most, most < least { throw error(at: begin, "a repetition of at least \(least) and at most \(most) times") }
    _ = skip("?")  // as few as possible: another way to the same names
    if let next = peek, [UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "?")].contains(next) { throw error("a second repetition") }
    return .repetition(part, from: least, to: most)
  }

  /// `{n}` and the like; a brace that begins no count stands for itself.
  private mutating func counts() -> (Int, Int?)? {
    let begin = offset
    guard skip("{") else { return nil }
    let first = number()
    let hasComma = skip(",")
    let second = hasComma ? number() : first
    guard skip("}"), first != nil || (hasComma && second != nil) || hasComma else {
      offset = begin
      return nil
    }
    return (first ?? 0, second)
  }

  /// Digits; a count beyond any name's length is as good as that length.
  private mutating func number() -> Int? {
    var value: Int?
    while let next = peek, Self.digitBytes.contains(next) {
      value = min((value ?? 0) * 10 + Int(next - UInt8(ascii: "0")), 1_000_000)
      offset += 1
    }
    return value
  }

  private mutating func atom() throws -> Node {
    let begin = offset
    let byte = try next("a part of a pattern")
    switch UnicodeScalar(byte) {
    case ".": return .characters(CharacterSet(bytes: [10], isInverted: true))
    case "^": return .start
    case "$": return .end
    case "(": return try group()
    case "[": return .characters(try characterClass())
    case "\\": return try escape()
    case "*", "+", "?": throw error(at: begin, "a repetition of nothing")
    default: return .characters(cased([byte]))
    }
  }

  private mutating func group() throws -> Node {
    let begin = offset - 1
    let node: Node
    if skip("?=") {
      node = .lookahead(try alternatives(), isPositive: true)
    } else if skip("?!") {
      node = .lookahead(try alternatives(), isPositive: false)
    } else if skip("?:") {
      node = try alternatives()
    } else if skip("?P<") {
      while let next = peek, Self.wordBytes.contains(next) { offset += 1 }
      guard skip(">") else { throw error("an unfinished name of a group") }
      node = try alternatives()
    } else if peek == UInt8(ascii: "?") {
      throw error(at: begin, "a group of another kind")
    } else {
      node = try alternatives()
    }
    guard skip(")") else { throw error(at: begin, "a group without an end") }
    return node
  }

  private mutating func escape() throws -> Node {
    let begin = offset - 1
    let byte = try next("what is escaped")
    switch UnicodeScalar(byte) {
    case "A": return .start
    case "Z": return .end
    case "b": return .wordBoundary(true)
    case "B": return .wordBoundary(false)
    default: return .characters(try escaped(byte, at: begin))
    }
  }

  private func escaped(_ byte: UInt8, at begin: Int) throws -> CharacterSet {
    switch UnicodeScalar(byte) {
    case "d", "D": return CharacterSet(bytes: Self.digitBytes, isInverted: byte == UInt8(ascii: "D"))
    case "w", "W": return CharacterSet(bytes: Self.wordBytes, isInverted: byte == UInt8(ascii: "W"))
    case "s", "S": return CharacterSet(bytes: Self.spaceBytes, isInverted: byte == UInt8(ascii: "S"))
    case "t": return CharacterSet(bytes: [9])
    case "n": return CharacterSet(bytes: [10])
    case "r": return CharacterSet(bytes: [13])
    default:
      guard !Self.letterBytes.contains(byte), !Self.digitBytes.contains(byte) else { throw error(at: begin, "an escape of another kind") }
      return CharacterSet(bytes: [byte])
    }
  }

  /// What stands between brackets.
  private mutating func characterClass() throws -> CharacterSet {
    let begin = offset - 1
    let isInverted = skip("^")
    var members: Set<UInt8> = []
    var isFirst = true
    while true {
      let at = offset
      let byte = try next("the end of a class")
      if byte == UInt8(ascii: "]"), !isFirst { break }
      isFirst = false
      guard let low = try member(byte, at: at, into: &members) else { continue }
      guard peek == UInt8(ascii: "-"), offset + 1 < bytes.count, bytes[offset + 1] != UInt8(ascii: "]") else {
        members.insert(low)
        continue
      }
      offset += 1
      var unused: Set<UInt8> = []
      guard let high = try member(try next("the end of a range"), at: offset - 1, into: &unused), low <= high else {
        throw error(at: begin, "a class with a range that is none")
      }
      members.formUnion(low...high)
    }
    let set = cased(members)
    return CharacterSet(bytes: set.bytes, isInverted: isInverted)
  }

  /// One character of a class; nil where it was a whole set, whose members it adds.
  private mutating func member(_ byte: UInt8, at begin: Int, into members: inout Set<UInt8>) throws -> UInt8? {
    guard byte == UInt8(ascii: "\\") else { return byte }
    let set = try escaped(try next("what is escaped"), at: begin)
    if !set.isInverted, set.bytes.count == 1 { return set.bytes.first }
    members.formUnion((0..<128).filter { set.contains($0) })
    return nil
  }

  private func cased(_ bytes: Set<UInt8>) -> CharacterSet {
    guard ignoresCase else { return CharacterSet(bytes: bytes) }
    return CharacterSet(bytes: bytes.union(bytes.filter(Self.letterBytes.contains).map { $0 ^ 0x20 }))
  }

  // MARK: Characters

  private var peek: UInt8? { offset < bytes.count ? bytes[offset] : nil }

  private mutating func next(_ expected: String) throws -> UInt8 {
    guard let byte = peek else { throw PatternError(found: "the end of the pattern", expected: expected) }
    offset += 1
    return byte
  }

  private mutating func skip(_ text: StaticString) -> Bool {
    let wanted = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    guard bytes[offset...].starts(with: wanted) else { return false }
    offset += wanted.count
    return true
  }

  private func error(at place: Int? = nil, _ what: String) -> PatternError {
    PatternError(
      found: "\(what) at byte \(place ?? offset) of the pattern",
      expected: "characters, classes, groups, | * + ? {n,m} ^ $ \\b, \\d \\w \\s and lookahead of Python's syntax; others are not built yet"
    )
  }
}
