import Checkpoints
import Layers

extension DecoderConfiguration {
  /// The configuration as it was understood, defaults filled in, by the keys of Hugging Face's `config.json` (of a GGUF file too).
  public var json: JSON {
    var object: JSON.Object = .init()
    for (key, value) in [
      ("hidden_size", JSON(channels)), ("intermediate_size", JSON(hiddenWidth)), ("num_hidden_layers", JSON(layers)),
      ("num_attention_heads", JSON(heads)), ("num_key_value_heads", JSON(keyValueHeads)), ("head_dim", JSON(headWidth)),
      ("vocab_size", JSON(vocabulary)), ("rms_norm_eps", JSON(normEpsilon)), ("rope_theta", JSON(ropeBase)),
      ("rope_scaling", ropeScaling.map { Self.stretching($0) } ?? nil),
      ("rope_divisors", ropeDivisors.map { .array($0.map { JSON($0) }) } ?? nil),
      ("query_key_value_bias", JSON(queryKeyValueBias)), ("output_bias", JSON(outputBias)), ("mlp_bias", JSON(feedForwardBias)),
      ("sliding_window", window.map { JSON($0) } ?? nil), ("first_windowed_layer", window.map { _ in JSON(firstWindowedLayer) } ?? nil),
      ("tie_word_embeddings", JSON(tiesHead)), ("initializer_range", JSON(initializerRange)),
      ("max_position_embeddings", contextLength.map { JSON($0) } ?? nil),
    ] as [(String, JSON)] { object[key] = value }
    return .object(object)
  }

  private static func stretching(_ scaling: RotaryScaling) -> JSON {
    [
      "rope_type": "llama3", "factor": JSON(scaling.factor), "low_freq_factor": JSON(scaling.lowFrequencyFactor),
      "high_freq_factor": JSON(scaling.highFrequencyFactor), "original_max_position_embeddings": JSON(scaling.originalPositions),
    ]
  }
}
