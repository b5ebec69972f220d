import Checkpoints

extension DecoderConfiguration {
  /// The `config.json` of a model that was read from a GGUF file.
  ///
  /// Biases tell the family: on q, k and v alone it is Qwen2's, on o too (or none at all) Llama's.
  ///
  /// - Parameters:
  ///   - file: what errors name.
  ///   - beginToken: `bos_token_id`.
  ///   - endTokens: `eos_token_id`: a list where several end a text.
  /// - Throws: `CheckpointError` for what a `config.json` cannot say.
  public func json(file: String, beginToken: Int32?, endTokens: [Int32]) throws -> JSON {
    guard ropeDivisors == nil else {
      throw CheckpointError(
        file: file, place: .tensor(GGUFLayout.divisors), found: "divisors of the rotary frequencies",
        expected: "none: a config.json has no place for them; writing this model is not built yet")
    }
    let isQwen = queryKeyValueBias && !outputBias
    guard queryKeyValueBias || !outputBias, !(isQwen && feedForwardBias) else {
      throw CheckpointError(
        file: file, found: "biases that no family has", expected: "those of Llama or Qwen2; others cannot be written yet")
    }
    var object = JSON.Object()
    object["architectures"] = [isQwen ? "Qwen2ForCausalLM" : "LlamaForCausalLM"]
    object["model_type"] = isQwen ? "qwen2" : "llama"
    for (key, size) in [
      ("vocab_size", vocabulary), ("hidden_size", channels), ("intermediate_size", hiddenWidth), ("num_hidden_layers", layers),
      ("num_attention_heads", heads), ("num_key_value_heads", keyValueHeads), ("head_dim", headWidth),
      ("max_position_embeddings", contextLength ?? 2048),  // Hugging Face's default
    ] { object[key] = JSON(size) }
    object["hidden_act"] = "silu"
    object["rms_norm_eps"] = JSON(normEpsilon)
    object["rope_theta"] = JSON(ropeBase)
    object["rope_scaling"] = .null
    object["tie_word_embeddings"] = JSON(tiesHead)
    object["initializer_range"] = JSON(initializerRange)
    if isQwen {
      object["use_sliding_window"] = false
    } else {
      object["attention_bias"] = JSON(queryKeyValueBias)
      object["mlp_bias"] = JSON(feedForwardBias)
    }
    object["bos_token_id"] = beginToken.map { JSON(Int($0)) } ?? .null
    let ends = endTokens.map { JSON(Int($0)) }
    object["eos_token_id"] = ends.count > 1 ? .array(ends) : ends.first ?? .null
    object["torch_dtype"] = "float32"
    return .object(object)
  }
}
