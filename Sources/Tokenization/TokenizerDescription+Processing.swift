import JSON

// What follows the model: the tokens put around a text, and the way back from tokens to text.
extension TokenizerDescription {
  /// Reads the object `post_processor` of a `tokenizer.json`: the token before a text and the one behind it.
  ///
  /// - Throws: `CheckpointError` for a kind that is not known, or more than one token on a side.
  mutating func readPostProcessor(_ processor: JSONReader) throws {
    switch try processor.type(oneOf: ["ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "Sequence"]) {
    // About offsets without their white space; ours are of the whole token.
    case "ByteLevel": for key in ["add_prefix_space", "trim_offsets", "use_regex"] { _ = try processor.bool(key, default: true) }
    case "Sequence":
      for part in try processor.components("processors") { try readPostProcessor(part) }
    case "TemplateProcessing": try readTemplate(processor)
    default:
      for key in ["add_prefix_space", "trim_offsets"] { _ = try processor.bool(key, default: true) }
      (beginToken, addsBeginToken) = (try token(processor, "cls"), true)
      (endToken, addsEndToken) = (try token(processor, "sep"), true)
    }
    try processor.finish()
  }

  /// A pair of a token and its id.
  private func token(_ processor: JSONReader, _ key: String) throws -> Int32 {
    let value = try processor.required(key, "[token, id]")
    guard let pair = value.arrayValue, pair.count == 2, let id = pair[1].intValue, has(id: id) else {
      throw processor.error(key, value.excerpt, "[token, id] of a token")
    }
    return Int32(id)
  }

  private mutating func readTemplate(_ template: JSONReader) throws {
    _ = template.value("pair")
    var names: [[UInt8]] = []  // of the tokens on this side of the text
    var leading: [[UInt8]] = []
    var hasText = false
    for item in try template.components("single") {
      if let sequence = try item.component("Sequence") {
        guard !hasText, try sequence.bytes("id") == Array("A".utf8) else { throw item.error("Sequence", "another text", "the text A once") }
        hasText = true
        (leading, names) = (names, [])
        _ = sequence.value("type_id")
        try sequence.finish()
      } else if let special = try item.component("SpecialToken") {
        guard names.isEmpty, hasText ? !addsEndToken : !addsBeginToken, let name = try special.bytes("id") else {
          throw item.error("SpecialToken", "a token after another", "at most one token before the text and one behind it")
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
      guard leading.isEmpty, names.isEmpty else { throw template.error("special_tokens", "nothing", "the ids of the template's tokens") }
      return
    }
    func id(_ name: [UInt8]) throws -> Int32 {
      let key = String(decoding: name, as: UTF8.self)
      guard let token = try tokens.component(key) else { throw tokens.error(key, "nothing", "the id of a token of the template") }
      let expected = "a list of one id"
      guard let ids = try token.array("ids").first?.intValue, try token.array("ids").count == 1, (0..<Self.limit).contains(ids) else {
        throw token.error("ids", try token.required("ids", expected).excerpt, expected)
      }
      guard has(id: ids) else { throw token.error("ids", "[\(ids)]", "the id of a token") }
      return Int32(ids)
    }
    if let name = leading.first { (beginToken, addsBeginToken) = (try id(name), true) }
    if let name = names.first { (endToken, addsEndToken) = (try id(name), true) }
  }

  // MARK: Decoders

  /// Reads the object `decoder` of a `tokenizer.json`.
  ///
  /// - Throws: `CheckpointError` for a kind that is not known, and for steps that would see the text where only tokens are seen.
  mutating func readDecoder(_ decoder: JSONReader) throws {
    let kinds = ["ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "Sequence"]
    let kind = try decoder.type(oneOf: kinds)
    let isWhole = decoders.contains(.fuse) || decoders.contains(.byteLevel)
    if isWhole, !["Strip", "Fuse", "Sequence"].contains(kind) {
      throw decoder.error("type", "\"\(kind)\" behind a step that joins the tokens", "it before that step")
    }
    if decoders.last == .byteFallback, kind != "Fuse", kind != "Sequence" {
      throw decoder.error("type", "\"\(kind)\" behind \"ByteFallback\"", "\"Fuse\" between them")
    }
    switch kind {
    case "Sequence": for part in try decoder.components("decoders") { try readDecoder(part) }
    case "ByteLevel":
      for key in ["add_prefix_space", "trim_offsets", "use_regex"] { _ = try decoder.bool(key, default: true) }  // of no effect here
      decoders.append(.byteLevel)
    case "Replace":
      guard let pattern = try decoder.component("pattern"), let old = try pattern.bytes("String"), !old.isEmpty else {
        throw decoder.error("pattern", decoder["pattern"]?.excerpt ?? "nothing", "{\"String\": …}; others are not built for decoders")
      }
      try pattern.finish()
      decoders.append(.replace(old, Array(try decoder.string("content").utf8)))
    case "ByteFallback": decoders.append(.byteFallback)
    case "Fuse": decoders.append(.fuse)
    case "Strip":
      let content = try character(decoder, "content")
      let most = 0...1024
      decoders.append(.strip(content, start: try decoder.integer("start", in: most), stop: try decoder.integer("stop", in: most)))
    default:
      let replacement = try character(decoder, "replacement")
      _ = decoder.value("str_rep")
      _ = decoder.value("split")
      let adds = try decoder.bool("add_prefix_space", default: true)
      let scheme = try decoder.string("prepend_scheme", default: adds ? "always" : "never", oneOf: ["always", "first", "never"])
      decoders.append(.metaspace(replacement, dropsFirst: scheme != "never"))
    }
    try decoder.finish()
  }

  private func character(_ decoder: JSONReader, _ key: String) throws -> [UInt8] {
    let text = try decoder.string(key)
    guard text.unicodeScalars.count == 1 else { throw decoder.error(key, quoted(text), "one character") }
    return Array(text.utf8)
  }

  /// Whether some token has the id.
  func has(id: Int) -> Bool {
    addedTokens.contains { Int($0.id) == id } || vocabulary.contains { Int($0.id) == id }
  }
}
