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

  /// The configuration classes of transformers 4.46.3, asked with no argument.
  @Test(arguments: [
    ("llama", [32_000, 4096, 11_008, 32, 32, 32, 128, 2048], false), ("mistral", [32_000, 4096, 14_336, 32, 32, 8, 128, 131_072], false),
    ("qwen2", [151_936, 4096, 22_016, 32, 32, 32, 128, 32_768], false), ("gemma", [256_000, 3072, 24_576, 28, 16, 16, 256, 8192], true),
    ("gemma2", [256_000, 3072, 24_576, 28, 16, 16, 256, 8192], true),
  ])
  func aConfigurationOfItsTypeAloneIsTheClasssOwn(_ type: String, _ sizes: [Int], _ isTied: Bool) throws {
    let it = try DecoderConfiguration(["model_type": .string(type)], file: "config.json")
    let attention = it.attention
    let found = [
      it.vocabulary, it.channels, it.feedForward.width, it.layers, attention.heads, attention.keyValueHeads, attention.headWidth,
      it.contextLength ?? 0,
    ]
    #expect(found == sizes && it.head.isTied == isTied)
    #expect(it.rotary.base == 10_000 && it.rotary.scaling == nil && it.norm.epsilon == 1e-6 && it.initializerRange == 0.02)
    #expect(it.feedForward.activation == (isTied ? .geluTanh : .silu) && it.norm.offset == (isTied ? 1 : 0))
    #expect(it.feedForward.hasBias == false && attention.inputBias == (type == "qwen2") && !attention.outputBias)
    let isGemma2 = type == "gemma2"
    #expect(attention.queryDivisor == (isGemma2 ? 224 : nil) && attention.softcap == (isGemma2 ? 50 : nil))
    #expect(it.head.softcap == (isGemma2 ? 30 : nil))
    let window = { (layer: Int) in type == "mistral" || isGemma2 && layer % 2 == 0 ? 4096 : nil }
    #expect(attention.windows == (0..<it.layers).map(window))
    #expect(it.unknownKeys.isEmpty)
  }

  @Test func aNullIsRefusedWhereTransformersHasNoUseForIt() throws {
    for type in ["llama", "mistral", "qwen2", "gemma", "gemma2"] {
      for key in [
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps", "rope_theta",
      ] {
        expectError(naming: key, type, [(key, nil)])
      }
      let other = try read(type, [("max_position_embeddings", nil), ("rope_scaling", nil), ("rope_parameters", nil), ("mlp_bias", nil)])
      #expect(try other.contextLength == nil && other.rotary == read(type).rotary)
      #expect(try !read(type, [("tie_word_embeddings", nil)]).head.isTied, "null is false")
    }
    for key in ["head_dim", "num_key_value_heads"] { expectError(naming: key, "gemma2", [(key, nil)]) }
    let uncapped = try read("gemma2", [("attn_logit_softcapping", nil), ("final_logit_softcapping", nil)])
    #expect(uncapped.attention.softcap == nil && uncapped.head.softcap == nil)
    #expect(try read("gemma", [("hidden_activation", nil)]).feedForward.activation == .geluTanh)
  }

  @Test func aNullMeansTheDefaultButForTheWindowAndTheKeyValueHeads() throws {
    #expect(try read("mistral", [("head_dim", nil), ("rope_scaling", nil)]) == read("mistral"))
    let heads = try read("mistral", [("num_key_value_heads", nil)])
    #expect(heads.attention.keyValueHeads == heads.attention.heads)
    #expect(try windows(read("mistral", [("sliding_window", nil)])) == [nil, nil, nil, nil])
    for type in ["mistral", "qwen2", "gemma2"] { #expect(try read(type, [("sliding_window", nil)]).unknownKeys == [], "\(type)") }
    #expect(try windows(read("mistral", [("sliding_window", 7)])) == [7, 7, 7, 7])
    expectError(naming: "sliding_window", "mistral", [("sliding_window", 0)])
    #expect(try windows(read("llama", [("sliding_window", nil)])) == [nil, nil, nil, nil])
  }

  @Test(arguments: ["llama", "gemma"]) func aWindowOfAFamilyWithoutOneIsAnUnknownKey(_ type: String) throws {
    let configuration = try read(type, [("sliding_window", 7), ("brand_new", 1)])
    #expect(configuration.unknownKeys == ["sliding_window", "brand_new"] && windows(configuration) == [nil, nil, nil, nil])
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

  @Test func layerTypesSayWhichLayersHaveTheWindow() throws {
    let window: [(String, JSON)] = [("sliding_window", 3), ("max_window_layers", 3), ("use_sliding_window", true)]
    let (full, sliding): (JSON, JSON) = ("full_attention", "sliding_attention")
    func types(_ names: JSON...) -> [(String, JSON)] { [("layer_types", .array(names))] }
    #expect(try read("qwen2", window + types(full, full, full, sliding)) == read("qwen2", window))
    #expect(try windows(read("qwen2", window + types(full, sliding, full, full))) == [nil, 3, nil, nil])
    #expect(try read("qwen2", types(full, full, full, full)) == read("qwen2"))
    #expect(try windows(read("gemma2", [("sliding_window", 3)])) == [3, nil, 3, nil])
    #expect(try windows(read("gemma2", [("sliding_window", 3)] + types(full, sliding, sliding, full))) == [nil, 3, 3, nil])
    expectError(naming: "layer_types", "qwen2", types(full, full, full, sliding))
    expectError(naming: "layer_types", "qwen2", window + types(full, full, sliding))
    expectError(naming: "layer_types", "qwen2", window + types(full, full, full, "chunked_attention"))
    expectError(naming: "layer_types", "qwen2", window + [("layer_types", "full_attention")])
    for configuration in [
      try read("qwen2", window + types(full, sliding, full, full)), try read("gemma2", types(full, full, full, sliding)),
    ] {
      var json = try #require(configuration.json.objectValue)
      json["model_type"] = .string(configuration.familyName)
      #expect(try DecoderConfiguration(.object(json), file: "config.json").attention == configuration.attention)
    }
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
    let expected = RotaryScaling.llama3(.init(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalPositions: 128))
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
    expectError(naming: "rope_parameters.rope_theta", type, [("rope_parameters", ["rope_type": "default", "rope_theta": 0])])
    expectError(naming: "rope_scaling.type", type, [("rope_scaling", ["type": "mrope"])])
    expectError(naming: "rope_scaling.factor", type, [("rope_scaling", ["rope_type": "llama3"])])
  }

  /// The numbers of transformers 4.57.6 for `rope_scaling` and of 5.0.0 for `rope_parameters`, by its own functions.
  @Test func scalingsMeanWhatTransformersMakesOfThem() throws {
    func scaling(_ json: JSON, _ key: String = "rope_scaling", _ more: [(String, JSON)] = []) throws -> RotaryScaling? {
      try read("llama", [("max_position_embeddings", 64), (key, json)] + more).rotary.scaling
    }
    #expect(try scaling(["type": "linear", "factor": 2]) == .linear(factor: 2))
    #expect(try scaling(["rope_type": "dynamic", "factor": 2]) == .dynamic(factor: 2, originalPositions: 64))
    let yarn: JSON = ["rope_type": "yarn", "factor": 4]
    #expect(try scaling(yarn) == .yarn(.init(factor: 4, originalPositions: 64)))
    #expect(try scaling(yarn)?.magnitude == 1.138629436111989)
    #expect(try scaling(yarn, "rope_scaling", [("original_max_position_embeddings", 16)]) == scaling(yarn), "5 alone looks there")
    #expect(
      try scaling(yarn, "rope_parameters", [("original_max_position_embeddings", 16)]) == .yarn(.init(factor: 4, originalPositions: 16)))
    #expect(try scaling(["type": "yarn", "factor": 0.5])?.magnitude == 1)
    #expect(try scaling(["type": "yarn", "factor": 4, "attention_factor": 0.5])?.magnitude == 0.5)
    #expect(try scaling(["type": "yarn", "factor": 4, "mscale": 1])?.magnitude == 1.138629436111989)
    #expect(try scaling(["type": "yarn", "factor": 4, "mscale": 0.707, "mscale_all_dim": 0.707])?.magnitude == 1)
    var full = RotaryScaling.YaRN(factor: 4, originalPositions: 16)
    (full.fast, full.slow, full.isTruncated) = (16, 1, false)
    let keys: JSON = [
      "type": "yarn", "factor": 4, "beta_fast": 16, "beta_slow": 0, "truncate": nil, "original_max_position_embeddings": 16,
      "attention_factor": nil,
    ]
    #expect(try scaling(keys) == .yarn(full), "0 is no number of turns, and null is false")

    let long: [(String, JSON)] = [("short_factor", [1]), ("long_factor", [2])]
    func longRoPE(_ keys: (String, JSON)...) -> JSON {
      var object = JSON.Object()
      for (key, value) in [("type", "longrope")] + long + keys { object[key] = value }
      return .object(object)
    }
    func expected(_ positions: Int, _ magnitude: Double) -> RotaryScaling {
      .longRoPE(.init(short: [1], long: [2], originalPositions: positions, magnitude: magnitude))
    }
    let beside: [(String, JSON)] = [("original_max_position_embeddings", 16)]
    let inside = ("original_max_position_embeddings", JSON(16))
    #expect(try scaling(longRoPE(("factor", 4))) == expected(64, 1.1547005383792517))
    #expect(try scaling(longRoPE(("factor", 4), inside)) == expected(64, 1.1547005383792517), "4.57.6 does not look there")
    #expect(try scaling(longRoPE(("factor", 8)), "rope_scaling", beside) == expected(16, 1.224744871391589), "the ratio of the positions")
    #expect(try scaling(longRoPE(("type", "su")), "rope_scaling", beside) == expected(16, 1.224744871391589))
    #expect(try scaling(longRoPE(("attention_factor", 1.5)), "rope_scaling") == expected(64, 1.5))
    #expect(try scaling(longRoPE(("factor", 8), inside), "rope_parameters") == expected(16, 1.3228756555322954), "5 prefers the factor")
    #expect(try scaling(longRoPE(inside), "rope_parameters") == expected(16, 1.224744871391589))
    #expect(try scaling(longRoPE(inside), "rope_parameters", [("original_max_position_embeddings", 32)])?.magnitude == 1.0954451150103321)
    #expect(try scaling(longRoPE(), "rope_parameters") == expected(64, 1))
    expectError(naming: "rope_scaling.factor", "llama", [("rope_scaling", longRoPE())])
  }

  @Test func whatAScalingSaysInVainIsListed() throws {
    let configuration = try read(
      "mistral", [("rope_scaling", ["type": "linear", "factor": 2, "finetuned": true, "beta_fast": 8]), ("new", 1)])
    #expect(configuration.unknownKeys == ["new", "rope_scaling.finetuned", "rope_scaling.beta_fast"])
    let long: JSON = ["type": "longrope", "factor": 2, "short_factor": [1], "long_factor": [2], "original_max_position_embeddings": 16]
    #expect(try read("llama", [("rope_scaling", long)]).unknownKeys == ["rope_scaling.original_max_position_embeddings"])
  }

  @Test func aConfigurationIsWrittenByItsFamilysKeys() throws {
    func keys(_ type: String) throws -> Set<String> { Set(try #require(read(type).json.objectValue).keys) }
    let activations: Set = ["hidden_act", "hidden_activation"]
    #expect(try keys("llama").intersection(activations) == ["hidden_act"])
    #expect(try keys("gemma").intersection(activations) == activations)
    #expect(try keys("gemma2").intersection(activations) == ["hidden_activation"])
    for type in ["llama", "mistral", "qwen2", "gemma", "gemma2"] { #expect(try keys(type).contains("rms_norm_eps")) }
  }

  @Test func aScalingIsWrittenAsItIsRead() throws {
    for scaling: JSON in [
      ["type": "linear", "factor": 2.5], ["type": "dynamic", "factor": 3],
      ["type": "yarn", "factor": 4, "mscale": 1.5, "mscale_all_dim": 1],
      ["type": "longrope", "factor": 4, "short_factor": [1.5], "long_factor": [2.5]],
      ["type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 128],
    ] {
      let read = try read("llama", [("rope_scaling", scaling)])
      var json = try #require(read.json.objectValue)
      json["model_type"] = "llama"
      let again = try DecoderConfiguration(.object(json), file: "config.json")
      #expect(again.rotary == read.rotary && again.unknownKeys.isEmpty, "\(scaling)")
    }
  }
}
