import Checkpoints

/// Gemma: Llama with norms that store how far the gain is from 1, GELU in the feed-forward, embeddings times √C, and a head that is
/// the embedding; `model_type` "gemma".
///
/// √C is formed in the precision that is computed in. (transformers rounds it to the file's dtype first.) `hidden_act` "gelu" of the
/// first files means the tanh form, which the model was trained with: transformers 4 computes that as well.
struct Gemma: DecoderFamily {
  let name = "gemma"
  let architecture = "GemmaForCausalLM"
  let defaults = FamilyDefaults.gemma

  func configuration(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader, family: self)
    try configuration.readGemma(reader)
    return configuration
  }

  func keys(_ configuration: DecoderConfiguration) -> [(String, JSON)] {
    [
      ("hidden_activation", JSON(configuration.feedForward.activation.rawValue)),
      ("attention_bias", JSON(configuration.attention.inputBias)),
    ]
  }
}

extension FamilyDefaults {
  /// Of Gemma, and of Gemma 2.
  static let gemma = FamilyDefaults(
    vocabulary: 256_000, channels: 3072, width: 24_576, layers: 28, heads: 16, keyValueHeads: 16, headWidth: 256, positions: 8192,
    tiesHead: true)
}

extension DecoderConfiguration {
  /// What Gemma and Gemma 2 have in common.
  mutating func readGemma(_ reader: JSONReader) throws {
    attention.inputBias = try reader.bool("attention_bias", default: false)
    attention.outputBias = attention.inputBias
    feedForward.activation = .geluTanh
    norm.offset = 1
    embeddingScale = Double(channels).squareRoot()
    let tanh = ["gelu_pytorch_tanh", "gelu_new"]  // two names of one function
    _ = try reader.string("hidden_activation", default: "gelu_pytorch_tanh", oneOf: tanh)
    _ = try reader.string("hidden_act", default: "gelu_pytorch_tanh", oneOf: tanh + ["gelu"])
  }
}
