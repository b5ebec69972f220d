import Checkpoints

extension Tokenizer {
  /// The tokenizer of a model: of a Hugging Face folder its `tokenizer.json`, of a GGUF file the one inside.
  ///
  /// - Throws: `CheckpointError` naming what is missing, wrong or not understood.
  public init(model path: String) throws {
    try ModelPath.require(path)
    if ModelPath.isGGUF(path) {
      try self.init(TokenizerDescription(GGUF(path: path)))
    } else {
      try self.init(folder: path)
    }
  }

  /// Reads `tokenizer.json` alone: the end token stays unknown, and the begin token too where no template adds it.
  ///
  /// - Throws: `CheckpointError` naming what is missing, wrong or not understood.
  public init(contentsOf file: String) throws {
    try self.init(TokenizerDescription(contentsOf: file))
  }

  /// Reads `tokenizer.json` of a Hugging Face folder, and the begin and end tokens from the first of its other files that names them:
  /// `tokenizer_config.json` (`bos_token`, `eos_token`), `generation_config.json`, `config.json` (`bos_token_id`, `eos_token_id`; of a
  /// list the first). Every `eos_token_id` is among `endTokens`.
  ///
  /// - Throws: `CheckpointError` naming what is missing, wrong or not understood.
  public init(folder: String) throws {
    var description = try TokenizerDescription(contentsOf: folder + "/tokenizer.json")
    let spellings = try Self.optional(folder + "/tokenizer_config.json")
    let others = try ["generation_config.json", "config.json"].compactMap { try Self.optional(folder + "/" + $0) }
    func find(_ name: String) throws -> Int32? {
      if let spellings, let value = spellings.json[name], value != .null {
        guard let text = value.stringValue ?? value["content"]?.stringValue, let id = description.id(of: Array(text.utf8)) else {
          throw CheckpointError(file: spellings.file, place: .key(name), found: value.excerpt, expected: "a token of tokenizer.json")
        }
        return id
      }
      for other in others {
        guard let value = other.json[name + "_id"], value != .null else { continue }
        guard let id = value.intValue ?? value.arrayValue?.first?.intValue, description.has(id: id) else {
          throw CheckpointError(
            file: other.file, place: .key(name + "_id"), found: value.excerpt, expected: "the id of a token of tokenizer.json")
        }
        return Int32(id)
      }
      return nil
    }
    if description.beginToken == nil { description.beginToken = try find("bos_token") }
    description.endToken = try find("eos_token")
    description.otherEndTokens = others.compactMap { $0.json["eos_token_id"] }.flatMap { $0.arrayValue ?? [$0] }.compactMap {
      $0.intValue.flatMap(Int32.init(exactly:))
    }
    try self.init(description)
  }

  private static func optional(_ file: String) throws -> (file: String, json: JSON)? {
    do {
      let json = try JSON(contentsOf: file)
      guard json.objectValue != nil else { throw CheckpointError(file: file, found: json.summary, expected: "a JSON object") }
      return (file, json)
    } catch let error as CheckpointError where error.isMissingFile {
      return nil
    }
  }
}

extension TokenizerDescription {
  /// The id of a token as it is written.
  fileprivate func id(of text: [UInt8]) -> Int32? {
    addedTokens.first { $0.content == text }?.id ?? vocabulary.first { $0.text == text }?.id
  }

  /// Whether some token has the id.
  fileprivate func has(id: Int) -> Bool {
    addedTokens.contains { Int($0.id) == id } || vocabulary.contains { Int($0.id) == id }
  }
}
