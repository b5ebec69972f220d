import Checkpoints

extension Tokenizer {
  /// The tokenizer of a model: of a Hugging Face folder what its files say, of a GGUF file the one inside.
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

  /// Reads `tokenizer.json` alone: the end token stays unknown, and the begin token too, where no template adds it.
  ///
  /// - Throws: `CheckpointError` naming what is missing, wrong or not understood.
  public init(contentsOf file: String) throws {
    try self.init(TokenizerDescription(contentsOf: file))
  }

  /// Reads the tokenizer of a Hugging Face folder as transformers' `AutoTokenizer` 4.46.3 does: `tokenizer.json`, or where there is none a
  /// `tokenizer.model`; what `tokenizer_config.json` says of it (`tokenizer_class`, `add_bos_token`, `add_eos_token`, `add_prefix_space`,
  /// `legacy`, `added_tokens_decoder`, `split_special_tokens`, the special tokens), else `special_tokens_map.json` and `added_tokens.json`.
  ///
  /// A special token that is named and not there is added behind the vocabulary. Begin and end tokens that no file of the tokenizer names
  /// are those of `generation_config.json` or `config.json`, of a list the first; every `eos_token_id` is among `endTokens`. Without a
  /// `tokenizer_config.json` the tokens that the class has by itself count as far as the vocabulary has them.
  /// - Throws: `CheckpointError` naming what is missing, wrong or not understood.
  public init(folder: String) throws {
    try self.init(TokenizerFolder(folder).description())
  }
}
