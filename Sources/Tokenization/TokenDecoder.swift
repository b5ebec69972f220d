import JSON

/// A step that makes text of tokens.
public enum TokenDecoder: Equatable, Sendable {
  /// Characters of the byte-level alphabet become the bytes that they stand for: `ByteLevel`.
  case byteLevel
  /// A text in every token becomes another: `Replace`.
  case replace([UInt8], [UInt8])
  /// Tokens such as "<0x0A>" become their byte: `ByteFallback`. Those in a row that are no UTF-8 together become U+FFFD, each one.
  case byteFallback
  /// Such tokens become their byte, whatever stands beside them, as in llama.cpp.
  case byteTokens
  /// The tokens are one text from here on: `Fuse`.
  case fuse
  /// At most so many of a character are taken away at the beginning and at the end: `Strip`.
  case strip([UInt8], start: Int, stop: Int)
  /// A character becomes a blank, or nothing in the first token if `dropsFirst`: `Metaspace`.
  case metaspace([UInt8], dropsFirst: Bool)
  /// A blank between tokens: what `tokenizers` does where there is no decoder.
  case blanks
}

/// The steps of a decoder at work on tokens that come one at a time. What may still change with the next token is held back.
struct DecodingChain: Sendable {
  /// The steps before the tokens are one text; each sees one token.
  private let steps: [TokenDecoder]
  /// The steps behind that, which see the whole text.
  private let strips: [(character: [UInt8], start: Int, stop: Int)]
  private let sparesAdded: Bool

  private var isFirst = true
  /// Bytes of tokens in a row that `byteFallback` waits with.
  private var waiting: [UInt8] = []
  /// For each of `strips`: how many may still go at the beginning, and the end that may still go.
  private var strippable: [Int]
  private var tails: [[UInt8]]

  /// - Parameter sparesAdded: whether an added token is its spelling.
  init(_ decoders: [TokenDecoder], sparesAdded: Bool) {
    let isWhole = decoders.firstIndex { $0 == .fuse || $0 == .byteLevel }.map { decoders.index(after: $0) } ?? decoders.endIndex
    steps = Array(decoders[..<isWhole])
    strips = decoders[isWhole...].compactMap { step in
      guard case .strip(let character, let start, let stop) = step else { return nil }
      return (character, start, stop)
    }
    self.sparesAdded = sparesAdded
    strippable = strips.map(\.start)
    tails = strips.map { _ in [] }
  }

  /// Bytes that are held back.
  var heldCount: Int { waiting.count + tails.map(\.count).reduce(0, +) }

  /// The bytes that are certain after one more token.
  mutating func bytes(after token: [UInt8], isAdded: Bool) -> [UInt8] {
    var token = token
    var before: [UInt8] = []
    for step in steps {
      switch step {
      case .byteLevel: if !(isAdded && sparesAdded) { token = ByteAlphabet.decode(token) }
      case .replace(let old, let new): if !(isAdded && sparesAdded) { token = token.replacing(old, with: new) }
      case .byteTokens: if !(isAdded && sparesAdded), let byte = ByteToken.byte(of: token) { token = [byte] }
      case .byteFallback:
        if let byte = ByteToken.byte(of: token) {
          waiting.append(byte)
          // What follows a byte is not first, though the byte is not certain yet.
          isFirst = false
          return []
        }
        before = takeWaiting()
      case .fuse: break
      case .strip(let character, let start, let stop): token = Self.stripped(token, character, start, stop)
      case .metaspace(let character, let dropsFirst):
        token = token.replacing(character, with: isFirst && dropsFirst ? [] : [UInt8(ascii: " ")])
      case .blanks: if !isFirst { token.insert(UInt8(ascii: " "), at: 0) }
      }
    }
    isFirst = false
    return stripping(before + token)
  }

  /// The bytes that are left at the end.
  mutating func finish() -> [UInt8] {
    let result = stripping(takeWaiting())
    tails = tails.map { _ in [] }
    return result
  }

  private mutating func takeWaiting() -> [UInt8] {
    defer { waiting = [] }
    return firstInvalidUTF8(in: waiting) == nil ? waiting : waiting.flatMap { _ in Array("\u{FFFD}".utf8) }
  }

  /// What the steps behind the joining make of the next bytes of the text.
  private mutating func stripping(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    for (index, (character, _, stop)) in strips.enumerated() {
      while strippable[index] > 0, !bytes.isEmpty {
        guard bytes.starts(with: character) else {
          strippable[index] = 0
          break
        }
        bytes.removeFirst(character.count)
        strippable[index] -= 1
      }
      guard stop > 0 else { continue }
      bytes = tails[index] + bytes
      var end = bytes.count
      var count = 0
      while count < stop, bytes[..<end].suffix(character.count).elementsEqual(character) {
        end -= character.count
        count += 1
      }
      tails[index] = Array(bytes[end...])
      bytes.removeSubrange(end...)
    }
    return bytes
  }

  private static func stripped(_ token: [UInt8], _ character: [UInt8], _ start: Int, _ stop: Int) -> [UInt8] {
    var token = token[...]
    for _ in 0..<start where token.starts(with: character) { token = token.dropFirst(character.count) }
    for _ in 0..<stop where token.suffix(character.count).elementsEqual(character) { token = token.dropLast(character.count) }
    return Array(token)
  }
}

extension [UInt8] {
  /// These bytes with every occurrence of some, from left to right, replaced by others.
  func replacing(_ old: [UInt8], with new: [UInt8]) -> [UInt8] {
    guard let first = old.first, contains(first) else { return self }
    var result: [UInt8] = []
    var offset = 0
    while offset < count {
      if self[offset] == first, self[offset...].starts(with: old) {
        result += new
        offset += old.count
      } else {
        result.append(self[offset])
        offset += 1
      }
    }
    return result
  }
}
