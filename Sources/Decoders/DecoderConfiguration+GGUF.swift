import Checkpoints
import Layers

extension DecoderConfiguration {
  /// Reads the metadata of a GGUF file of a family that llama.cpp keeps (`DecoderFamily.gguf`): Llama with SmolLM2 and Mistral, Qwen2.
  ///
  /// Of the rotary scalings linear and yarn are read; LongRoPE's, whose divisors are tensors, is refused by its name.
  /// What the metadata does not say is read off the tensors: a head is tied where `output.weight` is absent, a layer has a bias where
  /// the first block has its tensor, and `rope_freqs.weight` holds the divisors of the rotary frequencies (Llama 3.1).
  /// - Throws: `CheckpointError` naming file, key, what was found and what was expected.
  public init(_ file: GGUF) throws {
    let reader = try KeyedReader(architectureOf: file)
    let size = 1...(1 << 24)
    let family = GGUFRules.family(of: reader.path) ?? Llama()
    familyName = family.name
    layers = try reader.integer("block_count", in: 1...10_000)
    channels = try reader.integer("embedding_length", in: size)
    feedForward = FeedForwardRules(width: try reader.integer("feed_forward_length", in: size))
    let heads = try reader.integer("attention.head_count", in: size)
    let keyValueHeads = try reader.integer("attention.head_count_kv", in: size, default: heads)
    guard heads % keyValueHeads == 0 else {
      throw reader.error("attention.head_count_kv", "\(keyValueHeads) for \(heads) query heads", "a divisor of \(heads)")
    }
    if reader["attention.key_length"] == nil, channels % heads != 0 {
      throw reader.error("attention.head_count", "\(heads) heads for \(channels) channels", "heads of equal width, or attention.key_length")
    }
    let headWidth = try reader.integer("attention.key_length", in: size, default: channels / heads)
    guard headWidth % 2 == 0 else {
      throw reader.error(
        reader["attention.key_length"] != nil ? "attention.key_length" : "attention.head_count", "heads of width \(headWidth)",
        "an even width: rotation needs pairs")
    }
    for key in ["attention.value_length", "rope.dimension_count"] {
      let width = try reader.integer(key, in: size, default: headWidth)
      guard width == headWidth else { throw reader.error(key, "\(width)", "\(headWidth), the width of a head; others are not built yet") }
    }
    let tokens = try file.metadata.array("tokenizer.ggml.tokens")?.count
    vocabulary = try reader.integer("vocab_size", in: size, default: tokens)
    norm = NormRules(epsilon: try reader.number("attention.layer_norm_rms_epsilon", "a number ≥ 0") { $0 >= 0 })
    let base = try reader.number("rope.freq_base", default: 10_000, "a number > 0") { $0 > 0 && $0.isFinite }
    rotary = RotaryRules(
      base: base, scaling: try reader.ropeScaling(base: base), divisors: try Self.ropeDivisors(file, headWidth))
    attention = AttentionRules(
      heads: heads, keyValueHeads: keyValueHeads, headWidth: headWidth, windows: Array(repeating: nil, count: layers))
    attention.inputBias = family.gguf?.hasInputBias == true || file.entry("blk.0.attn_q.bias") != nil
    attention.outputBias = file.entry("blk.0.attn_output.bias") != nil
    feedForward.hasBias = file.entry("blk.0.ffn_gate.bias") != nil
    contextLength = reader.value("context_length")?.intValue.flatMap { $0 > 0 ? $0 : nil }
    head = HeadRules(isTied: file.entry("output.weight") == nil)
    initializerRange = 0.02
    try reader.refuseUnbuiltFeatures()
    unknownKeys = reader.meaningfulUnknownKeys
  }

  private static func ropeDivisors(_ file: GGUF, _ headWidth: Int) throws -> [Double]? {
    guard let entry = file.entry(GGUFLayout.divisors) else { return nil }
    func error(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: file.file, place: .tensor(entry.name), found: found, expected: expected)
    }
    guard entry.elementType == .float32, entry.shape == [headWidth / 2] else {
      throw error("\(entry.elementType) \(entry.shape)", "F32 [\(headWidth / 2)], a divisor for each pair of a head")
    }
    let divisors = try file.withBytes(of: entry.name) { bytes in
      (0..<headWidth / 2).map {
        Double(Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))))
      }
    }
    if let index = divisors.firstIndex(where: { !($0 > 0 && $0.isFinite) }) {
      throw error("\(divisors[index]) at \(index)", "divisors > 0")
    }
    return divisors
  }
}

extension KeyedReader where Value == GGUFValue {
  /// Reads the values of a file's architecture, whose name stands before their keys.
  ///
  /// - Throws: `CheckpointError` for an architecture that is not built, and for a part of a model.
  fileprivate init(architectureOf file: GGUF) throws {
    let metadata = file.metadata
    let names = DecoderFamilies.all.compactMap(\.gguf?.architecture)
    let expected = names.map { "\"\($0)\"" }.joined(separator: " or ") + "; others are not built yet"
    let values = Dictionary(uniqueKeysWithValues: try metadata.keys.compactMap { key in try metadata.value(key).map { (key, $0) } })
    let top = KeyedReader(file: file.file, path: "", names: metadata.keys) { values[$0] }
    let name = try top.required("general.architecture", expected)
    guard let architecture = name.stringValue, names.contains(architecture) else {
      throw top.error("general.architecture", name, expected)
    }
    try top.refuse("split.count", unless: { $0.intValue == 1 || $0.intValue == 0 }, "a model in one file; parts are not built yet")
    self.init(file: file.file, path: architecture, names: metadata.keys) { values["\(architecture).\($0)"] }
  }

  /// How the rotary angles are stretched, as llama.cpp reads it: a factor without a type is linear, one of 0 or 1 says nothing, and yarn
  /// is transformers' with `attn_factor` on top.
  fileprivate func ropeScaling(base: Double) throws -> RotaryScaling? {
    let type = try string("rope.scaling.type", default: "linear", oneOf: ["none", "linear", "yarn"])
    let key = self["rope.scaling.factor"] == nil ? "rope.scale_linear" : "rope.scaling.factor"
    let found = try number(key, default: 1, "a number ≥ 0") { $0 >= 0 && $0.isFinite }
    let factor = found == 0 ? 1 : found
    let ones = ["rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"] + (type == "yarn" ? [] : ["rope.scaling.attn_factor"])
    for key in ones { try refuse(key, unless: { $0.doubleValue == 1 }, "1 or nothing; others are not built yet") }
    try refuse("rope.scaling.yarn_log_multiplier", unless: { $0.doubleValue == 0 }, "0 or nothing; others are not built yet")
    guard type == "yarn" else { return type == "none" || factor == 1 ? nil : .linear(factor: factor) }

    let original = "rope.scaling.original_context_length"
    var yarn = RotaryScaling.YaRN(
      factor: factor, originalPositions: try integer(self[original] == nil ? "context_length" : original, in: 1...(1 << 40)))
    guard base != 1 else { throw error("rope.freq_base", "1", "another base under \"yarn\"") }
    yarn.fast = try number("rope.scaling.yarn_beta_fast", default: yarn.fast, "a number > 0") { $0 > 0 && $0.isFinite }
    yarn.slow = try number("rope.scaling.yarn_beta_slow", default: yarn.slow, "a number > 0") { $0 > 0 && $0.isFinite }
    yarn.magnitude *= try number("rope.scaling.attn_factor", default: 1, "a finite number") { $0.isFinite }
    return .yarn(yarn)
  }

  /// Keys that change the mathematics of a forward pass and are not built.
  fileprivate func refuseUnbuiltFeatures() throws {
    for key in ["logit_scale", "embedding_scale", "residual_scale"] {
      try refuse(key, unless: { $0.doubleValue == 1 || $0.doubleValue == 0 }, "1; others are not built yet")
    }
    for key in [
      "attention.sliding_window", "expert_count", "expert_used_count", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias",
      "attn_logit_softcapping", "final_logit_softcapping",
    ] {
      try refuse(key, unless: { $0.doubleValue == 0 }, "no such key, or 0; this feature is not built yet")
    }
    for (key, expected) in [("attention.causal", true), ("use_parallel_residual", false)] {
      try refuse(key, unless: { $0.boolValue == expected }, "\(expected)")
    }
  }

  /// Keys that nobody asked for, but for those that say nothing about the mathematics: descriptions, the tokenizer (which has a
  /// reader of its own), and how the file was split and quantized.
  fileprivate var meaningfulUnknownKeys: [String] {
    let inert = ["general.", "tokenizer.", "split.", "quantize.", path + ".rope.scaling.finetuned"]
    return unknownNames.filter { name in !inert.contains { name.hasPrefix($0) } }
  }
}
