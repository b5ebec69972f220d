import Checkpoints
import Layers

extension DecoderConfiguration {
  /// Reads a `config.json` of one of the families (`Families/`).
  ///
  /// Defaults are those of the configuration classes of transformers 4.46.3. Keys that mean nothing to us are kept in
  /// `unknownKeys`; a feature that changes the mathematics and is not built yet is an error.
  ///
  /// - Throws: `CheckpointError` naming file, key, what was found and what was expected.
  public init(contentsOf file: String) throws {
    try self.init(JSON(contentsOf: file), file: file)
  }

  /// Reads the values of a `config.json`; messages call it `file`.
  ///
  /// - Throws: `CheckpointError` as above.
  public init(_ json: JSON, file: String) throws {
    let reader = try JSONReader(configuration: json, file: file)
    let name = try reader.string("model_type", oneOf: DecoderFamilies.all.map(\.name))
    self = try DecoderFamilies.named(name).configuration(reader)
    try reader.refuse("quantization_config")
    for key in ["attention_multiplier", "residual_multiplier", "embedding_multiplier", "logits_scaling", "logit_scale"] {
      try reader.refuse(key, unless: { $0.doubleValue == 1 }, "1 or nothing: scaled residuals, scores and logits are not built yet")
    }
    // A family that has one of these has asked for it.
    for key in ["attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "qk_norm", "use_qk_norm", "clip_qkv"]
    where reader.unknownNames.contains(key) {
      try reader.refuse(key)
    }
    unknownKeys = reader.unknownKeys(except: Self.inertKeys) + unknownKeys
  }

  /// What the families have in common; each then adds its own.
  init(common reader: JSONReader, family: some DecoderFamily) throws {
    let (size, defaults) = (1...(1 << 24), family.defaults)
    try reader.refuseNull(
      ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rope_theta", family.normKey]
        + (defaults.headWidth == nil ? [] : ["head_dim", "num_key_value_heads"]))
    familyName = family.name
    channels = try reader.integer("hidden_size", in: size, default: defaults.channels)
    feedForward = FeedForwardRules(width: try reader.integer("intermediate_size", in: size, default: defaults.width))
    layers = try reader.integer("num_hidden_layers", in: 1...10_000, default: defaults.layers)
    let heads = try reader.integer("num_attention_heads", in: size, default: defaults.heads)
    let isNull = reader["num_key_value_heads"] == .null  // null means as many as query heads, whatever the family's default
    let keyValueHeads = try reader.integer("num_key_value_heads", in: size, default: isNull ? heads : defaults.keyValueHeads ?? heads)
    vocabulary = try reader.integer("vocab_size", in: size, default: defaults.vocabulary)
    guard heads % keyValueHeads == 0 else {
      throw reader.error(
        "num_key_value_heads", "\(keyValueHeads) for \(heads) query heads", "a divisor of \(heads)")
    }
    if reader.value("head_dim") == nil, defaults.headWidth == nil, channels % heads != 0 {
      throw reader.error("num_attention_heads", "\(heads) heads for hidden_size \(channels)", "heads of equal width, or head_dim")
    }
    let headWidth = try reader.integer("head_dim", in: size, default: defaults.headWidth ?? channels / heads)
    guard headWidth % 2 == 0 else {
      throw reader.error(
        reader.value("head_dim") == nil ? "num_attention_heads" : "head_dim", "\(heads) heads of width \(headWidth)",
        "an even width: rotation needs pairs")
    }
    attention = AttentionRules(
      heads: heads, keyValueHeads: keyValueHeads, headWidth: headWidth, windows: Array(repeating: nil, count: layers))
    norm = NormRules(epsilon: try reader.number(family.normKey, default: 1e-6, "a number ≥ 0") { $0 >= 0 })
    let positions = reader["max_position_embeddings"] ?? JSON(defaults.positions)
    contextLength = positions.intValue.flatMap { $0 > 0 ? $0 : nil }
    (rotary, unknownKeys) = try RotaryRules.read(reader, positions: contextLength, headWidth: headWidth)
    // Python takes null for false.
    let ties = try reader.bool("tie_word_embeddings", default: reader["tie_word_embeddings"] == nil && defaults.tiesHead)
    head = HeadRules(isTied: ties)
    initializerRange = try reader.number("initializer_range", default: 0.02, "a number ≥ 0") { $0 >= 0 }
    try reader.refuse("partial_rotary_factor", unless: { $0.doubleValue == 1 })
  }

  /// Keys of `config.json` that do not change the mathematics of a forward pass.
  private static let inertKeys: Set<String> = [
    "architectures", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings", "pretraining_tp",
    "torch_dtype", "dtype", "transformers_version", "use_cache", "_name_or_path", "is_llama_config", "rope_interleaved",
    "transformers.js_config", "_attn_implementation_autoset", "cache_implementation",
  ]
}

extension KeyedReader where Value == JSON {
  /// Reads a configuration, whose messages show objects whole.
  ///
  /// - Throws: `CheckpointError` for anything but an object.
  init(configuration json: JSON, file: String) throws {
    try self.init(json, file: file, "a JSON object") { json in
      if case .object = json { "the object " + json.excerpt } else { json.summary }
    }
  }

  /// Throws if one of the keys is null: transformers has no use for that.
  func refuseNull(_ keys: [String]) throws {
    if let key = keys.first(where: { self[$0] == .null }) { throw error(key, .null, "a value, or no such key") }
  }

  /// Keys that nobody asked for and that are not `inert`.
  func unknownKeys(except inert: Set<String>) -> [String] { unknownNames.filter { !inert.contains($0) } }
}
