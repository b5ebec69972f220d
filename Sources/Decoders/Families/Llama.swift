import Checkpoints

/// Llama 1 to 3, SmolLM2, TinyLlama, Yi …: `model_type` "llama".
///
/// The family that the others vary. `attention_bias` gives a bias to q, k, v *and* o; there is no sliding window, and a key that asks for
/// one is as unknown as in transformers.
struct Llama: DecoderFamily {
  let name = "llama"
  let architecture = "LlamaForCausalLM"
  let defaults = FamilyDefaults(width: 11_008, positions: 2048)
  /// Its files carry Mistral and SmolLM2, too.
  let gguf: GGUFRules? = GGUFRules(architecture: "llama", rotatesNeighbors: true, hasInputBias: false)

  func configuration(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader, family: self)
    _ = try reader.string("hidden_act", default: "silu", oneOf: ["silu"])
    configuration.attention.inputBias = try reader.bool("attention_bias", default: false)
    configuration.attention.outputBias = configuration.attention.inputBias
    configuration.feedForward.hasBias = try reader.bool("mlp_bias", default: false)
    return configuration
  }

  func keys(_ configuration: DecoderConfiguration) -> [(String, JSON)] {
    [("attention_bias", JSON(configuration.attention.inputBias)), ("mlp_bias", JSON(configuration.feedForward.hasBias))]
  }
}
