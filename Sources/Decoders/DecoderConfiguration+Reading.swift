import Checkpoints
import Layers

extension DecoderConfiguration {
  /// Reads a `config.json` of one of the families (`Families/`).
  ///
  /// Defaults are those of Hugging Face's configuration classes. Keys that mean nothing to us are kept in
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
    unknownKeys = reader.unknownKeys(except: Self.inertKeys)
  }

  /// What the families have in common; each then adds its own.
  ///
  /// - Parameter defaultKeyValueHeads: what an absent `num_key_value_heads` means; nil for as many as query heads.
  init(common reader: JSONReader, family: some DecoderFamily, defaultKeyValueHeads: Int? = nil) throws {
    let size = 1...(1 << 24)
    familyName = family.name
    channels = try reader.integer("hidden_size", in: size)
    feedForward = FeedForwardRules(width: try reader.integer("intermediate_size", in: size))
    layers = try reader.integer("num_hidden_layers", in: 1...10_000)
    let heads = try reader.integer("num_attention_heads", in: size)
    let isNull = reader["num_key_value_heads"] == .null  // null means as many as query heads, whatever the family's default
    let keyValueHeads = try reader.integer("num_key_value_heads", in: size, default: isNull ? heads : defaultKeyValueHeads ?? heads)
    vocabulary = try reader.integer("vocab_size", in: size)
    guard heads % keyValueHeads == 0 else {
      throw reader.error(
        "num_key_value_heads", "\(keyValueHeads) for \(heads) query heads", "a divisor of \(heads)")
    }
    if reader.value("head_dim") == nil, family.defaultHeadWidth == nil, channels % heads != 0 {
      throw reader.error("num_attention_heads", "\(heads) heads for hidden_size \(channels)", "heads of equal width, or head_dim")
    }
    let headWidth = try reader.integer("head_dim", in: size, default: family.defaultHeadWidth ?? channels / heads)
    guard headWidth % 2 == 0 else {
      throw reader.error(
        reader.value("head_dim") == nil ? "num_attention_heads" : "head_dim", "\(heads) heads of width \(headWidth)",
        "an even width: rotation needs pairs")
    }
    attention = AttentionRules(
      heads: heads, keyValueHeads: keyValueHeads, headWidth: headWidth, windows: Array(repeating: nil, count: layers))
    norm = NormRules(epsilon: try reader.number("rms_norm_eps", default: 1e-6, "a number ≥ 0") { $0 >= 0 })
    rotary = try Self.rope(reader)
    head = HeadRules(isTied: try reader.bool("tie_word_embeddings", default: family.tiesHeadByDefault))
    initializerRange = try reader.number("initializer_range", default: 0.02, "a number ≥ 0") { $0 >= 0 }
    try reader.refuse("partial_rotary_factor", unless: { $0.doubleValue == 1 })
    contextLength = reader.value("max_position_embeddings")?.intValue.flatMap { $0 > 0 ? $0 : nil }
    unknownKeys = []
  }

  /// Base and scaling of the rotary angles: `rope_theta` and `rope_scaling`, or both inside `rope_parameters`, where
  /// transformers 5 puts them.
  private static func rope(_ reader: JSONReader) throws -> RotaryRules {
    let isPositive = { (value: Double) in value > 0 && value.isFinite }
    let base = try reader.number("rope_theta", default: 10_000, "a number > 0", where: isPositive)
    let scaling = try reader.value("rope_scaling").map { try Self.scaling($0, "rope_scaling", reader) }
    guard let parameters = reader.value("rope_parameters") else { return RotaryRules(base: base, scaling: scaling ?? nil) }
    let nested = try Self.scaling(parameters, "rope_parameters", reader)
    guard let theta = parameters["rope_theta"] else { return RotaryRules(base: base, scaling: nested) }
    guard let value = theta.doubleValue, isPositive(value) else { throw reader.error("rope_parameters.rope_theta", theta, "a number > 0") }
    return RotaryRules(base: value, scaling: nested)
  }

  private static func scaling(_ json: JSON, _ key: String, _ reader: JSONReader) throws -> RotaryScaling? {
    if json.isEmptyOrOff { return nil }
    let kind = json["rope_type"] ?? json["type"]
    guard (json["partial_rotary_factor"] ?? 1).doubleValue == 1 else { throw reader.error(key, json, "whole heads rotated") }
    func number(_ name: String) throws -> Double {
      guard let value = json[name]?.doubleValue, value > 0, value.isFinite else {
        throw reader.error("\(key).\(name)", json[name] ?? .null, "a number > 0")
      }
      return value
    }
    switch kind?.stringValue {
    case "default": return nil
    case "llama3":
      let scaling = RotaryScaling(
        factor: try number("factor"), lowFrequencyFactor: try number("low_freq_factor"),
        highFrequencyFactor: try number("high_freq_factor"),
        originalPositions: try number("original_max_position_embeddings"))
      guard scaling.highFrequencyFactor > scaling.lowFrequencyFactor else {
        throw reader.error("\(key).high_freq_factor", json["high_freq_factor"] ?? .null, "more than low_freq_factor")
      }
      return scaling
    default: throw reader.error(key, json, "rope_type \"default\" or \"llama3\"; others are not built yet")
    }
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

  /// Keys that nobody asked for and that are not `inert`.
  func unknownKeys(except inert: Set<String>) -> [String] { unknownNames.filter { !inert.contains($0) } }
}
