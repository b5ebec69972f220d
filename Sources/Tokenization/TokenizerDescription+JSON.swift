import Checkpoints

extension TokenizerDescription {
  /// Reads `tokenizer.json` of a byte-level BPE tokenizer.
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
    let steps = try reader.required("pre_tokenizer", "ByteLevel, perhaps after others").component(of: reader, "pre_tokenizer")
    try readPreTokenizer(steps)
    guard isByteLevel else { throw reader.error("pre_tokenizer", "no ByteLevel", "ByteLevel, perhaps among others") }
    if let processor = try reader.component("post_processor") { try readPostProcessor(processor) }
    let decoder = try reader.required("decoder", "ByteLevel").component(of: reader, "decoder")
    _ = try decoder.type(oneOf: ["ByteLevel"])
    for key in ["add_prefix_space", "trim_offsets", "use_regex"] { _ = try decoder.bool(key, default: true) }  // of no effect in a decoder
    try decoder.finish()
    try reader.finish()
  }

  // MARK: Model

  private mutating func readModel(_ model: JSONReader) throws {
    _ = model.value("type") == nil ? "BPE" : try model.type(oneOf: ["BPE"])
    try model.require("dropout", [0, .number(.init(0))], "null: with dropout the same text has other tokens each time")
    try model.require("continuing_subword_prefix", [""], "null or \"\"")
    try model.require("end_of_word_suffix", [""], "null or \"\"")
    try model.require("byte_fallback", [false], "false")
    unknownToken = try model.bytes("unk_token")
    fusesUnknown = try model.bool("fuse_unk", default: false)
    ignoresMerges = try model.bool("ignore_merges", default: false)
    let words = try model.required("vocab", "an object of token: id")
    guard let members = words.objectValue?.members else { throw model.error("vocab", words.summary, "an object of token: id") }
    vocabulary = try members.map { member in
      guard let id = member.value.intValue, (0..<Self.limit).contains(id) else {
        throw model.error("vocab", "\(member.value.summary) for \(quoted(member.key))", "an id from 0 to \(Self.limit - 1)")
      }
      return Entry(text: Array(member.key.utf8), id: Int32(id))
    }
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
    try model.finish()
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

  // MARK: Pipeline

  /// Finds the begin token of a template: `[begin] $A`.
  private mutating func readPostProcessor(_ processor: JSONReader) throws {
    switch try processor.type(oneOf: ["ByteLevel", "TemplateProcessing", "Sequence"]) {
    case "ByteLevel": for key in ["add_prefix_space", "trim_offsets", "use_regex"] { _ = try processor.bool(key, default: true) }
    case "Sequence":
      for part in try processor.components("processors") { try readPostProcessor(part) }
    default: try readTemplate(processor)
    }
    try processor.finish()
  }

  private mutating func readTemplate(_ template: JSONReader) throws {
    _ = template.value("pair")
    var names: [[UInt8]] = []
    var hasText = false
    for item in try template.components("single") {
      if let sequence = try item.component("Sequence") {
        guard !hasText, try sequence.bytes("id") == Array("A".utf8) else { throw item.error("Sequence", "another text", "the text A once") }
        hasText = true
        _ = sequence.value("type_id")
        try sequence.finish()
      } else if let special = try item.component("SpecialToken") {
        guard !hasText, names.isEmpty, !addsBeginToken, let name = try special.bytes("id") else {
          throw item.error(
            "SpecialToken", "a token after another or after the text", "at most one begin token before the text; others are not built yet")
        }
        names.append(name)
        _ = special.value("type_id")
        try special.finish()
      } else {
        throw template.error("single", "an item without token and text", "{\"SpecialToken\": …} or {\"Sequence\": …}")
      }
      try item.finish()
    }
    guard hasText else { throw template.error("single", "no text", "the text A once") }
    guard let tokens = try template.component("special_tokens") else {
      guard names.isEmpty else { throw template.error("special_tokens", "nothing", "the ids of the template's tokens") }
      return
    }
    if let name = names.first {
      let key = String(decoding: name, as: UTF8.self)
      guard let token = try tokens.component(key) else { throw tokens.error(key, "nothing", "the id of a token of the template") }
      let expected = "a list of one id"
      guard let ids = try token.array("ids").first?.intValue, try token.array("ids").count == 1, (0..<Self.limit).contains(ids) else {
        throw token.error("ids", try token.required("ids", expected).excerpt, expected)
      }
      guard vocabulary.contains(where: { $0.id == ids }) || addedTokens.contains(where: { $0.id == ids }) else {
        throw token.error("ids", "[\(ids)]", "the id of a token")
      }
      (beginToken, addsBeginToken) = (Int32(ids), true)
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
