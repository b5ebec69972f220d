/// A regular expression over module names, in the part of Python's syntax that PEFT's configurations use.
///
/// Characters, `.`, classes, groups, alternation, repetition (greedy or not, which makes no difference to whether a whole name matches),
/// `^ $ \A \Z \b \B`, lookahead, and `(?i)`. Everything else of Python's syntax is refused by name.
///
/// A name is matched by relations: of every part of the pattern, once, which places in the name it leads to from which. So the time is
/// bounded by parts × (length of the name)², whatever the pattern.
struct ModulePattern: Equatable, Sendable {
  /// The pattern as it was written.
  let text: String
  private let root: Node

  /// A part of a pattern.
  indirect enum Node: Equatable, Sendable {
    case characters(CharacterSet)
    case sequence([Node])
    case alternatives([Node])
    case repetition(Node, from: Int, to: Int?)
    case start, end, wordBoundary(Bool)
    case lookahead(Node, isPositive: Bool)
  }

  /// Bytes that one position may have; module names are ASCII.
  struct CharacterSet: Equatable, Sendable {
    var bytes: Set<UInt8> = []
    var isInverted = false

    func contains(_ byte: UInt8) -> Bool { bytes.contains(byte) != isInverted }
  }

  /// Parses a pattern.
  ///
  /// - Throws: `PatternError` for what is no pattern, or not built.
  init(_ text: String) throws {
    self.text = text
    var parser = try ModulePatternParser(text)
    root = try parser.parse()
  }

  /// Whether the whole name matches; no module's name has more than 63 bytes.
  func matches(_ name: String) -> Bool {
    let name = Array(name.utf8)
    return name.count < 64 && relation(root, name)[0] >> name.count & 1 == 1
  }

  static func == (left: ModulePattern, right: ModulePattern) -> Bool { left.text.utf8.elementsEqual(right.text.utf8) }

  /// For each place of the name, 0 to its length, the places at which a part may end that begins there: bit p for place p.
  private typealias Relation = [UInt64]

  private func relation(_ node: Node, _ name: [UInt8]) -> Relation {
    func staying(where holds: (Int) -> Bool) -> Relation { (0...name.count).map { holds($0) ? 1 << UInt64($0) : 0 } }
    switch node {
    case .characters(let set): return (0...name.count).map { $0 < name.count && set.contains(name[$0]) ? 2 << UInt64($0) : 0 }
    case .sequence(let parts): return parts.reduce(staying { _ in true }) { Self.composed($0, relation($1, name)) }
    case .alternatives(let choices):
      return choices.reduce(Relation(repeating: 0, count: name.count + 1)) { zip($0, relation($1, name)).map { $0 | $1 } }
    case .repetition(let part, let least, let most):
      let once = relation(part, name)
      // Beyond as many rounds as there are places nothing changes: places only grow.
      let required = Self.power(once, min(least, name.count + 1))
      guard let most else { return Self.composed(required, Self.closure(once)) }
      let optional = once.enumerated().map { $1 | 1 << UInt64($0) }
      return Self.composed(required, Self.power(optional, min(most - least, name.count + 1)))
    case .start: return staying { $0 == 0 }
    case .end: return staying { $0 == name.count }
    case .wordBoundary(let expected):
      func isWord(_ place: Int) -> Bool { name.indices.contains(place) && ModulePatternParser.wordBytes.contains(name[place]) }
      return staying { (isWord($0 - 1) != isWord($0)) == expected }
    case .lookahead(let part, let isPositive):
      let ahead = relation(part, name)
      return staying { (ahead[$0] != 0) == isPositive }
    }
  }

  /// The first, then the second.
  private static func composed(_ first: Relation, _ second: Relation) -> Relation {
    first.map { places in
      var (rest, ends): (UInt64, UInt64) = (places, 0)
      while rest != 0 {
        ends |= second[rest.trailingZeroBitCount]
        rest &= rest - 1
      }
      return ends
    }
  }

  /// As often as one likes, from the last place to the first: a part never leads back.
  private static func closure(_ once: Relation) -> Relation {
    var all = once
    for place in once.indices.reversed() {
      var (rest, ends): (UInt64, UInt64) = (once[place] & ~(1 << UInt64(place)), 1 << UInt64(place))
      while rest != 0 {
        ends |= all[rest.trailingZeroBitCount]
        rest &= rest - 1
      }
      all[place] = ends
    }
    return all
  }

  private static func power(_ once: Relation, _ count: Int) -> Relation {
    var (result, square, rest) = (once.indices.map { 1 << UInt64($0) } as Relation, once, count)
    while rest > 0 {
      if rest % 2 == 1 { result = composed(result, square) }
      square = composed(square, square)
      rest /= 2
    }
    return result
  }
}

/// Why a text is no pattern that is read here.
struct PatternError: Error {
  /// What was found.
  let found: String
  /// What was expected.
  let expected: String
}
