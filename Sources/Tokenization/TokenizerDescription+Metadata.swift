import Checkpoints

extension TokenizerDescription {
  /// What a GGUF file says of a tokenizer whose `tokenizer.ggml.model` is "gpt2".
  ///
  /// The pre-tokenizer has a name there, `PublishedPreTokenizer`. Tokens of type 3 (control) and 2 (unknown) are
  /// special, those of type 4 (user-defined) are found in every text.
  /// - Parameters:
  ///   - source: the file, for messages.
  ///   - tokens: `tokenizer.ggml.tokens`; the index is the id.
  ///   - types: `tokenizer.ggml.token_type`; nil if it is absent, then all are normal.
  ///   - merges: `tokenizer.ggml.merges`, each "left right".
  ///   - pre: `tokenizer.ggml.pre`.
  ///   - beginToken: `tokenizer.ggml.bos_token_id`.
  ///   - endToken: `tokenizer.ggml.eos_token_id`.
  ///   - addsBeginToken: `tokenizer.ggml.add_bos_token`; nil if it is absent, then the kind of tokenizer decides.
  /// - Throws: `CheckpointError` naming the metadata key.
  public init(
    source: String, tokens: [[UInt8]], types: [Int]?, merges: [[UInt8]], pre: String, beginToken: Int? = nil, endToken: Int? = nil,
    addsBeginToken: Bool? = nil
  ) throws {
    self.init(source: source)
    guard let published = PublishedPreTokenizer(named: pre) else {
      throw failure("pre", quoted(pre), "the name of a pre-tokenizer of llama.cpp that is known here")
    }
    (normalizers, preTokenizers, ignoresMerges) = (published.normalizers, published.steps, published.ignoresMerges)
    isByteLevel = true
    (decoders, sparesAddedTokens) = ([.byteLevel], true)
    try requireSizes(tokens, types)
    for (index, token) in tokens.enumerated() {
      switch types?[index] ?? 1 {
      case 1: vocabulary.append(Entry(text: token, id: Int32(index)))
      case 5: break  // unused: has an id, stands for nothing
      case let type where (2...4).contains(type):
        addedTokens.append(AddedToken(id: Int32(index), content: token, isSpecial: type != 4))
      case let type:
        throw failure("token_type", "type \(type) of token \(index)", "1 to 5; byte tokens belong to another kind of tokenizer")
      }
    }
    self.merges = try self.merges(of: merges)
    self.beginToken = try token(beginToken, "bos_token_id", among: tokens.count)
    self.endToken = try token(endToken, "eos_token_id", among: tokens.count)
    self.addsBeginToken = addsBeginToken ?? published.addsBeginToken
    if addsBeginToken == true, beginToken == nil { throw failure("add_bos_token", "true", "a bos_token_id beside it") }
    self.addsBeginToken = self.addsBeginToken && beginToken != nil
  }

  /// The most tokens and the greatest id: far more than any vocabulary has.
  static let limit = 1 << 24

  // MARK: What all kinds of vocabularies have

  func failure(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    error("tokenizer.ggml." + key, found, expected)
  }

  func requireSizes(_ tokens: [[UInt8]], _ types: [Int]?) throws {
    guard tokens.count <= Self.limit else { throw failure("tokens", "\(tokens.count) tokens", "at most \(Self.limit)") }
    if let types, types.count != tokens.count {
      throw failure("token_type", "\(types.count) types", "one for each of \(tokens.count) tokens")
    }
  }

  /// The token of an id that a key has; nil for none.
  func token(_ id: Int?, _ key: String, among count: Int) throws -> Int32? {
    guard let id else { return nil }
    guard (0..<count).contains(id) else { throw failure(key, "\(id)", "an id below \(count)") }
    return Int32(id)
  }

  func merges(of texts: [[UInt8]]) throws -> [Merge] {
    try texts.enumerated().map { rank, text in
      guard let merge = Self.merge(text) else {
        throw failure("merges", "\(quoted(String(decoding: text, as: UTF8.self))) at \(rank)", "two tokens with a blank between them")
      }
      return merge
    }
  }

  /// "left right"; nil unless there is exactly one blank with something on both sides.
  static func merge(_ text: [UInt8]) -> Merge? {
    let parts = text.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
    return Merge(left: Array(parts[0]), right: Array(parts[1]))
  }
}

extension TokenizerDescription {
  /// The values of `tokenizer.ggml.model` that are read.
  static let ggufModels = ["gpt2", "llama", "gemma4"]

  /// The tokenizer inside a GGUF file.
  ///
  /// - Throws: `CheckpointError` naming the metadata key.
  public init(_ file: GGUF) throws {
    let metadata = file.metadata
    func key(_ name: String) -> String { "tokenizer.ggml." + name }
    func array(_ name: String) throws -> GGUFArray {
      guard let array = try metadata.array(key(name)) else {
        throw metadata.error(key(name), "nothing", "an array: the file's own tokenizer")
      }
      return array
    }
    func flag(_ name: String) throws -> Bool? { try metadata.value(key(name))?.boolValue }
    guard let kind = try metadata.value(key("model"))?.stringValue, Self.ggufModels.contains(kind) else {
      throw metadata.error(
        key("model"), try metadata.value(key("model"))?.summary ?? "nothing",
        "\"gpt2\", \"llama\" or \"gemma4\"; vocabularies of encoders and others are not built")
    }
    let (tokens, types) = (try array("tokens").strings(), try metadata.array(key("token_type"))?.integers())
    let (begin, end) = (try metadata.value(key("bos_token_id"))?.intValue, try metadata.value(key("eos_token_id"))?.intValue)
    if kind == "gpt2" {
      let pre = try metadata.value(key("pre"))
      guard pre == nil || pre?.stringValue != nil else {
        throw metadata.error(key("pre"), pre?.summary ?? "nothing", "the name of a pre-tokenizer")
      }
      try self.init(
        source: file.file, tokens: tokens, types: types, merges: try array("merges").strings(), pre: pre?.stringValue ?? "",
        beginToken: begin, endToken: end, addsBeginToken: try flag("add_bos_token"))
      if pre == nil {
        notes.append(
          "\(file.file) has no \(key("pre")), which says how texts are cut into words; llama.cpp's default is taken, and the ids may not be those that the model was trained with"
        )
      }
    } else if kind == "gemma4" {
      try self.init(
        source: file.file, tokens: tokens, types: types, characterMerges: try array("merges").strings(), beginToken: begin, endToken: end)
    } else {
      try self.init(
        source: file.file, tokens: tokens, types: types, scores: try metadata.array(key("scores")).map(Self.scores),
        beginToken: begin, endToken: end, addsBeginToken: try flag("add_bos_token"), addsPrefixSpace: try flag("add_space_prefix") ?? true)
    }
    addsEndToken = try flag("add_eos_token") ?? false && endToken != nil
    (prefersLongerAddedTokens, sparesAddedTokens) = (true, true)
    if let name = try metadata.value("general.name")?.stringValue { stripAfterAddedTokens(ofModel: name) }
    // The ends of a turn and of a message, where they are not the end of a sequence, by their ids or their names.
    for name in ["eot_token_id", "eom_token_id"] {
      if let id = try metadata.value(key(name))?.intValue.flatMap(Int32.init(exactly:)) { otherEndTokens.append(id) }
    }
    addNamedEndTokens()
  }
}
