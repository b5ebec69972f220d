import Checkpoints

extension ChatTemplate {
  /// The template of a model: `chat_template` of tokenizer_config.json, else `chat_template.jinja` beside it; of a GGUF file
  /// `tokenizer.chat_template`. Of several the one called "default". Nil if there is none.
  ///
  /// - Throws: `CheckpointError` for files that are wrong, and a template that is none.
  public init?(model path: String) throws {
    if ModelPath.isGGUF(path) {
      let file = try GGUF(path: path)
      let key = "tokenizer.chat_template"
      guard let source = try file.metadata.value(key)?.stringValue else { return nil }
      try self.init(source, file: path, place: .key(key), specialTokens: Self.specialTokens(of: file))
      return
    }
    let tokens = try Self.specialTokens(of: path)
    if let settings = try Self.object(path + "/tokenizer_config.json"), let value = settings["chat_template"], value != .null {
      let file = path + "/tokenizer_config.json"
      guard let source = value.stringValue ?? Self.standard(value) else {
        throw CheckpointError(
          file: file, place: .key("chat_template"), found: value.excerpt, expected: "a template, or a list with one called \"default\"")
      }
      try self.init(source, file: file, place: .key("chat_template"), specialTokens: tokens)
      return
    }
    let file = path + "/chat_template.jinja"
    guard MappedFile.isRegularFile(file) else { return nil }
    try self.init(contentsOf: file, specialTokens: tokens)
  }

  /// A template of one's own for a model, whose special tokens it sees: `chatml`, or a file.
  ///
  /// - Throws: `CheckpointError` for files that are wrong, and a template that is none.
  public init(named name: String, model path: String) throws {
    let tokens = try ModelPath.isGGUF(path) ? Self.specialTokens(of: GGUF(path: path)) : Self.specialTokens(of: path)
    if name == "chatml" {
      try self.init(ChatML.template, file: "chatml", specialTokens: tokens)
    } else {
      try self.init(contentsOf: name, specialTokens: tokens)
    }
  }

  private init(contentsOf file: String, specialTokens: JSON.Object) throws {
    let mapped = try MappedFile(path: file)
    let limit = 1 << 22
    guard mapped.size <= limit else { throw CheckpointError(file: file, found: "\(mapped.size) bytes", expected: "at most \(limit)") }
    let bytes = try mapped.bytes(in: 0..<mapped.size)
    if let offset = firstInvalidUTF8(in: bytes) {
      throw CheckpointError(file: file, place: .byte(offset), found: "a byte that is no UTF-8", expected: "a chat template of Jinja")
    }
    try self.init(String(decoding: bytes, as: UTF8.self), file: file, specialTokens: specialTokens)
  }

  /// The template called "default" in a list of templates with names.
  private static func standard(_ value: JSON) -> String? {
    value.arrayValue?.last { $0["name"]?.stringValue == "default" }?["template"]?.stringValue
  }

  private static func object(_ file: String) throws -> JSON? {
    do {
      let json = try JSON(contentsOf: file)
      guard json.objectValue != nil else { throw CheckpointError(file: file, found: json.summary, expected: "a JSON object") }
      return json
    } catch let error as CheckpointError where error.isMissingFile {
      return nil
    }
  }

  // MARK: Special tokens

  /// The special tokens that the files of a folder set, and its tokenizer's class where they do not.
  private static func specialTokens(of folder: String) throws -> JSON.Object { try TokenizerFolder(folder).specialTokens }

  /// The special tokens that a GGUF file names by their ids.
  private static func specialTokens(of file: GGUF) throws -> JSON.Object {
    let keys = [
      ("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("sep_token", "seperator"), ("pad_token", "padding"),
      ("cls_token", "cls"), ("mask_token", "mask"),
    ]
    let spellings = try file.metadata.array("tokenizer.ggml.tokens")?.strings() ?? []
    var tokens = JSON.Object()
    for (name, key) in keys {
      guard let id = try file.metadata.value("tokenizer.ggml.\(key)_token_id")?.intValue, spellings.indices.contains(id) else { continue }
      tokens[name] = JSON(String(decoding: spellings[id], as: UTF8.self))
    }
    return tokens
  }
}
