/// All that makes a tokenizer, as plain values: what `tokenizer.json` says, `tokenizer.model`, or the metadata of a GGUF file.
public struct TokenizerDescription: Sendable {
  /// What makes tokens of a word.
  public enum Model: Equatable, Sendable {
    /// Pairs are merged by rank: byte pair encoding.
    case bytePairs
    /// Pairs whose text is a token are merged, the greatest score first: SentencePiece's BPE as llama.cpp runs it.
    case scoredPairs
    /// The tokens of the greatest sum of scores: a unigram language model.
    case unigram
  }

  /// A token of the vocabulary.
  public struct Entry: Sendable {
    /// The token as it is written: of a byte-level tokenizer in its alphabet ("Ġ" is the blank), of SentencePiece's with "▁" for the blank.
    public var text: [UInt8]
    /// Its id.
    public var id: Int32
    /// What it counts for; 0 where pairs are merged by rank.
    public var score: Double

    /// A token, its id and its score.
    public init(text: [UInt8], id: Int32, score: Double = 0) {
      self.text = text
      self.id = id
      self.score = score
    }
  }

  /// A merge: two tokens as they are written. Their place in the list is their rank.
  public struct Merge: Sendable {
    /// The left token.
    public var left: [UInt8]
    /// The right token.
    public var right: [UInt8]

    /// A merge of two tokens.
    public init(left: [UInt8], right: [UInt8]) {
      self.left = left
      self.right = right
    }
  }

  /// The file that errors name.
  public var source: String
  /// What its files leave open and a user may want to know of: a sentence each.
  public var notes: [String] = []
  /// What makes tokens of a word.
  public var model = Model.bytePairs
  /// The vocabulary.
  public var vocabulary: [Entry] = []
  /// The merges, the first one made first.
  public var merges: [Merge] = []
  /// Whether a piece that is a token as a whole is that token, whatever the merges would make of it (Llama-3).
  public var ignoresMerges = false
  /// The token of a character (or byte) that the vocabulary does not have; without one it is dropped, as in `tokenizers`.
  public var unknownToken: [UInt8]?
  /// Whether a run of them is one unknown token.
  public var fusesUnknown = false
  /// Whether a character that the vocabulary does not have is its bytes, the tokens "<0x00>" to "<0xFF>", if they are all there.
  public var fallsBackToBytes = false
  /// Whether words come to the model as bytes, for which the vocabulary has printable characters.
  public var isByteLevel = false
  /// Control tokens and other words that are found before the text is cut.
  public var addedTokens: [AddedToken] = []
  /// The steps that change the text before it is cut, in order.
  public var normalizers: [Normalizer] = []
  /// The steps that cut the text, in order.
  public var preTokenizers: [PreTokenizer] = []
  /// Whether of two added tokens that overlap the longer one is found, as llama.cpp does, and not the leftmost.
  public var prefersLongerAddedTokens = false
  /// Whether control tokens stay text even where they are asked for (`split_special_tokens`).
  public var splitsControlTokens = false
  /// The steps that make text of tokens, in order.
  public var decoders: [TokenDecoder] = []
  /// Whether an added token is its spelling, whatever the steps would make of it.
  public var sparesAddedTokens = false
  /// The token that begins a sequence.
  public var beginToken: Int32?
  /// The token that ends a sequence.
  public var endToken: Int32?
  /// Other tokens that the model ends with, as a list of `eos_token_id`s names them; they need not be in the vocabulary.
  public var otherEndTokens: [Int32] = []
  /// Whether the tokenizer puts `beginToken` before a text when special tokens are asked for.
  public var addsBeginToken = false
  /// Whether the tokenizer puts `endToken` behind a text when special tokens are asked for.
  public var addsEndToken = false

  /// A description without tokens.
  public init(source: String) {
    self.source = source
  }
}
