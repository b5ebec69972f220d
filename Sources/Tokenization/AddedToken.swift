/// A token that is looked for in the text before it is cut into words: a control token, or a word that somebody added.
public struct AddedToken: Equatable, Sendable {
  /// The id.
  public var id: Int32
  /// The text that spells it, as UTF-8.
  public var content: [UInt8]
  /// Whether it is a control token, whose spelling a text may have by accident.
  public var isSpecial: Bool
  /// Whether it counts only where no letter, digit or mark touches it.
  public var isSingleWord: Bool
  /// Whether it takes the white space before it.
  public var stripsLeft: Bool
  /// Whether it takes the white space after it.
  public var stripsRight: Bool
  /// Whether it is looked for in the normalized text, and its spelling is normalized too.
  public var isNormalized: Bool

  /// A token with the given flags.
  public init(
    id: Int32, content: [UInt8], isSpecial: Bool, isSingleWord: Bool = false, stripsLeft: Bool = false, stripsRight: Bool = false,
    isNormalized: Bool = false
  ) {
    self.id = id
    self.content = content
    self.isSpecial = isSpecial
    self.isSingleWord = isSingleWord
    self.stripsLeft = stripsLeft
    self.stripsRight = stripsRight
    self.isNormalized = isNormalized
  }
}

/// Finds added tokens in a text: at the leftmost place the longest, and on after its end; or, as llama.cpp, the longest of all tokens
/// everywhere, then the next longest in what is left.
struct AddedTokenMatcher: Sendable {
  /// A part of the text: an added token, or text between them.
  struct Part {
    let range: Range<Int>
    let id: Int32?
  }

  private let tokens: [AddedToken]
  private let prefersLonger: Bool
  /// Node << 8 | byte → node.
  private var edges: [Int: Int] = [:]
  /// The token that ends in a node.
  private var ends: [Int: Int] = [:]
  private var nodeCount = 1
  /// Whether some token begins with the byte.
  private var firstBytes = [Bool](repeating: false, count: 256)

  /// - Parameter spelling: what is looked for, where it is not the content as it is.
  init(_ tokens: [AddedToken], prefersLonger: Bool = false, spelling: (AddedToken) -> [UInt8] = { $0.content }) {
    self.tokens = tokens
    self.prefersLonger = prefersLonger
    for (index, token) in tokens.enumerated() {
      var node = 0
      for (position, byte) in spelling(token).enumerated() {
        if position == 0 { firstBytes[Int(byte)] = true }
        let key = node << 8 | Int(byte)
        if let next = edges[key] {
          node = next
        } else {
          edges[key] = nodeCount
          node = nodeCount
          nodeCount += 1
        }
      }
      if node > 0 { ends[node] = index }
    }
  }

  /// Cuts a part of a text at its added tokens. A special token whose spelling is to stay text hides what begins inside of it all
  /// the same, as in `tokenizers`.
  ///
  /// - Complexity: O(bytes · length of the longest token).
  func parts(of bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, parsingControlTokens: Bool, _ body: (Part) -> Void) {
    if prefersLonger {
      longestParts(of: bytes, range, parsingControlTokens: parsingControlTokens, body)
      return
    }
    var copied = range.lowerBound
    var offset = range.lowerBound
    while !tokens.isEmpty, offset < range.upperBound {
      guard firstBytes[Int(bytes[offset])], let (index, end) = longest(in: bytes, at: offset, end: range.upperBound) else {
        offset += 1
        continue
      }
      let token = tokens[index]
      defer { offset = end }
      if token.isSpecial, !parsingControlTokens { continue }
      if token.isSingleWord, touchesWord(bytes, offset..<end, in: range) { continue }
      var (start, stop) = (offset, end)
      if token.stripsLeft { start = max(spacesBefore(start, in: bytes, start: range.lowerBound), copied) }
      if token.stripsRight { stop = spacesAfter(stop, in: bytes, end: range.upperBound) }
      if copied < start { body(Part(range: copied..<start, id: nil)) }
      body(Part(range: start..<stop, id: token.id))
      copied = stop
    }
    if copied < range.upperBound { body(Part(range: copied..<range.upperBound, id: nil)) }
  }

  /// As `parts`, but the longest tokens first. One that stays text hides nothing; of white space a token takes that of ASCII.
  private func longestParts(
    of bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, parsingControlTokens: Bool, _ body: (Part) -> Void
  ) {
    var present: Set<Int> = []
    for offset in range where firstBytes[Int(bytes[offset])] {
      forEachToken(in: bytes, at: offset, end: range.upperBound) { index, _ in
        if parsingControlTokens || !tokens[index].isSpecial { present.insert(index) }
      }
    }
    var parts = range.isEmpty ? [] : [Part(range: range, id: nil)]
    for index in present.sorted(by: { (-tokens[$0].content.count, tokens[$0].id) < (-tokens[$1].content.count, tokens[$1].id) }) {
      let token = tokens[index]
      parts = parts.flatMap { part in
        guard part.id == nil else { return [part] }
        var result: [Part] = []
        var (copied, offset) = (part.range.lowerBound, part.range.lowerBound)
        while offset + token.content.count <= part.range.upperBound {
          guard bytes[offset] == token.content[0], bytes[offset..<(offset + token.content.count)].elementsEqual(token.content) else {
            offset += 1
            continue
          }
          var (start, stop) = (offset, offset + token.content.count)
          while token.stripsLeft, start > copied, Self.isSpace(bytes[start - 1]) { start -= 1 }
          while token.stripsRight, stop < part.range.upperBound, Self.isSpace(bytes[stop]) { stop += 1 }
          if copied < start { result.append(Part(range: copied..<start, id: nil)) }
          result.append(Part(range: start..<stop, id: token.id))
          (copied, offset) = (stop, stop)
        }
        if copied < part.range.upperBound { result.append(Part(range: copied..<part.range.upperBound, id: nil)) }
        return result
      }
    }
    parts.forEach(body)
  }

  private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }

  /// Hands on the tokens that begin at an offset, the shortest first.
  private func forEachToken(in bytes: UnsafeBufferPointer<UInt8>, at offset: Int, end: Int, _ body: (_ token: Int, _ end: Int) -> Void) {
    var node = 0
    var offset = offset
    while offset < end, let next = edges[node << 8 | Int(bytes[offset])] {
      node = next
      offset += 1
      if let token = ends[node] { body(token, offset) }
    }
  }

  private func longest(in bytes: UnsafeBufferPointer<UInt8>, at offset: Int, end: Int) -> (token: Int, end: Int)? {
    var best: (token: Int, end: Int)?
    forEachToken(in: bytes, at: offset, end: end) { best = ($0, $1) }
    return best
  }

  private func touchesWord(_ bytes: UnsafeBufferPointer<UInt8>, _ token: Range<Int>, in range: Range<Int>) -> Bool {
    let classes = UnicodeClasses.table
    return token.lowerBound > range.lowerBound
      && classes.before(token.lowerBound, in: bytes, start: range.lowerBound).flags.contains(.word)
      || token.upperBound < range.upperBound && classes.at(token.upperBound, in: bytes, end: range.upperBound).flags.contains(.word)
  }

  private func spacesBefore(_ offset: Int, in bytes: UnsafeBufferPointer<UInt8>, start: Int) -> Int {
    var offset = offset
    while offset > start {
      let last = UnicodeClasses.table.before(offset, in: bytes, start: start)
      guard last.flags.contains(.space) else { break }
      offset -= last.length
    }
    return offset
  }

  private func spacesAfter(_ offset: Int, in bytes: UnsafeBufferPointer<UInt8>, end: Int) -> Int {
    var offset = offset
    while offset < end {
      let next = UnicodeClasses.table.at(offset, in: bytes, end: end)
      guard next.flags.contains(.space) else { break }
      offset += next.length
    }
    return offset
  }
}
