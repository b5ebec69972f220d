/// A regular expression of those by which tokenizers cut a text, with Oniguruma's meaning, as `tokenizers` 0.20.3 runs it.
///
/// Known are alternatives, groups, `(?i:…)` around letters of ASCII, classes with ranges, unions, intersections and negations, `\p{…}` of
/// general categories and scripts, `\s \d \w \h` and their negations, quantifiers (greedy, lazy, possessive, counted), looking ahead,
/// looking behind by a fixed length, atomic groups, and anchors. Whatever else Oniguruma knows is refused with its name.
///
/// A match is found by trying alternatives in order and going back. States that failed are remembered once that has taken long, so the
/// time is O(length of the text · size of the expression) for every expression and every text.
public struct RegularExpression: Equatable, Sendable {
  /// The expression, or the text that it matches literally.
  public let source: String
  /// Whether the source is a text to be found as it is.
  public let isLiteral: Bool
  let program: RegularProgram

  /// Compiles an expression.
  ///
  /// - Throws: `PatternError` with what is not understood.
  public init(_ source: String) throws {
    guard source.utf8.count <= 1 << 16 else { throw PatternError("an expression of \(source.utf8.count) bytes") }
    var parser = RegularParser(source)
    program = try RegularProgram(parser.parse())
    self.source = source
    isLiteral = false
  }

  /// An expression that matches a text as it is.
  ///
  /// - Throws: `PatternError` if the text is longer than 1024 characters.
  public init(literal text: String) throws {
    guard text.unicodeScalars.count <= 1024 else { throw PatternError("a text of \(text.unicodeScalars.count) characters") }
    program = try RegularProgram(.sequence(text.unicodeScalars.map { .set(ScalarSet($0.value)) }))
    source = text
    isLiteral = true
  }

  /// An expression that matches a character.
  public init(_ character: Unicode.Scalar) {
    program = RegularProgram(ScalarSet(character.value))
    source = String(character)
    isLiteral = true
  }

  /// Whether both have the same source.
  public static func == (one: RegularExpression, other: RegularExpression) -> Bool {
    one.isLiteral == other.isLiteral && one.source.utf8.elementsEqual(other.source.utf8)
  }

  /// Hands on the matches in a part of a text, from left to right, which is all of the text that the expression sees.
  func forEachMatch(
    in bytes: UnsafeBufferPointer<UInt8>, _ ranges: [Range<Int>], _ body: (_ part: Range<Int>, _ match: Range<Int>?) -> Void
  ) {
    program.withMatcher(in: bytes) { matcher in
      for part in ranges {
        matcher.forEachMatch(in: part) { body(part, $0) }
        body(part, nil)
      }
    }
  }
}

/// Why an expression cannot be used.
public struct PatternError: Error, Equatable, Sendable {
  /// What stands in it that is not understood, or is too much.
  public let reason: String

  init(_ reason: String) { self.reason = reason }
}

/// An expression taken apart.
indirect enum RegularNode {
  enum Mode { case greedy, lazy, possessive }
  enum Anchor: Int32 { case textStart, textEnd, lastLineEnd, lineStart, lineEnd, wordBoundary, noWordBoundary }

  case set(ScalarSet)
  case sequence([RegularNode])
  case alternatives([RegularNode])
  case repeated(RegularNode, Int, Int?, Mode)
  case ahead(RegularNode, isNegated: Bool)
  case behind(RegularNode, isNegated: Bool)
  case atomic(RegularNode)
  case anchor(Anchor)

  /// Alternatives in order; those in a row that begin with the same set share it, which matches the same and is tried once.
  static func oneOf(_ parts: ArraySlice<RegularNode>) -> RegularNode {
    var result: [RegularNode] = []
    var rest = parts
    while let part = rest.popFirst() {
      guard let (set, tail) = part.headAndTail else {
        result.append(part)
        continue
      }
      var tails = [tail]
      while let (other, tail) = rest.first?.headAndTail, other == set {
        tails.append(tail)
        rest.removeFirst()
      }
      result.append(tails.count == 1 ? part : .sequence([.set(set), .oneOf(tails[...])]))
    }
    return result.count == 1 ? result[0] : .alternatives(result)
  }

  /// The set that a match begins with, and what follows it; nil where it does not begin so plainly.
  private var headAndTail: (set: ScalarSet, tail: RegularNode)? {
    switch self {
    case .set(let set): return (set, .sequence([]))
    case .sequence(let parts):
      guard case .set(let set) = parts.first else { return nil }
      return (set, parts.count == 2 ? parts[1] : .sequence(Array(parts.dropFirst())))
    default: return nil
    }
  }

  /// The number of code points of every match; nil if matches differ in it, or may.
  var width: Int? {
    switch self {
    case .set: return 1
    case .sequence(let parts):
      var sum = 0
      for part in parts {
        guard let width = part.width, sum + width <= RegularProgram.repetitionLimit else { return nil }
        sum += width
      }
      return sum
    case .alternatives(let parts):
      guard let width = parts.first?.width, parts.allSatisfy({ $0.width == width }) else { return nil }
      return width
    case .repeated(let part, let low, let high, _):
      guard low == high, let width = part.width else { return nil }
      let product = width.multipliedReportingOverflow(by: low)
      return product.overflow || product.partialValue > RegularProgram.repetitionLimit ? nil : product.partialValue
    case .ahead, .behind, .anchor: return 0
    case .atomic(let part): return part.width
    }
  }

  /// Whether it may match without a code point.
  var isNullable: Bool {
    switch self {
    case .set: false
    case .sequence(let parts): parts.allSatisfy(\.isNullable)
    case .alternatives(let parts): parts.contains(where: \.isNullable)
    case .repeated(let part, let low, _, _): low == 0 || part.isNullable
    case .ahead, .behind, .anchor: true
    case .atomic(let part): part.isNullable
    }
  }

  /// Whether the length of a match has no bound.
  var isUnbounded: Bool {
    switch self {
    case .set, .anchor, .ahead, .behind: false
    case .sequence(let parts), .alternatives(let parts): parts.contains(where: \.isUnbounded)
    case .repeated(let part, _, let high, _): high == nil || part.isUnbounded
    case .atomic(let part): part.isUnbounded
    }
  }
}
