import Checkpoints
import Layers
import Tensors

/// Gemma 2: Gemma with a norm behind attention and feed-forward as well, soft caps on scores and logits, a query scale of its own,
/// and a sliding window in every other layer, the first one included, or in those that `layer_types` names; `model_type` "gemma2".
///
///     z = x + norm(attention(norm(x)))        y = z + norm(feedForward(norm(z)))
///     scores ← c tanh(scores / c) before the mask        logits ← c tanh(logits / c)
struct Gemma2: DecoderFamily {
  let name = "gemma2"
  let architecture = "Gemma2ForCausalLM"
  let defaults = FamilyDefaults.gemma
  let activationKey = "hidden_activation"
  let ggufModules = GGUFSpelling.llama.merging([
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
  ]) { $1 }

  func configuration(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader, family: self)
    try configuration.readGemma(reader)
    let window = try reader.window()
    configuration.attention.windows =
      try reader.windows(configuration.layers, window) ?? (0..<configuration.layers).map { $0 % 2 == 0 ? window : nil }
    configuration.attention.queryDivisor = try reader.number("query_pre_attn_scalar", default: 224, "a number > 0") {
      $0 > 0 && $0.isFinite
    }
    configuration.attention.softcap = try reader.softcap("attn_logit_softcapping", default: 50)
    configuration.head.softcap = try reader.softcap("final_logit_softcapping", default: 30)
    return configuration
  }

  func keys(_ configuration: DecoderConfiguration) -> [(String, JSON)] {
    let attention = configuration.attention
    return [
      ("attention_bias", JSON(attention.inputBias)),
      ("sliding_window", attention.windows.compactMap { $0 }.first.map { JSON($0) } ?? .null),
      ("layer_types", .layerTypes(attention.windows)),
      ("query_pre_attn_scalar", JSON(attention.queryDivisor ?? Double(attention.headWidth))),
      ("attn_logit_softcapping", attention.softcap.map { JSON($0) } ?? .null),
      ("final_logit_softcapping", configuration.head.softcap.map { JSON($0) } ?? .null),
    ]
  }

  func block<B: Backend>(_ layer: Int, _ assembly: inout DecoderAssembly<B>) throws -> any DecoderBlock<B> {
    let path = "model.layers.\(layer)"
    return SequentialBlock(
      path: path,
      attention: Normalized(
        pre: try assembly.norm(path + ".input_layernorm"), layer: try assembly.attention(path + ".self_attn", layer),
        post: try assembly.norm(path + ".post_attention_layernorm")),
      feedForward: Normalized(
        pre: try assembly.norm(path + ".pre_feedforward_layernorm"), layer: try assembly.feedForward(path + ".mlp", layer),
        post: try assembly.norm(path + ".post_feedforward_layernorm")))
  }
}

extension KeyedReader where Value == JSON {
  /// `sliding_window`: nil where it is null; absent it is 4096, the default of every family that has one.
  func window() throws -> Int? {
    _ = value("sliding_window")  // null is read too, and no unknown key
    return self["sliding_window"] == .null ? nil : try integer("sliding_window", in: 1...(1 << 40), default: 4096)
  }

  /// What `layer_types` says of the layers' windows; nil where it says nothing.
  ///
  /// transformers 4.57 and 5 write it. It may name other layers than the keys beside it, which then count for nothing.
  func windows(_ layers: Int, _ window: Int?) throws -> [Int?]? {
    guard let types = value("layer_types") else { return nil }
    let names = types.arrayValue?.map(\.stringValue) ?? []
    guard names.count == layers, names.allSatisfy({ $0 == "full_attention" || $0 == "sliding_attention" && window != nil }) else {
      let expected = window == nil ? "\"full_attention\" alone, since there is no window" : "\"sliding_attention\" or \"full_attention\""
      throw error("layer_types", types.excerpt, "\(layers) names, \(expected)")
    }
    return names.map { $0 == "sliding_attention" ? window : nil }
  }

  /// A soft cap: nil where it is null.
  fileprivate func softcap(_ key: String, default fallback: Double) throws -> Double? {
    self[key] == .null ? nil : try number(key, default: fallback, "a number > 0, or null") { $0 > 0 && $0.isFinite }
  }
}

extension JSON {
  /// `layer_types` of layers with these windows.
  static func layerTypes(_ windows: [Int?]) -> JSON { .array(windows.map { $0 == nil ? "full_attention" : "sliding_attention" }) }
}
