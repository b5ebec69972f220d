import Checkpoints

/// Mistral: Llama with a sliding window in every layer, `model_type` "mistral".
///
/// Row j is visible to row i when i − j < `sliding_window`; null switches the window off, and an absent key means
/// 4096, as in Hugging Face's `MistralConfig` (whose default of 8 key/value heads holds here too).
struct Mistral: DecoderFamily {
  let name = "mistral"
  let architecture = "MistralForCausalLM"
  let defaults = FamilyDefaults(width: 14_336, keyValueHeads: 8, positions: 131_072)

  func configuration(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader, family: self)
    _ = try reader.string("hidden_act", default: "silu", oneOf: ["silu"])
    let window = try reader.window()
    configuration.attention.windows = configuration.attention.windows.map { _ in window }
    try reader.refuse("attention_bias")
    try reader.refuse("mlp_bias")
    return configuration
  }

  func keys(_ configuration: DecoderConfiguration) -> [(String, JSON)] {
    [("sliding_window", configuration.attention.windows.first.flatMap { $0 }.map { JSON($0) } ?? .null)]
  }
}
