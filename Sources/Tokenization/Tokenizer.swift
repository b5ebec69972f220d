/// A tokenizer: the ids are those of Hugging Face's `tokenizers` 0.20.3, and of a GGUF file those of llama.cpp.
///
/// A text is cut at its added tokens, normalized, cut into words, and a model makes tokens of each: byte pair encoding over bytes (GPT-2,
/// Llama-3, Qwen2) or over characters that fall back to bytes (Llama-2, Mistral, Gemma), or a unigram model. Everything is keyed by bytes.
/// `decode(encode(text))` is the text for every valid UTF-8 text that the normalizers leave as it is, as far as the vocabulary has all
/// bytes (`missingBytes` tells): like its model, a tokenizer drops what it has no token for.
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
  /// Whether the files put `endToken` behind every sequence (`add_eos_token`). `encode` never adds it.
  public let addsEndToken: Bool
  /// What its files leave open and a user may want to know of: a sentence each.
  public let notes: [String]
  /// The bytes that no token stands for by itself; text that has them loses them, or gets the unknown token.
  public let missingBytes: [UInt8]

  let normalizers: [Normalizer]
  let preTokenizers: [PreTokenizer]
  private let model: WordModel
  private let verbatim: AddedTokenMatcher
  private let normalized: AddedTokenMatcher
  private let splitsControlTokens: Bool
  /// The decoder before the first token.
  let chain: DecodingChain
  /// Id → the token as the vocabulary writes it.
  let spellings: [[UInt8]?]
  let addedIDs: [[UInt8]: Int32]

  /// Makes a tokenizer.
  ///
  /// - Throws: `CheckpointError` where ids or texts stand twice, or a merge speaks of a token that the vocabulary lacks.
  /// - Complexity: O(bytes of all tokens and merges).
  public init(_ description: TokenizerDescription) throws {
    let vocabulary = try Vocabulary(description)
    notes = description.notes
    model = try WordModel(description, vocabulary.table)
    missingBytes = model.missingBytes
    let normalizers = description.normalizers
    verbatim = AddedTokenMatcher(
      description.addedTokens.filter { !$0.isNormalized }, prefersLonger: description.prefersLongerAddedTokens)
    normalized = AddedTokenMatcher(description.addedTokens.filter(\.isNormalized), prefersLonger: description.prefersLongerAddedTokens) {
      normalizers.applied(to: $0.content)
    }
    self.normalizers = normalizers
    preTokenizers = description.preTokenizers
    splitsControlTokens = description.splitsControlTokens
    chain = DecodingChain(description.decoders, sparesAdded: description.sparesAddedTokens)
    spellings = vocabulary.spellings
    addedIDs = vocabulary.addedIDs
    vocabularySize = spellings.count
    beginToken = description.beginToken
    endToken = description.endToken
    endTokens = Set(description.otherEndTokens + (description.endToken.map { [$0] } ?? []))
    addsBeginToken = description.addsBeginToken
    addsEndToken = description.addsEndToken
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
    let parsesControlTokens = parsingControlTokens && !splitsControlTokens
    var merger = BytePairMerger()
    text.withUnsafeBufferPointer { bytes in
      verbatim.parts(of: bytes, 0..<bytes.count, parsingControlTokens: parsesControlTokens) { part in
        if let id = part.id { return emit(id, { part.range }) }
        let changed = normalizers.applied(to: part.range, of: original)
        let working = changed ?? original
        let range = changed.map { 0..<$0.bytes.count } ?? part.range
        working.bytes.withUnsafeBufferPointer { bytes in
          normalized.parts(of: bytes, range, parsingControlTokens: parsesControlTokens) { part in
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
      for piece in pieces { model.encode(piece, of: bytes, &merger) { id, range in emit(id, { text.origin(of: range) }) } }
    }
  }
}
