import Checkpoints

// Vocabularies of characters in GGUF files, and what llama.cpp makes of the names in any of them.
extension TokenizerDescription {
  private static let blank: Unicode.Scalar = "\u{2581}"

  /// What a GGUF file says of a tokenizer whose `tokenizer.ggml.model` is "llama": pairs are merged by the scores of what they make, and a
  /// character without token is its bytes.
  ///
  /// - Parameters:
  ///   - source: the file, for messages.
  ///   - tokens: `tokenizer.ggml.tokens`; the index is the id.
  ///   - types: `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; nil: all are normal.
  ///   - scores: `tokenizer.ggml.scores`; nil: all are 0.
  ///   - beginToken: `tokenizer.ggml.bos_token_id`; nil: 1.
  ///   - endToken: `tokenizer.ggml.eos_token_id`; nil: 2.
  ///   - addsBeginToken: `tokenizer.ggml.add_bos_token`; nil: true.
  ///   - addsPrefixSpace: `tokenizer.ggml.add_space_prefix`.
  /// - Throws: `CheckpointError` naming the metadata key.
  public init(
    source: String, tokens: [[UInt8]], types: [Int]?, scores: [Double]?, beginToken: Int? = nil, endToken: Int? = nil,
    addsBeginToken: Bool? = nil, addsPrefixSpace: Bool = true
  ) throws {
    self.init(source: source)
    model = .scoredPairs
    if let scores, scores.count != tokens.count {
      throw failure("scores", "\(scores.count) scores", "one for each of \(tokens.count) tokens")
    }
    try readTokens(tokens, types, scores)
    func present(_ id: Int) -> Int? { tokens.indices.contains(id) ? id : nil }
    self.beginToken = try token(beginToken ?? present(1), "bos_token_id", among: tokens.count)
    self.endToken = try token(endToken ?? present(2), "eos_token_id", among: tokens.count)
    self.addsBeginToken = addsBeginToken ?? true && self.beginToken != nil
    normalizers =
      (addsPrefixSpace ? [.prepend(String(Self.blank))] : []) + [.replace(RegularExpression(" " as Unicode.Scalar), String(Self.blank))]
    decoders = [.replace(Array(String(Self.blank).utf8), [0x20]), .byteTokens, .fuse]
    if addsPrefixSpace { decoders.append(.strip([0x20], start: 1, stop: 0)) }
    unknownToken = zip(tokens, types ?? []).first { $1 == 2 }?.0
  }

  /// What a GGUF file says of a tokenizer whose `tokenizer.ggml.model` is "gemma4": pairs of characters merged by rank, line by line.
  ///
  /// - Throws: `CheckpointError` naming the metadata key.
  init(source: String, tokens: [[UInt8]], types: [Int]?, characterMerges: [[UInt8]], beginToken: Int?, endToken: Int?) throws {
    self.init(source: source)
    try readTokens(tokens, types, nil)
    merges = try merges(of: characterMerges)
    self.beginToken = try token(beginToken, "bos_token_id", among: tokens.count)
    self.endToken = try token(endToken, "eos_token_id", among: tokens.count)
    addsBeginToken = self.beginToken != nil
    normalizers = [.replace(RegularExpression(" " as Unicode.Scalar), String(Self.blank))]
    preTokenizers = [.split(.published(RegularExpression.Published.lines), .isolated, isInverted: false)]
    decoders = [.replace(Array(String(Self.blank).utf8), [0x20]), .byteTokens, .fuse]
  }

  /// All tokens are in the vocabulary, control tokens too: a pair may make any of them.
  private mutating func readTokens(_ tokens: [[UInt8]], _ types: [Int]?, _ scores: [Double]?) throws {
    try requireSizes(tokens, types)
    fallsBackToBytes = true
    for (index, token) in tokens.enumerated() {
      let text = token.isEmpty ? Array("[EMPTY_\(index)]".utf8) : token
      vocabulary.append(Entry(text: text, id: Int32(index), score: scores?[index] ?? 0))
      switch types?[index] ?? 1 {
      case 0, 1, 5, 6: break
      case let type where (2...4).contains(type):
        addedTokens.append(AddedToken(id: Int32(index), content: text, isSpecial: type != 4))
      case let type: throw failure("token_type", "type \(type) of token \(index)", "0 to 6")
      }
    }
  }

  static func scores(_ array: GGUFArray) throws -> [Double] {
    array.elementType == .int32 ? try array.integers().map(Double.init) : try array.numbers()
  }

  // MARK: Names

  /// Behind the added tokens of Phi-3 white space is taken away, which no key of a GGUF file says.
  mutating func stripAfterAddedTokens(ofModel name: String) {
    let name = name.lowercased()
    guard name.contains("phi-3") || name.contains("phi3") else { return }
    let spared: Set = ["<unk>", "<s>", "<|endoftext|>"]
    for place in addedTokens.indices where !spared.contains(String(decoding: addedTokens[place].content, as: UTF8.self)) {
      addedTokens[place].stripsRight = true
    }
  }

  /// Tokens that end a text by their names, since many files do not say so: those that llama.cpp knows.
  mutating func addNamedEndTokens() {
    let names: Set = [
      "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>",
      "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
      "<\u{FF5C}end\u{2581}of\u{2581}sentence\u{FF5C}>", "[e~[",
    ]
    var found = addedTokens.filter { $0.isSpecial && names.contains(String(decoding: $0.content, as: UTF8.self)) }
    let texts = Set(found.map { String(decoding: $0.content, as: UTF8.self) })
    // In these vocabularies some of the names mean something else.
    if texts.contains("<|call|>") && texts.contains("<|return|>")
      || texts.contains("<|flush|>") && !texts.isDisjoint(with: ["<|call|>", "<|calls|>"])
    {
      found.removeAll { $0.content == Array("<|end|>".utf8) }
    }
    if texts.contains("<|tool_response>") { found.removeAll { $0.content == Array("</s>".utf8) } }
    otherEndTokens += found.map(\.id)
  }
}
