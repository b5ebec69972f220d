import Checkpoints

extension DecoderConfiguration {
  /// Qwen 1.5 and 2: Llama with a bias on q, k and v (not on o), `model_type` "qwen2".
  ///
  /// Published files carry a `sliding_window` that is off: only `use_sliding_window` switches it on, and then only in
  /// layers from `max_window_layers` on. (transformers before 4.48 applies it to all layers in eager mode.)
  static func qwen2(_ reader: JSONReader) throws -> DecoderConfiguration {
    var configuration = try DecoderConfiguration(common: reader, defaultKeyValueHeads: 32)
    configuration.queryKeyValueBias = true
    let usesWindow = try reader.bool("use_sliding_window", default: false)
    let isNull = reader["sliding_window"] == .null
    let window = isNull ? nil : try reader.integer("sliding_window", in: 1...(1 << 40), default: 4096)
    configuration.firstWindowedLayer = try reader.integer("max_window_layers", in: 0...(1 << 40), default: 28)
    configuration.window = usesWindow ? window : nil
    if let types = reader.value("layer_types") {  // transformers 5 writes what follows from the keys above
      let expected = (0..<configuration.layers).map { configuration.window(ofLayer: $0) == nil ? "full_attention" : "sliding_attention" }
      guard types == .array(expected.map { JSON($0) }) else {
        throw reader.error("layer_types", types, "what use_sliding_window and max_window_layers say, \(expected.joined(separator: ", "))")
      }
    }
    try reader.refuse("attention_bias", unless: { $0.boolValue != nil }, "true or false, which mean nothing here")
    try reader.refuse("mlp_bias")
    return configuration
  }
}
