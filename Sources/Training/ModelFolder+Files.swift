import Checkpoints
import Decoders
import Tokenization

extension ModelFolder.Files {
  /// The files of a folder for a model that is trained from `path`: a folder's own, byte for byte; of a GGUF file what it says of model
  /// and tokenizer, as Hugging Face writes it.
  ///
  /// - Throws: `CheckpointError` for what is missing or cannot be written.
  public init(model path: String) throws {
    guard ModelPath.isGGUF(path) else {
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
