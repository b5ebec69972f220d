import Checkpoints

/// Qwen 1.5 and 2: Llama with a bias on q, k and v (not on o), `model_type` "qwen2".
///
/// Published files carry a `sliding_window` that is off: only `use_sliding_window` switches it on, and then only in
/// layers from `max_window_layers` on, or those that `layer_types` names. (transformers before 4.48 applies it to all layers in eager mode.)
struct Qwen2: DecoderFamily {
  let name = "qwen2"
  let architecture = "Qwen2ForCausalLM"
  let defaults = FamilyDefaults(vocabulary: 151_936, width: 22_016, keyValueHeads: 32, positions: 32_768)
  let gguf: GGUFRules? = GGUFRules(architecture: "qwen2", rotatesNeighbors: false, hasInputBias: true)

  func configuration(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader, family: self)
    _ = try reader.string("hidden_act", default: "silu", oneOf: ["silu"])
    configuration.attention.inputBias = true
    let usesWindow = try reader.bool("use_sliding_window", default: false)
    let window = try reader.window()
    let first = try reader.integer("max_window_layers", in: 0...(1 << 40), default: 28)
    configuration.attention.windows =
      try reader.windows(configuration.layers, usesWindow ? window : nil)
      ?? (0..<configuration.layers).map { usesWindow && $0 >= first ? window : nil }
    try reader.refuse("attention_bias", unless: { $0.boolValue != nil }, "true or false, which mean nothing here")
    try reader.refuse("mlp_bias")
    return configuration
  }

  func keys(_ configuration: DecoderConfiguration) -> [(String, JSON)] {
    let windows = configuration.attention.windows
    guard let first = windows.firstIndex(where: { $0 != nil }), let window = windows[first] else {
      return [("use_sliding_window", false)]
    }
    return [
      ("use_sliding_window", true), ("sliding_window", JSON(window)), ("max_window_layers", JSON(first)),
      ("layer_types", .layerTypes(windows)),
    ]
  }
}
