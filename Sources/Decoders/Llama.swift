import Checkpoints

extension DecoderConfiguration {
  /// Reads `config.json` of a Llama-type model (`model_type` "llama": Llama 1–3, SmolLM2, TinyLlama …).
  ///
  /// Defaults are those of Hugging Face's `LlamaConfig`. Keys that mean nothing to us are kept in `unknownKeys`;
  /// a feature that changes the mathematics and is not built yet is an error.
  ///
  /// - Throws: `CheckpointError` naming file, key, what was found and what was expected.
  public init(llama file: String) throws {
    try self.init(llama: JSON(contentsOf: file), file: file)
  }

  /// Reads the values of a `config.json`; messages call it `file`.
  ///
  /// - Throws: `CheckpointError` as above.
  public init(llama json: JSON, file: String) throws {
    var reader = try ConfigurationReader(json, file: file)
    let size = 1...(1 << 24)
    _ = try reader.string("model_type", oneOf: ["llama"])
    channels = try reader.integer("hidden_size", in: size)
    hiddenWidth = try reader.integer("intermediate_size", in: size)
    layers = try reader.integer("num_hidden_layers", in: 1...10_000)
    heads = try reader.integer("num_attention_heads", in: size)
    keyValueHeads = try reader.integer("num_key_value_heads", in: size, default: heads)
    vocabulary = try reader.integer("vocab_size", in: size)
    guard channels % heads == 0, channels / heads % 2 == 0 else {
      throw CheckpointError(
        file: file, place: .key("num_attention_heads"), found: "\(heads) heads for hidden_size \(channels)",
        expected: "heads of equal, even width")
    }
    headWidth = channels / heads
    guard heads % keyValueHeads == 0 else {
      throw CheckpointError(
        file: file, place: .key("num_key_value_heads"), found: "\(keyValueHeads) for \(heads) query heads",
        expected: "a divisor of \(heads)")
    }
    let given = try reader.integer("head_dim", in: size, default: headWidth)
    guard given == headWidth else {
      throw CheckpointError(
        file: file, place: .key("head_dim"), found: "\(given)",
        expected: "hidden_size / num_attention_heads = \(headWidth); another width is not built yet")
    }
    normEpsilon = try reader.number("rms_norm_eps", default: 1e-6, "a number ≥ 0") { $0 >= 0 }
    ropeBase = try reader.number("rope_theta", default: 10_000, "a number > 0") { $0 > 0 }
    try reader.refuse("rope_scaling", unless: { $0.isEmptyOrOff || $0.isDefaultRope })
    if let parameters = reader.value("rope_parameters") {  // transformers 5 nests both here
      guard parameters.isDefaultRope else {
        throw reader.error("rope_parameters", parameters, "rope_type \"default\"; others are not built yet")
      }
      if let theta = parameters["rope_theta"] {
        guard let base = theta.doubleValue, base > 0 else { throw reader.error("rope_parameters.rope_theta", theta, "a number > 0") }
        ropeBase = base
      }
    }
    try reader.refuse("partial_rotary_factor", unless: { $0.doubleValue == 1 })
    attentionBias = try reader.bool("attention_bias", default: false)
    feedForwardBias = try reader.bool("mlp_bias", default: false)
    tiesHead = try reader.bool("tie_word_embeddings", default: false)
    initializerRange = try reader.number("initializer_range", default: 0.02, "a number ≥ 0") { $0 >= 0 }
    _ = try reader.string("hidden_act", default: "silu", oneOf: ["silu"])
    try reader.refuse("sliding_window")
    try reader.refuse("quantization_config")
    unknownKeys = reader.unknownKeys(inert: Self.inertKeys)
  }

  /// Keys of `config.json` that do not change the mathematics of a forward pass.
  private static let inertKeys: Set<String> = [
    "architectures", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings", "pretraining_tp",
    "torch_dtype", "dtype", "transformers_version", "use_cache", "_name_or_path", "is_llama_config", "rope_interleaved",
    "transformers.js_config",
  ]
}

extension JSON {
  /// The object of unscaled rotary embedding of whole heads: `{"rope_type": "default", …}`.
  fileprivate var isDefaultRope: Bool {
    (self["rope_type"] ?? self["type"])?.stringValue == "default" && (self["partial_rotary_factor"] ?? 1).doubleValue == 1
  }
}
