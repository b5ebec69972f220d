import Checkpoints
import Tensors

extension AdapterConfiguration {
  /// Reads `adapter_config.json`.
  ///
  /// `peft_type` "LORA" is plain LoRA; "MIXLORA", or no type with `routing_strategy` "mixlora" (top-K) or "mixlora-dynamic" (top-p), is MixLoRA.
  ///
  /// - Throws: `CheckpointError` naming file, key, what was found and what was expected; also for a feature that is
  ///   not built yet and for an unknown key with a value that says something.
  public init(contentsOf file: String) throws {
    let reader = try JSONReader(configuration: JSON(contentsOf: file), file: file)
    try reader.refuseOtherPrograms()
    let isPlain = try reader.string("peft_type", default: "MIXLORA", oneOf: ["MIXLORA", "LORA"]) == "LORA"
    guard !isPlain else {
      try reader.refuse("routing_strategy", "no such key in a LORA adapter")
      try self.init(plain: reader)
      unknownKeys += try reader.quietUnknownKeys(inert: Self.inertKeys)
      return
    }
    let isDynamic = try reader.string("routing_strategy", oneOf: ["mixlora", "mixlora-dynamic"]) == "mixlora-dynamic"
    try reader.refuseUnbuiltFeatures()
    try reader.refuseWhatMoEPEFTLacks()
    self.init(lora: try Self.lora(reader, over: nil), targets: ModuleSelection(try Self.targets(reader)))
    let experts = try reader.integer("num_experts", in: 1...4096)
    var mixture = Mixture(experts: experts, policy: try Self.policy(reader, experts: experts, isDynamic: isDynamic), lora: lora)
    if reader.value("act_fn") != nil {
      mixture.activation = Activation(rawValue: try reader.string("act_fn", oneOf: Activation.allCases.map(\.rawValue)))
    }
    mixture.hasBalanceLoss = try reader.bool("router_loss", default: true)
    mixture.balanceCoefficient = try reader.number("router_aux_loss_coef", default: 0.001, "a number ≥ 0") { $0 >= 0 }
    mixture.routerInitializerRange = try reader.number("router_init_range", default: 0.02, "a number ≥ 0") { $0 >= 0 }
    mixture.jitterNoise = try reader.number("jitter_noise", default: 0, "a number ≥ 0") { $0 >= 0 }
    if let overlay = reader.value("expert_lora") {
      guard overlay.objectValue != nil else { throw reader.error("expert_lora", overlay, "an object with r, lora_alpha …") }
      let inner = try JSONReader(configuration: overlay, file: file + ", expert_lora")
      try inner.refuseUnbuiltFeatures()
      try inner.refuseWhatMoEPEFTLacks()
      mixture.lora = try Self.lora(inner, over: lora)
      unknownKeys += try inner.quietUnknownKeys(inert: Self.inertKeys)
    }
    self.mixture = mixture
    unknownKeys += try reader.quietUnknownKeys(inert: Self.inertKeys)
  }

  /// The keys of a routing by MoE-PEFT's names and defaults.
  private static func policy(_ reader: JSONReader, experts: Int, isDynamic: Bool) throws -> RoutingPolicy {
    guard isDynamic else { return .topK(try reader.integer("top_k", in: 1...experts, default: min(2, experts))) }
    return .topP(
      threshold: try reader.number("top_p", default: 0.8, "a number in (0, 1]") { $0 > 0 && $0 <= 1 },
      temperature: try reader.number("temperature", default: 0, "a number ≥ 0") { $0 >= 0 && $0.isFinite })
  }

  /// Rank, scale and dropout; without a base, rank and alpha must be there, as MoE-PEFT requires it.
  static func lora(_ reader: JSONReader, over base: LoRA?) throws -> LoRA {
    var lora = LoRA(
      rank: try reader.integer("r", in: ranks, default: base?.rank),
      alpha: try reader.number("lora_alpha", default: base?.alpha, "a number") { $0.isFinite },
      dropout: try reader.number("lora_dropout", default: base?.dropout ?? 0, "a number in [0, 1)") { $0 >= 0 && $0 < 1 },
      isRankStabilized: try reader.bool("use_rslora", default: base?.isRankStabilized ?? false))
    let name = try reader.string(
      "lora_init", default: base?.initialization == .gaussian ? "gaussian" : "original", oneOf: ["original", "gaussian"])
    lora.initialization = name == "gaussian" ? .gaussian : .kaiming
    return lora
  }

  /// Ranks that may be asked for.
  static let ranks = 1...65_536

  /// A list of names, or an object of name → true/false.
  static func targets(_ reader: JSONReader) throws -> Set<LinearName> {
    let expected = "a list of names among " + LinearName.allCases.map(\.rawValue).joined(separator: ", ") + ", or an object of name: true"
    let value = try reader.required("target_modules", expected)
    let names: [JSON]
    if let list = value.arrayValue {
      names = list
    } else if let object = value.objectValue {
      names = try object.members.compactMap { member in
        guard let isOn = member.value.boolValue else { throw reader.error("target_modules.\(member.key)", member.value, "true or false") }
        return isOn ? .string(member.key) : nil
      }
    } else {
      throw reader.error("target_modules", value, expected)
    }
    return Set(
      try names.map { name in
        guard let target = name.stringValue.flatMap(LinearName.init) else { throw reader.error("target_modules", name, expected) }
        return target
      })
  }

  /// Keys that a configuration may carry with any value, because they do not change what an adapter computes.
  private static let inertKeys: Set<String> = [
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version", "auto_mapping",
    "megatron_core", "qalora_group_size", "eva_config", "merge_weights",
  ]
}

extension KeyedReader where Value == JSON {
  /// Configurations of the same name that other programs write.
  fileprivate func refuseOtherPrograms() throws {
    for key in ["fine_tune_type", "lora_parameters", "lora_layers"] {
      try refuse(
        key, unless: { _ in false }, "an adapter of PEFT or MoE-PEFT; this key is mlx-lm's, whose adapters are not read: fuse it there")
    }
  }

  /// Features of PEFT that change the mathematics and are not built.
  func refuseUnbuiltFeatures() throws {
    for key in [
      "use_dora", "lora_bias", "layer_replication", "trainable_token_indices", "ensure_weight_tying", "use_qalora",
      "alora_invocation_tokens", "arrow_config", "use_bdlora", "velora_config", "monteclora_config", "kasa_config", "megatron_config",
      "enable_lora",
    ] {
      try refuse(key)
    }
  }

  /// What PEFT has and MoE-PEFT's adapters do not.
  fileprivate func refuseWhatMoEPEFTLacks() throws {
    // Most say how A and B were drawn, which their values tell.
    let harmless: [JSON] = [true, false, "gaussian", "eva", "orthogonal"]
    try refuse(
      "init_lora_weights", unless: harmless.contains,
      "true, false, \"gaussian\", \"eva\" or \"orthogonal\"; others change the base weights, which a mixture's programs do not")
    try refuse(
      "bias", unless: { $0.isEmptyOrOff || $0.stringValue == "none" }, "\"none\"; trained biases beside a mixture are not built yet")
    for key in ["rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "layers_to_transform", "exclude_modules"] {
      try refuse(key, "no such key, or an empty one; beside a mixture it is not built yet")
    }
  }

  /// Unknown keys, after an error for the first that says something.
  fileprivate func quietUnknownKeys(inert: Set<String>) throws -> [String] {
    let keys = unknownKeys(except: inert)
    for key in keys {
      guard let value = self[key], !value.isEmptyOrOff else { continue }
      throw error(key, value, "no key of this name, or an empty value: what it means is not known here")
    }
    return keys
  }
}
