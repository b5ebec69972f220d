import Checkpoints
import Decoders
import Tokenization

extension Tokenizer {
  /// The tokenizer of a model: of a Hugging Face folder its `tokenizer.json`, of a GGUF file the one inside.
  ///
  /// - Throws: `CheckpointError` naming what is missing, wrong or not understood.
  public init(model path: String) throws {
    try ModelFiles.requireModel(path)
    if ModelFiles.isGGUF(path) {
      try self.init(TokenizerDescription(GGUF(path: path)))
    } else {
      try self.init(folder: path)
    }
  }
}

extension ModelFolder {
  /// The files of a folder for a model that is trained from `path`: a folder's own, byte for byte; of a GGUF file what it says of model
  /// and tokenizer, as Hugging Face writes it.
  ///
  /// - Throws: `CheckpointError` for what is missing or cannot be written.
  public init(model path: String) throws {
    guard ModelFiles.isGGUF(path) else {
      try self.init(of: path)
      return
    }
    let file = try GGUF(path: path)
    let configuration = try DecoderConfiguration(file)
    let tokenizer = try TokenizerDescription(file)
    var settings = JSON.Object()
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["bos_token"] = tokenizer.spelling(of: tokenizer.beginToken).map { JSON($0) } ?? .null
    settings["eos_token"] = tokenizer.spelling(of: tokenizer.endToken).map { JSON($0) } ?? .null
    settings["clean_up_tokenization_spaces"] = false
    if let template = try file.metadata.value("tokenizer.chat_template")?.stringValue { settings["chat_template"] = JSON(template) }
    let otherEnds = tokenizer.otherEndTokens.filter { $0 != tokenizer.endToken }
    self.init([
      ("tokenizer.json", tokenizer.json()), ("tokenizer_config.json", .object(settings)),
      (
        "config.json",
        try configuration.json(
          file: path, beginToken: tokenizer.beginToken, endTokens: (tokenizer.endToken.map { [$0] } ?? []) + otherEnds)
      ),
    ])
  }
}

extension TokenizerDescription {
  /// The tokenizer inside a GGUF file.
  fileprivate init(_ file: GGUF) throws {
    let metadata = file.metadata
    func key(_ name: String) -> String { "tokenizer.ggml." + name }
    func array(_ name: String) throws -> GGUFArray {
      guard let array = try metadata.array(key(name)) else {
        throw metadata.error(key(name), "nothing", "an array: the file's own tokenizer")
      }
      return array
    }
    let kind = try metadata.value(key("model"))?.stringValue
    guard kind == "gpt2" else { throw metadata.error(key("model"), kind.map { "\"\($0)\"" } ?? "nothing", "\"gpt2\", byte-level BPE") }
    var addsBegin: Bool?
    if case .bool(let value) = try metadata.value(key("add_bos_token")) { addsBegin = value }
    try self.init(
      source: file.file, tokens: try array("tokens").strings(), types: try metadata.array(key("token_type"))?.integers(),
      merges: try array("merges").strings(), pre: try metadata.value(key("pre"))?.stringValue ?? "",
      beginToken: try metadata.value(key("bos_token_id"))?.intValue, endToken: try metadata.value(key("eos_token_id"))?.intValue,
      addsBeginToken: addsBegin)
    // The end of a turn, where it is not the end of a sequence.
    if let turn = try metadata.value(key("eot_token_id"))?.intValue.flatMap(Int32.init(exactly:)) { otherEndTokens = [turn] }
  }
}
