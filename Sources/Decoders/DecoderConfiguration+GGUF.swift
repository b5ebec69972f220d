import Checkpoints

extension DecoderConfiguration {
  /// Reads the metadata of a GGUF file of architecture "llama" (Llama, SmolLM2, Mistral) or "qwen2".
  ///
  /// What the metadata does not say is read off the tensors: a head is tied where `output.weight` is absent, a layer has a bias where
  /// the first block has its tensor, and `rope_freqs.weight` holds the divisors of the rotary frequencies (Llama 3.1).
  /// - Throws: `CheckpointError` naming file, key, what was found and what was expected.
  public init(_ file: GGUF) throws {
    var reader = try GGUFReader(file)
    let size = 1...(1 << 24)
    layers = try reader.integer("block_count", in: 1...10_000)
    channels = try reader.integer("embedding_length", in: size)
    hiddenWidth = try reader.integer("feed_forward_length", in: size)
    heads = try reader.integer("attention.head_count", in: size)
    keyValueHeads = try reader.integer("attention.head_count_kv", in: size, default: heads)
    guard heads % keyValueHeads == 0 else {
      throw reader.error("attention.head_count_kv", "\(keyValueHeads) for \(heads) query heads", "a divisor of \(heads)")
    }
    if !reader.has("attention.key_length"), channels % heads != 0 {
      throw reader.error("attention.head_count", "\(heads) heads for \(channels) channels", "heads of equal width, or attention.key_length")
    }
    headWidth = try reader.integer("attention.key_length", in: size, default: channels / heads)
    guard headWidth % 2 == 0 else {
      throw reader.error(
        reader.has("attention.key_length") ? "attention.key_length" : "attention.head_count", "heads of width \(headWidth)",
        "an even width: rotation needs pairs")
    }
    for key in ["attention.value_length", "rope.dimension_count"] {
      let width = try reader.integer(key, in: size, default: headWidth)
      guard width == headWidth else { throw reader.error(key, "\(width)", "\(headWidth), the width of a head; others are not built yet") }
    }
    let tokens = try file.metadata.array("tokenizer.ggml.tokens")?.count
    vocabulary = try reader.integer("vocab_size", in: size, default: tokens)
    normEpsilon = try reader.number("attention.layer_norm_rms_epsilon", "a number ≥ 0") { $0 >= 0 }
    ropeBase = try reader.number("rope.freq_base", default: 10_000, "a number > 0") { $0 > 0 && $0.isFinite }
    ropeScaling = nil
    ropeDivisors = try Self.ropeDivisors(file, headWidth)
    queryKeyValueBias = reader.architecture == "qwen2" || file.entry("blk.0.attn_q.bias") != nil
    outputBias = file.entry("blk.0.attn_output.bias") != nil
    feedForwardBias = file.entry("blk.0.ffn_gate.bias") != nil
    window = nil
    firstWindowedLayer = 0
    contextLength = try reader.value("context_length")?.intValue.flatMap { $0 > 0 ? $0 : nil }
    tiesHead = file.entry("output.weight") == nil
    initializerRange = 0.02
    try reader.refuseUnbuiltFeatures()
    unknownKeys = reader.unknownKeys()
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

/// Reads typed values of an architecture out of a GGUF file's metadata and remembers which keys were asked for.
private struct GGUFReader {
  let file: GGUF
  let architecture: String
  private var known: Set<String> = []

  init(_ file: GGUF) throws {
    let key = "general.architecture"
    let expected = "\"llama\" or \"qwen2\"; others are not built yet"
    guard let value = try file.metadata.value(key) else { throw file.metadata.error(key, "nothing", expected) }
    guard let name = value.stringValue, ["llama", "qwen2"].contains(name) else { throw file.metadata.error(key, value.summary, expected) }
    self.file = file
    architecture = name
    if let count = try file.metadata.value("split.count"), count.intValue != 1, count.intValue != 0 {
      throw file.metadata.error("split.count", count.summary, "a model in one file; parts are not built yet")
    }
  }

  private func full(_ key: String) -> String { "\(architecture).\(key)" }

  func has(_ key: String) -> Bool { file.metadata.type(full(key)) != nil }

  mutating func value(_ key: String) throws -> GGUFValue? {
    known.insert(full(key))
    return try file.metadata.value(full(key))
  }

  mutating func integer(_ key: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws -> Int {
    let expected = "a whole number in \(range)"
    guard let value = try value(key) else {
      guard let fallback, range.contains(fallback) else { throw error(key, fallback.map { "nothing, hence \($0)" } ?? "nothing", expected) }
      return fallback
    }
    guard let integer = value.intValue, range.contains(integer) else { throw error(key, value.summary, expected) }
    return integer
  }

  mutating func number(_ key: String, default fallback: Double? = nil, _ expected: String, where isValid: (Double) -> Bool) throws -> Double
  {
    guard let value = try value(key) else {
      guard let fallback else { throw error(key, "nothing", expected) }
      return fallback
    }
    guard let number = value.doubleValue, isValid(number) else { throw error(key, value.summary, expected) }
    return number
  }

  /// Keys that change the mathematics of a forward pass and are not built.
  mutating func refuseUnbuiltFeatures() throws {
    if let type = try value("rope.scaling.type"), type.stringValue != "none" {
      throw error("rope.scaling.type", type.summary, "\"none\" or nothing; others are not built yet")
    }
    for key in ["rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor", "logit_scale", "embedding_scale", "residual_scale"]
    {
      if let factor = try value(key), factor.doubleValue != 1, factor.doubleValue != 0 {
        throw error(key, factor.summary, "1; others are not built yet")
      }
    }
    for key in [
      "attention.sliding_window", "expert_count", "expert_used_count", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias",
      "attn_logit_softcapping", "final_logit_softcapping",
    ] {
      if let number = try value(key), number.doubleValue != 0 {
        throw error(key, number.summary, "it absent or 0; this feature is not built yet")
      }
    }
    for (key, expected) in [("attention.causal", true), ("use_parallel_residual", false)] {
      guard let value = try value(key) else { continue }
      guard case .bool(let bool) = value, bool == expected else { throw error(key, value.summary, "\(expected)") }
    }
  }

  /// Keys that nobody asked for, but for those that say nothing about the mathematics: descriptions, the tokenizer (which has a
  /// reader of its own), and how the file was split and quantised.
  func unknownKeys() -> [String] {
    let inert = ["general.", "tokenizer.", "split.", "quantize."]
    return file.metadata.keys.filter { key in !known.contains(key) && !inert.contains { key.hasPrefix($0) } }
  }

  func error(_ key: String, _ found: String, _ expected: String) -> CheckpointError { file.metadata.error(full(key), found, expected) }
}
