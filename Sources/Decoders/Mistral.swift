import Checkpoints

extension DecoderConfiguration {
  /// Mistral: Llama with a sliding window in every layer, `model_type` "mistral".
  ///
  /// Row j is visible to row i when i − j < `sliding_window`; null switches the window off, and an absent key means
  /// 4096, as in Hugging Face's `MistralConfig` (whose default of 8 key/value heads holds here too).
  static func mistral(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader, defaultKeyValueHeads: 8)
    let isNull = reader["sliding_window"] == .null
    configuration.window = isNull ? nil : try reader.integer("sliding_window", in: 1...(1 << 40), default: 4096)
    try reader.refuse("attention_bias")
    try reader.refuse("mlp_bias")
    return configuration
  }
}
