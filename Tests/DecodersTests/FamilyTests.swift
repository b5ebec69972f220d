import Checkpoints
import Decoders
import Layers
import Testing

/// What the keys of `config.json` mean in each family, absent, null and given.
@Suite struct FamilyTests {
  private func read(_ type: String, _ extra: [(String, JSON)] = []) throws -> DecoderConfiguration {
    var object = JSON.Object()
    object["model_type"] = .string(type)
    for (key, value) in [
      ("hidden_size", 64), ("intermediate_size", 96), ("num_hidden_layers", 4), ("num_attention_heads", 32), ("vocab_size", 11),
    ] { object[key] = JSON(value) }
    for (key, value) in extra { object[key] = value }
    return try DecoderConfiguration(.object(object), file: "config.json")
  }

  private func windows(_ configuration: DecoderConfiguration) -> [Int?] {
    configuration.attention.windows
  }

  private func expectError(naming key: String, _ type: String, _ extra: [(String, JSON)]) {
    let error = #expect(throws: CheckpointError.self, "\(key) passed") { _ = try read(type, extra) }
    #expect(error.map { "\($0)".contains(key) } ?? false, "\(error.map { "\($0)" } ?? "no error") does not name \(key)")
  }

  @Test func absentKeysMeanWhatHuggingFacesClassesSay() throws {
    let (llama, mistral, qwen2) = (try read("llama"), try read("mistral"), try read("qwen2"))
    #expect([llama.attention.keyValueHeads, mistral.attention.keyValueHeads, qwen2.attention.keyValueHeads] == [32, 8, 32])
    for configuration in [llama, mistral, qwen2] {
      #expect(configuration.attention.headWidth == 2)
      #expect(configuration.norm.epsilon == 1e-6)
      #expect(configuration.rotary.base == 10_000)
      #expect(configuration.rotary.scaling == nil)
      #expect(!configuration.head.isTied)
      #expect(configuration.initializerRange == 0.02)
      #expect(configuration.unknownKeys.isEmpty)
      #expect([.o, .gate, .up, .down].allSatisfy { !configuration.hasBias($0) })
    }
    for name in [LinearName.q, .k, .v] {
      #expect([llama, mistral, qwen2].map { $0.hasBias(name) } == [false, false, true])
    }
    #expect(windows(llama) == [nil, nil, nil, nil])
    #expect(windows(mistral) == [4096, 4096, 4096, 4096])
    #expect(windows(qwen2) == [nil, nil, nil, nil])
  }

  @Test func aNullMeansTheDefaultButForTheWindowAndTheKeyValueHeads() throws {
    #expect(try read("mistral", [("head_dim", nil), ("rope_scaling", nil)]) == read("mistral"))
    let heads = try read("mistral", [("num_key_value_heads", nil)])
    #expect(heads.attention.keyValueHeads == heads.attention.heads)
    #expect(try windows(read("mistral", [("sliding_window", nil)])) == [nil, nil, nil, nil])
    #expect(try windows(read("mistral", [("sliding_window", 7)])) == [7, 7, 7, 7])
    expectError(naming: "sliding_window", "mistral", [("sliding_window", 0)])
    #expect(try windows(read("llama", [("sliding_window", nil)])) == [nil, nil, nil, nil])
    expectError(naming: "sliding_window", "llama", [("sliding_window", 7)])
  }

  @Test func qwen2sWindowIsOnOnlyWhereItIsSwitchedOn() throws {
    func windows(_ extra: (String, JSON)...) throws -> [Int?] { try self.windows(read("qwen2", extra)) }
    #expect(try windows(("sliding_window", 3), ("max_window_layers", 1)) == [nil, nil, nil, nil])
    #expect(try windows(("sliding_window", 3), ("max_window_layers", 1), ("use_sliding_window", false)) == [nil, nil, nil, nil])
    #expect(try windows(("sliding_window", 3), ("max_window_layers", 1), ("use_sliding_window", true)) == [nil, 3, 3, 3])
    #expect(try windows(("sliding_window", 3), ("max_window_layers", 0), ("use_sliding_window", true)) == [3, 3, 3, 3])
    #expect(try windows(("sliding_window", 3), ("max_window_layers", 4), ("use_sliding_window", true)) == [nil, nil, nil, nil])
    #expect(try windows(("max_window_layers", 3), ("use_sliding_window", true)) == [nil, nil, nil, 4096])
    #expect(try windows(("sliding_window", 3), ("use_sliding_window", true)) == [nil, nil, nil, nil], "28 layers come before the window")
    #expect(try windows(("sliding_window", nil), ("max_window_layers", 0), ("use_sliding_window", true)) == [nil, nil, nil, nil])
  }

  @Test func layerTypesMustSayWhatTheOtherKeysSay() throws {
    let window: [(String, JSON)] = [("sliding_window", 3), ("max_window_layers", 3), ("use_sliding_window", true)]
    let (full, sliding): (JSON, JSON) = ("full_attention", "sliding_attention")
    let types = ("layer_types", JSON.array([full, full, full, sliding]))
    #expect(try read("qwen2", window + [types]) == read("qwen2", window))
    #expect(try read("qwen2", [("layer_types", .array([full, full, full, full]))]) == read("qwen2"))
    expectError(naming: "layer_types", "qwen2", [types])
    expectError(naming: "layer_types", "qwen2", window + [("layer_types", .array([full, full, sliding, sliding]))])
    expectError(naming: "layer_types", "qwen2", window + [("layer_types", .array([full, full, sliding]))])
    expectError(naming: "layer_types", "qwen2", window + [("layer_types", "full_attention")])
  }

  @Test func biasesAreEachFamilysOwn() throws {
    let llama = try read("llama", [("attention_bias", true), ("mlp_bias", true)])
    #expect(LinearName.allCases.allSatisfy { llama.hasBias($0) })
    let attention = try read("llama", [("attention_bias", true)])
    #expect(LinearName.allCases.map { attention.hasBias($0) } == [true, true, true, true, false, false, false])
    expectError(naming: "attention_bias", "mistral", [("attention_bias", true)])
    expectError(naming: "mlp_bias", "mistral", [("mlp_bias", true)])
    expectError(naming: "mlp_bias", "qwen2", [("mlp_bias", true)])
    #expect(try read("qwen2", [("attention_bias", false)]) == read("qwen2"))
  }

  @Test(arguments: ["llama", "mistral", "qwen2"]) func headsMayBeWiderOrNarrowerThanTheirShare(_ type: String) throws {
    for width in [2, 6, 128] {
      let configuration = try read(type, [("head_dim", JSON(width)), ("num_key_value_heads", 16)])
      #expect(configuration.attention.headWidth == width)
      #expect(configuration.linearSizes(.q) == (32 * width, 64))
      #expect(configuration.linearSizes(.k) == (16 * width, 64))
      #expect(configuration.linearSizes(.o) == (64, 32 * width))
    }
    expectError(naming: "head_dim", type, [("head_dim", 3)])
    expectError(naming: "num_key_value_heads", type, [("num_key_value_heads", 5)])
    expectError(naming: "num_attention_heads", type, [("num_attention_heads", 24), ("num_key_value_heads", 8)])
  }

  @Test(arguments: ["llama", "mistral", "qwen2"]) func rotationIsReadWhereEitherVersionOfTransformersPutsIt(_ type: String) throws {
    let llama3: JSON = [
      "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 128,
    ]
    let expected = RotaryScaling(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalPositions: 128)
    var five = try #require(llama3.objectValue)
    five["rope_theta"] = 500_000
    for extra: [(String, JSON)] in [
      [("rope_theta", 500_000), ("rope_scaling", llama3)], [("rope_parameters", .object(five))],
      [("rope_theta", 500_000), ("rope_parameters", llama3)],
    ] {
      let configuration = try read(type, extra)
      #expect(configuration.rotary.base == 500_000 && configuration.rotary.scaling == expected)
    }
    let plain = try read(type, [("rope_parameters", ["rope_type": "default", "rope_theta": 123])])
    #expect(plain.rotary.base == 123 && plain.rotary.scaling == nil)
    expectError(naming: "rope_parameters", type, [("rope_parameters", ["rope_type": "yarn", "factor": 2])])
    expectError(naming: "rope_parameters.rope_theta", type, [("rope_parameters", ["rope_type": "default", "rope_theta": 0])])
    expectError(naming: "rope_scaling", type, [("rope_scaling", ["type": "linear", "factor": 2])])
    expectError(naming: "rope_scaling.factor", type, [("rope_scaling", ["rope_type": "llama3"])])
  }
}
