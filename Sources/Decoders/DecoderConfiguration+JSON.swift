import Checkpoints
import Layers

extension DecoderConfiguration {
  /// The configuration as it was understood, defaults filled in, by the keys of Hugging Face's `config.json` (of a GGUF file too).
  ///
  /// Divisors of the rotary frequencies, which a GGUF file may have, have no key there.
  public var json: JSON {
    var object = JSON.Object()
    for (key, value) in members { object[key] = value }
    return .object(object)
  }

  /// The keys that say what the model computes, in the order in which they are written.
  private var members: [(String, JSON)] {
    let sizes = [
      ("vocab_size", vocabulary), ("hidden_size", channels), ("intermediate_size", feedForward.width), ("num_hidden_layers", layers),
      ("num_attention_heads", attention.heads), ("num_key_value_heads", attention.keyValueHeads), ("head_dim", attention.headWidth),
    ].map { ($0, JSON($1)) }
    let rules: [(String, JSON)] = [
      ("max_position_embeddings", contextLength.map { JSON($0) } ?? .null),
      (family.activationKey, JSON(feedForward.activation.rawValue)), (family.normKey, JSON(norm.epsilon)),
      ("rope_theta", JSON(rotary.base)), ("rope_scaling", rotary.scaling?.json ?? .null), ("tie_word_embeddings", JSON(head.isTied)),
      ("initializer_range", JSON(initializerRange)),
    ]
    let beside = rotary.scaling?.positionsBeside.map { [("original_max_position_embeddings", JSON($0))] } ?? []
    return sizes + rules + beside + family.keys(self)
  }

  /// The `config.json` of a model that was read from a GGUF file.
  ///
  /// - Parameters:
  ///   - file: what errors name.
  ///   - beginToken: `bos_token_id`.
  ///   - endTokens: `eos_token_id`: a list where several end a text.
  /// - Throws: `CheckpointError` for what a `config.json` cannot say.
  public func json(file: String, beginToken: Int32?, endTokens: [Int32]) throws -> JSON {
    guard rotary.divisors == nil else {
      throw CheckpointError(
        file: file, place: .tensor(GGUFLayout.divisors), found: "divisors of the rotary frequencies",
        expected: "none: a config.json has no place for them; writing this model is not built yet")
    }
    guard attention.inputBias || !attention.outputBias, familyName != "qwen2" || !feedForward.hasBias && !attention.outputBias,
      familyName != "llama" || attention.inputBias == attention.outputBias
    else {
      throw CheckpointError(
        file: file, found: "biases that no family has", expected: "those of Llama or Qwen2; others cannot be written yet")
    }
    var object = JSON.Object()
    object["architectures"] = [JSON(family.architecture)]
    object["model_type"] = JSON(familyName)
    for (key, value) in members { object[key] = value }
    if contextLength == nil { object["max_position_embeddings"] = 2048 }  // Hugging Face's default
    object["bos_token_id"] = beginToken.map { JSON(Int($0)) } ?? .null
    let ends = endTokens.map { JSON(Int($0)) }
    object["eos_token_id"] = ends.count > 1 ? .array(ends) : ends.first ?? .null
    object["torch_dtype"] = "float32"
    return .object(object)
  }
}
