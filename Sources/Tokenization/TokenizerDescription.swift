/// All that makes a byte-level BPE tokenizer, as plain values: what `tokenizer.json` says, or the metadata of a GGUF file.
public struct TokenizerDescription: Sendable {
  /// A token of the BPE vocabulary, written in the alphabet of byte-level tokenizers ("Ġ" is the blank).
  public struct Entry: Sendable {
    /// The token as it is written.
    public var text: [UInt8]
    /// Its id.
    public var id: Int32

    /// A token and its id.
    public init(text: [UInt8], id: Int32) {
      self.text = text
      self.id = id
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
  /// The vocabulary.
  public var vocabulary: [Entry] = []
  /// The merges, the first one made first.
  public var merges: [Merge] = []
  /// Whether a piece that is a token as a whole is that token, whatever the merges would make of it (Llama-3).
  public var ignoresMerges = false
  /// The token of a byte that the vocabulary does not have; without one such a byte is dropped, as in `tokenizers`.
  public var unknownToken: [UInt8]?
  /// Whether a run of such bytes is one unknown token.
  public var fusesUnknown = false
  /// Whether words come to the model as bytes, for which the vocabulary has printable characters.
  public var isByteLevel = false
  /// Control tokens and other words that are found before the text is cut.
  public var addedTokens: [AddedToken] = []
  /// The steps that change the text before it is cut, in order.
  public var normalizers: [Normalizer] = []
  /// The steps that cut the text, in order.
  public var preTokenizers: [PreTokenizer] = []
  /// The token that begins a sequence.
  public var beginToken: Int32?
  /// The token that ends a sequence.
  public var endToken: Int32?
  /// Other tokens that the model ends with, as a list of `eos_token_id`s names them; they need not be in the vocabulary.
  public var otherEndTokens: [Int32] = []
  /// Whether the tokenizer puts `beginToken` before a text when special tokens are asked for.
  public var addsBeginToken = false

  /// A description without tokens.
  public init(source: String) {
    self.source = source
  }
}
