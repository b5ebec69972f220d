/// What makes tokens of the words that the text was cut into.
struct WordModel: Sendable {
  private enum Rule: Sendable {
    case merges(MergeTable)
    case scores(ScoredPairs)
    case unigram(UnigramModel)
  }

  private let table: TokenTable
  private let rule: Rule
  private let isByteLevel: Bool
  private let ignoresMerges: Bool
  private let fusesUnknown: Bool
  private let unknown: Int32?
  /// The token of each byte of a byte-level text, else of each character of ASCII; −1 where there is none.
  private let singles: [Int32]
  /// The tokens "<0x00>" to "<0xFF>", −1 where there is none; empty where a character never is its bytes.
  private let byteTokens: [Int32]

  /// - Throws: `CheckpointError` where a merge or the unknown token speaks of a token that the vocabulary lacks.
  init(_ description: TokenizerDescription, _ table: TokenTable) throws {
    self.table = table
    isByteLevel = description.isByteLevel
    ignoresMerges = description.ignoresMerges
    fusesUnknown = description.fusesUnknown
    let unknown = try description.unknownToken.map { token in
      guard let id = table.id(of: token) else { throw description.error("unk_token", shown(token), "a token of the vocabulary") }
      return id
    }
    self.unknown = unknown
    switch description.model {
    case .bytePairs: rule = .merges(try Self.merges(of: description, table))
    case .scoredPairs: rule = .scores(ScoredPairs(table, description.vocabulary))
    case .unigram:
      guard let unknown else { throw description.error("unk_id", "nothing", "the id of the unknown token") }
      guard !description.isByteLevel else { throw description.error("pre_tokenizer", "ByteLevel before a Unigram model", "no ByteLevel") }
      rule = .unigram(UnigramModel(description.vocabulary, table, unknown: unknown))
    }
    let isByteLevel = isByteLevel
    singles = (0...255).map { byte in
      if isByteLevel { return table.id(of: ByteAlphabet.encode(CollectionOfOne(UInt8(byte)))) ?? -1 }
      return byte < 0x80 ? table.id(of: [UInt8(byte)]) ?? -1 : -1
    }
    if isByteLevel, description.fallsBackToBytes, singles.contains(-1), table.id(of: ByteToken.spelling(of: 0)) != nil {
      throw description.error("model.byte_fallback", "true with ByteLevel and a vocabulary that lacks bytes", "false")
    }
    byteTokens = description.fallsBackToBytes ? (0...255).map { table.id(of: ByteToken.spelling(of: UInt8($0))) ?? -1 } : []
  }

  private static func merges(of description: TokenizerDescription, _ table: TokenTable) throws -> MergeTable {
    var merges = MergeTable(capacity: description.merges.count)
    for (rank, merge) in description.merges.enumerated() {
      func id(_ token: [UInt8]) throws -> Int32 {
        guard let id = table.id(of: token) else {
          throw description.error(
            "merges", "\(shown(merge.left)) and \(shown(merge.right)) at \(rank)",
            "both and \(shown(merge.left + merge.right)) in the vocabulary")
        }
        return id
      }
      guard merges.append(try id(merge.left), try id(merge.right), result: try id(merge.left + merge.right)) else {
        throw description.error("merges", "\(shown(merge.left)) and \(shown(merge.right)) again at \(rank)", "each pair once")
      }
    }
    return merges
  }

  /// The bytes that no token stands for by itself.
  var missingBytes: [UInt8] {
    (0...255).map { UInt8($0) }.filter { singles[Int($0)] < 0 && (byteTokens.isEmpty || byteTokens[Int($0)] < 0) }
  }

  /// Hands on the tokens of a word, each with its place in the text.
  func encode(
    _ piece: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>, _ merger: inout BytePairMerger, _ emit: (Int32, Range<Int>) -> Void
  ) {
    if ignoresMerges, let id = whole(piece, of: bytes) { return emit(id, piece) }
    switch rule {
    case .unigram(let model):
      model.forEachToken(of: piece, in: bytes) { id, range in
        if let id { emit(id, range) } else if !fallBack(range, of: bytes, emit), let unknown { emit(unknown, range) }
      }
    case .merges(let merges):
      if isByteLevel { splitBytes(piece, of: bytes, into: &merger) } else { split(piece, of: bytes, into: &merger) }
      merger.merge(by: merges)
      for symbol in merger.symbols where symbol.length > 0 { emit(symbol.id, symbol.start..<(symbol.start + symbol.length)) }
    case .scores(let pairs):
      merger.removeAll()
      forEachCharacter(of: piece, in: bytes) { range in
        merger.add(token(range, of: bytes) ?? -1, start: range.lowerBound, length: range.count)
      }
      merger.merge(by: ScoredPairs.Rule(pairs: pairs, bytes: bytes))
      for symbol in merger.symbols where symbol.length > 0 {
        let range = symbol.start..<(symbol.start + symbol.length)
        if symbol.id >= 0 { emit(symbol.id, range) } else { fallBackSingly(range, of: bytes, emit) }
      }
    }
  }

  private func whole(_ piece: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>) -> Int32? {
    isByteLevel ? table.id(of: ByteAlphabet.encode(bytes[piece])) : table.id(of: UnsafeBufferPointer(rebasing: bytes[piece]))
  }

  // MARK: Symbols

  private func forEachCharacter(of piece: Range<Int>, in bytes: UnsafeBufferPointer<UInt8>, _ body: (Range<Int>) -> Void) {
    var offset = piece.lowerBound
    while offset < piece.upperBound {
      let length = UTF8Scalars.scalar(bytes, at: offset, end: piece.upperBound).length
      body(offset..<(offset + length))
      offset += length
    }
  }

  /// The token of a character.
  @inline(__always)
  private func token(_ character: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>) -> Int32? {
    if character.count == 1, bytes[character.lowerBound] < 0x80 {
      let id = singles[Int(bytes[character.lowerBound])]
      return id >= 0 ? id : nil
    }
    return table.id(of: UnsafeBufferPointer(rebasing: bytes[character]))
  }

  /// A symbol for each character of a word. An unknown one waits for the next that is a token, so that bytes of a character between
  /// them go before it, as in `tokenizers`.
  private func split(_ piece: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>, into merger: inout BytePairMerger) {
    merger.removeAll()
    var waiting: Range<Int>?
    forEachCharacter(of: piece, in: bytes) { range in
      if let id = token(range, of: bytes) {
        if let place = waiting, let unknown { merger.add(unknown, start: place.lowerBound, length: place.count) }
        waiting = nil
        merger.add(id, start: range.lowerBound, length: range.count)
      } else if !fallBack(range, of: bytes, { merger.add($0, start: $1.lowerBound, length: $1.count) }), let unknown {
        if let place = waiting {
          if fusesUnknown {
            waiting = place.lowerBound..<range.upperBound
            return
          }
          merger.add(unknown, start: place.lowerBound, length: place.count)
        }
        waiting = range
      }
    }
    if let place = waiting, let unknown { merger.add(unknown, start: place.lowerBound, length: place.count) }
  }

  /// A symbol for each byte of a word.
  private func splitBytes(_ piece: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>, into merger: inout BytePairMerger) {
    merger.removeAll()
    var unknownLength = 0
    for offset in piece {
      let id = singles[Int(bytes[offset])]
      if id >= 0 {
        if unknownLength > 0, let unknown { merger.add(unknown, start: offset - unknownLength, length: unknownLength) }
        unknownLength = 0
        merger.add(id, start: offset, length: 1)
      } else if let unknown {
        if unknownLength > 0, !fusesUnknown {
          merger.add(unknown, start: offset - unknownLength, length: unknownLength)
          unknownLength = 0
        }
        unknownLength += 1
      }
    }
    if unknownLength > 0, let unknown { merger.add(unknown, start: piece.upperBound - unknownLength, length: unknownLength) }
  }

  // MARK: Bytes

  /// The bytes of a passage, if there is a token for each.
  private func fallBack(_ range: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>, _ emit: (Int32, Range<Int>) -> Void) -> Bool {
    guard !byteTokens.isEmpty, range.allSatisfy({ byteTokens[Int(bytes[$0])] >= 0 }) else { return false }
    for offset in range { emit(byteTokens[Int(bytes[offset])], offset..<(offset + 1)) }
    return true
  }

  /// The bytes of a character, each as its byte token, or the token that is the byte, or the unknown one: as llama.cpp, which breaks off
  /// where this takes the unknown one.
  private func fallBackSingly(_ range: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>, _ emit: (Int32, Range<Int>) -> Void) {
    for offset in range {
      let byte = Int(bytes[offset])
      let id = !byteTokens.isEmpty && byteTokens[byte] >= 0 ? byteTokens[byte] : singles[byte]
      if id >= 0 { emit(id, offset..<(offset + 1)) } else if let unknown { emit(unknown, offset..<(offset + 1)) }
    }
  }
}

/// The tokens that stand for single bytes where the vocabulary is one of characters: "<0x0A>".
enum ByteToken {
  private static let digits = Array("0123456789ABCDEF".utf8)

  /// How the token of a byte is written.
  static func spelling(of byte: UInt8) -> [UInt8] {
    Array("<0x".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)], UInt8(ascii: ">")]
  }

  /// The byte of a token; nil for any other token. As in `tokenizers`, small digits and a plus sign before one digit will do.
  static func byte(of token: [UInt8]) -> UInt8? {
    guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">") else { return nil }
    return UInt8(String(decoding: token[3..<5], as: UTF8.self), radix: 16)
  }
}
