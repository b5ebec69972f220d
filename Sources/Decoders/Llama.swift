import Checkpoints

extension DecoderConfiguration {
  /// Llama 1 to 3, SmolLM2, TinyLlama, Yi …: `model_type` "llama".
  ///
  /// The family that the others vary. `attention_bias` gives a bias to q, k, v *and* o; there is no sliding window.
  static func llama(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader)
    configuration.queryKeyValueBias = try reader.bool("attention_bias", default: false)
    configuration.outputBias = configuration.queryKeyValueBias
    configuration.feedForwardBias = try reader.bool("mlp_bias", default: false)
    try reader.refuse("sliding_window", "it absent or null: a model of type llama has no window")
    return configuration
  }
}
