import Checkpoints

extension TokenizerDescription {
  /// Reads `tokenizer.json`: its model is BPE or Unigram.
  ///
  /// Whatever would change ids and is not understood is an error that names its key. `truncation` and `padding` are left alone, since
  /// they are about batches (transformers resets both too).
  /// - Throws: `CheckpointError`.
  public init(contentsOf file: String) throws {
    try self.init(JSON(contentsOf: file), file: file)
  }

  /// Reads the value of a `tokenizer.json`; see `init(contentsOf:)`.
  ///
  /// - Throws: `CheckpointError`.
  public init(_ json: JSON, file: String) throws {
    self.init(source: file)
    let reader = try JSONReader(json, file: file, path: "")
    try reader.require("version", ["1.0"], "\"1.0\"")
    _ = reader.value("truncation")
    _ = reader.value("padding")
    let model = try reader.required("model", "a BPE model").component(of: reader, "model")
    try readModel(model)
    try readAddedTokens(reader)
    if let normalizer = try reader.component("normalizer") { try readNormalizer(normalizer) }
    if let steps = try reader.component("pre_tokenizer") { try readPreTokenizer(steps) }
    if let processor = try reader.component("post_processor") { try readPostProcessor(processor) }
    if let decoder = try reader.component("decoder") { try readDecoder(decoder) } else { decoders = [.blanks] }
    sparesAddedTokens = decoders.contains(.byteLevel)
    try reader.finish()
  }

  // MARK: Model

  private mutating func readModel(_ model: JSONReader) throws {
    // Older files do not say the type; a list of tokens is a unigram model's.
    let isUnigram = model["type"] == nil ? model["vocab"]?.arrayValue != nil : try model.type(oneOf: ["BPE", "Unigram"]) == "Unigram"
    _ = model.value("type")
    fallsBackToBytes = try model.bool("byte_fallback", default: false)
    if isUnigram { try readUnigram(model) } else { try readBytePairs(model) }
    try model.finish()
  }

  private mutating func readUnigram(_ model: JSONReader) throws {
    self.model = .unigram
    let expected = "a list of [token, score]"
    vocabulary = try model.array("vocab").enumerated().map { index, pair in
      guard let pair = pair.arrayValue, pair.count == 2, let text = pair[0].stringValue, let score = pair[1].doubleValue,
        index < Self.limit
      else { throw model.error("vocab", "\(pair.summary) at \(index)", expected) }
      return Entry(text: Array(text.utf8), id: Int32(index), score: score)
    }
    let id = try model.required("unk_id", "the id of the unknown token; without one some texts have no tokens")
    guard let place = id.intValue, vocabulary.indices.contains(place) else {
      throw model.error("unk_id", id, "an id below \(vocabulary.count)")
    }
    unknownToken = vocabulary[place].text
  }

  private mutating func readBytePairs(_ model: JSONReader) throws {
    try model.require("dropout", [0, .number(.init(0))], "null: with dropout the same text has other tokens each time")
    try model.require("continuing_subword_prefix", [""], "null or \"\"")
    try model.require("end_of_word_suffix", [""], "null or \"\"")
    unknownToken = try model.bytes("unk_token")
    fusesUnknown = try model.bool("fuse_unk", default: false)
    ignoresMerges = try model.bool("ignore_merges", default: false)
    let words = try model.required("vocab", "an object of token: id")
    vocabulary = try Self.entries(words) { model.error("vocab", $0, $1) }
    let list = try model.array("merges")
    merges.reserveCapacity(list.count)
    for (rank, json) in list.enumerated() {
      if let text = json.stringValue {
        if rank == 0, text.utf8.starts(with: "#version".utf8) { continue }
        if let merge = Self.merge(Array(text.utf8)) {
          merges.append(merge)
          continue
        }
      } else if let pair = json.arrayValue, pair.count == 2, let left = pair[0].stringValue, let right = pair[1].stringValue,
        !left.utf8.isEmpty, !right.utf8.isEmpty
      {
        merges.append(Merge(left: Array(left.utf8), right: Array(right.utf8)))
        continue
      }
      throw model.error("merges", "\(json.summary) at \(rank)", "two tokens, as \"left right\" or [\"left\", \"right\"]")
    }
  }

  private mutating func readAddedTokens(_ reader: JSONReader) throws {
    guard reader.value("added_tokens") != nil else { return }
    var next = Int32(vocabulary.count)
    let ids = Dictionary(vocabulary.map { ($0.text, $0.id) }) { first, _ in first }
    for token in try reader.components("added_tokens") {
      let id = try token.id("id")
      guard let content = try token.bytes("content"), !content.isEmpty else { throw token.error("content", "nothing", "the token's text") }
      // A token that the vocabulary lacks gets the next free id, whatever the file says.
      guard id == ids[content] ?? next else {
        throw token.error(
          "id", "\(id) for \(quoted(String(decoding: content, as: UTF8.self)))",
          "\(ids[content] ?? next), its id in the vocabulary or the next free one")
      }
      next = max(next, id + 1)
      addedTokens.append(
        AddedToken(
          id: id, content: content, isSpecial: try token.bool("special", default: false),
          isSingleWord: try token.bool("single_word", default: false), stripsLeft: try token.bool("lstrip", default: false),
          stripsRight: try token.bool("rstrip", default: false), isNormalized: try token.bool("normalized", default: true)))
      try token.finish()
    }
  }
}

extension JSON {
  /// This value, found under `key`, as a component.
  fileprivate func component(of reader: JSONReader, _ key: String) throws -> JSONReader {
    try JSONReader(self, file: reader.file, path: reader.name(key))
  }
}

extension KeyedReader where Value == JSON {
  /// A token id that must be there.
  func id(_ key: String) throws -> Int32 {
    let value = try required(key, "a token id")
    guard let id = value.intValue, (0..<TokenizerDescription.limit).contains(id) else {
      throw error(key, value.summary, "a token id from 0 to \(TokenizerDescription.limit - 1)")
    }
    return Int32(id)
  }

  /// Throws if there is a key that was not asked for: of a tokenizer it may change every id.
  func finish() throws { try finish("no such key; it may change the tokens and is not understood") }
}
