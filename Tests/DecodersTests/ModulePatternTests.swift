import Checkpoints
import Testing

@testable import Decoders

/// Regular expressions over names of modules, by Python's `re.fullmatch`.
@Suite struct ModulePatternTests {
  @Test(arguments: [
    (#".*\.(q|v)_proj"#, ["model.layers.0.self_attn.q_proj"], ["model.layers.0.self_attn.k_proj", "q_proj", "a.q_proj.lora"]),
    (#"model\.layers\.[0-9]{1,2}\.mlp\.(?:gate|up)_proj"#, ["model.layers.12.mlp.up_proj"], ["model.layers.123.mlp.up_proj"]),
    (#"(?i).*SELF_ATTN.*"#, ["model.layers.1.self_attn.q_proj"], ["model.layers.1.mlp.up_proj"]),
    (#"(?!.*k_proj).*self_attn\..*"#, ["x.self_attn.q_proj"], ["x.self_attn.k_proj"]),
    (#"(?=.*\.1\.).*q_proj$"#, ["layers.1.q_proj"], ["layers.11.q_proj", "layers.1.k_proj"]),
    (#"^(?P<all>model)\b.*?\d+\D+$"#, ["model.layers.31.mlp"], ["models.layers.31.mlp", "model.norm"]),
    (#"[^.]+(\.[a-z_\d]+)*"#, ["lm_head", "model.layers.3.mlp"], ["model..mlp", ".x"]),
    ("a{2}b{,2}c{1,}", ["aac", "aabbcc"], ["ac", "aabbbc", "aabb"]), ("x{y}|[]a-c]+", ["x{y}", "]ab"], ["xy", ""]),
    ("", [""], ["a"]), ("a|", ["", "a"], ["b"]), (#"\Aa\Z"#, ["a"], ["ab"]),
  ]) func matchesAsPythonDoes(_ pattern: String, _ yes: [String], _ no: [String]) throws {
    let pattern = try ModulePattern(pattern)
    for name in yes { #expect(pattern.matches(name), "\(pattern.text) \(name)") }
    for name in no { #expect(!pattern.matches(name), "\(pattern.text) \(name)") }
  }

  @Test(arguments: [
    "(", ")", "a)", "[a", "a**", "*a", "a{3,2}", "(?<=a)b", "(?<!a)b", #"(a)\1"#, #"\p{L}"#, "(?x) a", "(?(1)a|b)", "a++", "[b-a]", #"\"#,
    "é",
    "(?P<a", "^*", String(repeating: "(", count: 65) + String(repeating: ")", count: 65), String(repeating: "a", count: 8193),
  ]) func whatIsNoneOrNotBuiltIsRefused(_ pattern: String) {
    #expect(throws: PatternError.self) { try ModulePattern(pattern) }
  }

  /// Patterns that take a backtracking matcher longer than a life.
  @Test func timeIsBoundedWhateverThePattern() throws {
    let name = String(repeating: "a", count: 60) + "b"
    let nested = String(repeating: "(", count: 60) + "a" + String(repeating: ")+)*", count: 30)
    for pattern in [
      "(a*)*c", "(a|aa)+$", "((a+)+)+c", String(repeating: "a*", count: 100) + "c", nested, "(?=(?=(?=(a*)*c)a*)a*)a*b",
      "(a{1000000}){1000000}",
    ] {
      #expect(try !ModulePattern(pattern).matches(name), "\(pattern)")
    }
    #expect(try ModulePattern("(?:(a|a)*)*b").matches(name))
  }
}

/// What a plain LoRA adapter's configuration may say, and what is refused by name.
@Suite struct PlainAdapterConfigurationTests {
  private func configuration(_ members: JSON.Object) throws -> AdapterConfiguration {
    var object = JSON.Object()
    object["peft_type"] = "LORA"
    for member in members.members { object[member.key] = member.value }
    return try AdapterConfiguration(plain: JSONReader(.object(object), file: "adapter_config.json"))
  }

  private func configuration(_ key: String, _ value: JSON) throws -> AdapterConfiguration {
    var object = JSON.Object()
    object[key] = value
    return try configuration(object)
  }

  @Test func absentKeysAreThoseOfPEFT() throws {
    let plain = try configuration(JSON.Object())
    #expect(plain.lora == .init(rank: 8, alpha: 8) && plain.lora.scale == 1)
    #expect(plain.lora(on: .q, layer: 3) != nil && plain.lora(on: .v, layer: 0) != nil && plain.lora(on: .k, layer: 0) == nil)
    #expect(plain.ownName(ofBase: "lm_head.weight") == nil && !plain.replacesBase)
  }

  @Test func theFirstPatternThatMatchesDecides() throws {
    var object = JSON.Object()
    object["target_modules"] = "all-linear"
    object["rank_pattern"] = ["q_proj": 4, #"layers\.1\.self_attn\.q_proj"#: 2, "^k_proj": 9]
    object["alpha_pattern"] = ["self_attn": 7, #"self_attn\..*"#: 3]
    let plain = try configuration(object)
    #expect(plain.lora(on: .q, layer: 1)?.rank == 4 && plain.lora(on: .k, layer: 1)?.rank == 8)
    #expect(plain.lora(on: .q, layer: 0)?.alpha == 3 && plain.lora(on: .up, layer: 0)?.alpha == 8)
    #expect(plain.lora(on: "lm_head") == nil)
  }

  @Test func layersAreThoseThatStandInTheName() throws {
    var object = JSON.Object()
    object["target_modules"] = ["q_proj", "model.layers.7.self_attn.k_proj"]
    object["layers_to_transform"] = 2
    #expect(try configuration(object).lora(on: .q, layer: 2) != nil)
    object["layers_to_transform"] = [0, 1]
    object["layers_pattern"] = ["h", "layers"]
    let listed = try configuration(object)
    #expect(listed.lora(on: .q, layer: 1) != nil && listed.lora(on: .q, layer: 2) == nil)
    #expect(listed.lora(on: .k, layer: 7) != nil, "a full name is meant whatever the layers")
    object["layers_pattern"] = "h"
    #expect(try configuration(object).lora(on: .q, layer: 1) == nil)
  }

  /// "norm" ends every norm's name; what is in a saved module has no branch.
  @Test func savedModulesAreFoundByTheEndsOfNames() throws {
    var object = JSON.Object()
    object["target_modules"] = ["q_proj", "up_proj"]
    object["modules_to_save"] = ["norm", "mlp"]
    let plain = try configuration(object)
    #expect(plain.ownName(ofBase: "model.layers.3.input_layernorm.weight") == "base_model.model.model.layers.3.input_layernorm.weight")
    #expect(plain.ownName(ofBase: "model.norm.weight") != nil && plain.ownName(ofBase: "lm_head.weight") == nil)
    #expect(plain.ownName(ofBase: "model.layers.0.mlp.up_proj.weight") != nil)
    #expect(plain.lora(on: .up, layer: 0) == nil && plain.lora(on: .q, layer: 0) != nil && plain.replacesBase)
  }

  @Test(
    arguments: [
      ("r", 0, "r"), ("r", -1, "r"), ("r", 1_000_000, "r"), ("rank_pattern", ["q_proj": 0], "rank_pattern.q_proj"),
      ("rank_pattern", ["q_proj": -3], "rank_pattern.q_proj"), ("rank_pattern", ["q_proj": 1e9], "rank_pattern.q_proj"),
      ("rank_pattern", ["(": 2], "rank_pattern"), ("rank_pattern", [1], "rank_pattern"), ("alpha_pattern", ["q": "x"], "alpha_pattern.q"),
      ("target_modules", "(", "target_modules"), ("target_modules", [], "target_modules"), ("target_modules", [1], "target_modules"),
      ("exclude_modules", "[", "exclude_modules"), ("layers_to_transform", "x", "layers_to_transform"),
      ("layers_to_transform", [0, "x"], "layers_to_transform"), ("layers_pattern", "h", "layers_pattern"),
      ("modules_to_save", "lm_head", "modules_to_save"), ("modules_to_save", [""], "modules_to_save"),
      ("modules_to_save", ["("], "modules_to_save"),
      ("bias", "some", "bias"), ("use_dora", true, "use_dora"), ("lora_bias", true, "lora_bias"),
      ("init_lora_weights", "loftq", "init_lora_weights"), ("init_lora_weights", "pissa_niter_4", "init_lora_weights"),
      ("init_lora_weights", 3, "init_lora_weights"), ("trainable_token_indices", [1], "trainable_token_indices"),
      ("layer_replication", [[0, 1]], "layer_replication"), ("ensure_weight_tying", true, "ensure_weight_tying"),
    ] as [(String, JSON, String)]) func whatCannotBeIsRefusedByItsKey(_ key: String, _ value: JSON, _ named: String)
  {
    #expect { try configuration(key, value) } throws: { ($0 as? CheckpointError)?.place == .key(named) }
  }

  @Test func whatPEFTIgnoresIsListed() throws {
    #expect(try configuration("fan_in_fan_out", true).unknownKeys == ["fan_in_fan_out"])
  }
}
