/// A byte-level BPE tokenizer: the ids are those of Hugging Face's `tokenizers` 0.20.3.
///
/// A text is cut at its added tokens, normalized, cut into words, and the bytes of each word are merged by rank. Everything is keyed by
/// bytes. `decode(encode(text))` is the text for every valid UTF-8 text that is in normal form where the tokenizer normalizes, as far
/// as the vocabulary has all bytes (`missingBytes` tells): like its model, a tokenizer drops a byte that it has no token for.
public struct Tokenizer: Sendable {
  /// A token and the bytes of the text that it stands for.
  public struct Token: Equatable, Sendable {
    /// The id.
    public var id: Int32
    /// Byte offsets into the text. A token may end inside of a character; tokens of a passage that the normalizer changed all stand for
    /// the whole passage; a blank that was put before the text stands for nothing.
    public var range: Range<Int>

    /// A token and its place.
    public init(id: Int32, range: Range<Int>) {
      self.id = id
      self.range = range
    }
  }

  /// One more than the greatest id.
  public let vocabularySize: Int
  /// The token that begins a sequence.
  public let beginToken: Int32?
  /// The token that ends a sequence.
  public let endToken: Int32?
  /// All tokens at which generation ends: `endToken` and the others that the model's files name.
  public let endTokens: Set<Int32>
  /// Whether a sequence begins with `beginToken`. `encode` never adds it.
  public let addsBeginToken: Bool
  /// The bytes that no token stands for by itself; text that has them loses them, or gets the unknown token.
  public let missingBytes: [UInt8]

  let normalizers: [Normalizer]
  let preTokenizers: [PreTokenizer]
  private let ignoresMerges: Bool
  private let fusesUnknown: Bool
  private let unknown: Int32?
  private let table: TokenTable
  private let merges: MergeTable
  /// The token of each byte, or −1.
  private let byteTokens: [Int32]
  private let verbatim: AddedTokenMatcher
  private let normalized: AddedTokenMatcher
  /// Id → bytes; nil for an id without token.
  let contents: [[UInt8]?]
  /// Id → the token as the vocabulary writes it.
  let spellings: [[UInt8]?]
  let addedIDs: [[UInt8]: Int32]

  /// Makes a tokenizer.
  ///
  /// - Throws: `CheckpointError` where ids or texts stand twice, or a merge speaks of a token that the vocabulary lacks.
  /// - Complexity: O(bytes of all tokens and merges).
  public init(_ description: TokenizerDescription) throws {
    let vocabulary = try Vocabulary(description)
    let table = vocabulary.table
    unknown = try description.unknownToken.map { token in
      guard let id = table.id(of: token) else { throw description.error("unk_token", shown(token), "a token of the vocabulary") }
      return id
    }
    merges = try Self.merges(of: description, table)
    self.table = table
    byteTokens = (0...255).map { table.id(of: ByteAlphabet.encode(CollectionOfOne(UInt8($0)))) ?? -1 }
    missingBytes = (0...255).map { UInt8($0) }.filter { [byteTokens] in byteTokens[Int($0)] < 0 }
    let normalizers = description.normalizers
    verbatim = AddedTokenMatcher(description.addedTokens.filter { !$0.isNormalized })
    normalized = AddedTokenMatcher(description.addedTokens.filter(\.isNormalized)) {
      normalizers.applied(to: $0.content)
    }
    self.normalizers = normalizers
    preTokenizers = description.preTokenizers
    ignoresMerges = description.ignoresMerges
    fusesUnknown = description.fusesUnknown
    spellings = vocabulary.spellings
    contents = vocabulary.contents
    addedIDs = vocabulary.addedIDs
    vocabularySize = contents.count
    beginToken = description.beginToken
    endToken = description.endToken
    endTokens = Set(description.otherEndTokens + (description.endToken.map { [$0] } ?? []))
    addsBeginToken = description.addsBeginToken
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

  // MARK: Encoding

  /// The ids of a text, without a begin token.
  ///
  /// - Parameter parsingControlTokens: whether text that spells a control token becomes that token, as Hugging Face does; otherwise it
  ///   stays text, so that nobody can write one. Added tokens that are not special are found either way.
  /// - Complexity: O(n log n) in the length of the longest word, else linear.
  public func encode(_ text: String, parsingControlTokens: Bool = false) -> [Int32] {
    encode(Array(text.utf8), parsingControlTokens: parsingControlTokens)
  }

  /// The ids of a text given as bytes; bytes that are no UTF-8 are encoded one by one.
  public func encode(_ text: [UInt8], parsingControlTokens: Bool = false) -> [Int32] {
    var ids: [Int32] = []
    ids.reserveCapacity(text.count / 3)
    encode(text, parsingControlTokens) { id, _ in ids.append(id) }
    return ids
  }

  /// The tokens of a text with the bytes that each stands for.
  public func encodeWithOffsets(_ text: [UInt8], parsingControlTokens: Bool = false) -> [Token] {
    var tokens: [Token] = []
    encode(text, parsingControlTokens) { id, range in tokens.append(Token(id: id, range: range())) }
    return tokens
  }

  /// The tokens of a text with the bytes that each stands for.
  public func encodeWithOffsets(_ text: String, parsingControlTokens: Bool = false) -> [Token] {
    encodeWithOffsets(Array(text.utf8), parsingControlTokens: parsingControlTokens)
  }

  private func encode(_ text: [UInt8], _ parsingControlTokens: Bool, _ emit: (Int32, () -> Range<Int>) -> Void) {
    let original = WorkingText(original: text)
    var merger = BytePairMerger()
    text.withUnsafeBufferPointer { bytes in
      verbatim.parts(of: bytes, 0..<bytes.count, parsingControlTokens: parsingControlTokens) { part in
        if let id = part.id { return emit(id, { part.range }) }
        let changed = normalizers.applied(to: part.range, of: original)
        let working = changed ?? original
        let range = changed.map { 0..<$0.bytes.count } ?? part.range
        working.bytes.withUnsafeBufferPointer { bytes in
          normalized.parts(of: bytes, range, parsingControlTokens: parsingControlTokens) { part in
            if let id = part.id { return emit(id, { working.origin(of: part.range) }) }
            encode(part.range, of: working, &merger, emit)
          }
        }
      }
    }
  }

  /// Encodes a part without added tokens.
  private func encode(_ part: Range<Int>, of text: WorkingText, _ merger: inout BytePairMerger, _ emit: (Int32, () -> Range<Int>) -> Void) {
    var text = text
    var pieces = [part]
    for step in preTokenizers { pieces = step.cut(&text, pieces) }
    text.bytes.withUnsafeBufferPointer { bytes in
      for piece in pieces {
        if ignoresMerges, let id = table.id(of: ByteAlphabet.encode(bytes[piece])) {
          emit(id, { text.origin(of: piece) })
          continue
        }
        split(piece, of: bytes, into: &merger)
        merger.merge(by: merges)
        for symbol in merger.symbols where symbol.length > 0 {
          emit(symbol.id, { text.origin(of: symbol.start..<(symbol.start + symbol.length)) })
        }
      }
    }
  }

  /// A symbol for each byte of a word.
  private func split(_ piece: Range<Int>, of bytes: UnsafeBufferPointer<UInt8>, into merger: inout BytePairMerger) {
    merger.removeAll()
    var unknownLength = 0
    for offset in piece {
      let id = byteTokens[Int(bytes[offset])]
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
}
