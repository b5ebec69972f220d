import Checkpoints
import MixLoRA

/// What `adapter_config.json` of a MixLoRA adapter says, by MoE-PEFT's keys.
public struct AdapterConfiguration: Equatable, Sendable {
  /// Rank, scale and dropout of low-rank branches.
  public struct LoRA: Equatable, Sendable {
    /// Rank r.
    public var rank: Int
    /// alpha.
    public var alpha: Double
    /// Probability of dropout while training.
    public var dropout: Double
    /// Whether s is alpha/√r instead of alpha/r (rsLoRA).
    public var isRankStabilised: Bool

    /// The settings of a branch.
    public init(rank: Int, alpha: Double, dropout: Double = 0, isRankStabilised: Bool = false) {
      self.rank = rank
      self.alpha = alpha
      self.dropout = dropout
      self.isRankStabilised = isRankStabilised
    }

    /// s = alpha/r, or alpha/√r.
    public var scale: Double { alpha / (isRankStabilised ? Double(rank).squareRoot() : Double(rank)) }
  }

  /// The branches of attention, and of the experts unless `expertLoRA` says otherwise.
  public var lora: LoRA
  /// The branches of the experts: `expert_lora`, or `lora`.
  public var expertLoRA: LoRA
  /// The linear layers that have branches: `target_modules`.
  public var targets: Set<LinearName>
  /// Number of experts E: `num_experts`.
  public var experts: Int
  /// Experts per token K: `top_k`.
  public var expertsPerToken: Int
  /// Coefficient of the balance loss; 0 if `router_loss` is false.
  public var balanceCoefficient: Double
  /// Deviation of a new router's weights: `router_init_range`.
  public var routerInitializerRange: Double
  /// Keys that mean nothing to us and whose value is null, false, 0 or empty.
  public var unknownKeys: [String] = []

  /// A configuration for a new adapter.
  public init(
    lora: LoRA, targets: Set<LinearName> = Set(LinearName.allCases), experts: Int, expertsPerToken: Int, balanceCoefficient: Double = 0.001
  ) {
    self.lora = lora
    expertLoRA = lora
    self.targets = targets
    self.experts = experts
    self.expertsPerToken = expertsPerToken
    self.balanceCoefficient = balanceCoefficient
    routerInitializerRange = 0.02
  }

  /// Reads `adapter_config.json`.
  ///
  /// - Throws: `CheckpointError` naming file, key, what was found and what was expected; also for a feature that is
  ///   not built yet and for an unknown key with a value that says something.
  public init(contentsOf file: String) throws {
    var reader = try ConfigurationReader(contentsOf: file)
    _ = try reader.string("peft_type", default: "MIXLORA", oneOf: ["MIXLORA"])
    _ = try reader.string("routing_strategy", oneOf: ["mixlora"])
    try reader.refuseUnbuiltFeatures()
    lora = try Self.lora(&reader, over: nil)
    targets = try Self.targets(&reader)
    experts = try reader.integer("num_experts", in: 1...4096)
    expertsPerToken = try reader.integer("top_k", in: 1...experts, default: min(2, experts))
    _ = try reader.string("act_fn", default: "silu", oneOf: ["silu"])
    let hasRouterLoss = try reader.bool("router_loss", default: true)
    let coefficient = try reader.number("router_aux_loss_coef", default: 0.001, "a number ≥ 0") { $0 >= 0 }
    balanceCoefficient = hasRouterLoss ? coefficient : 0
    routerInitializerRange = try reader.number("router_init_range", default: 0.02, "a number ≥ 0") { $0 >= 0 }
    if let overlay = reader.value("expert_lora") {
      guard overlay.objectValue != nil else { throw reader.error("expert_lora", overlay, "an object with r, lora_alpha …") }
      var inner = try ConfigurationReader(overlay, file: file + ", expert_lora")
      try inner.refuseUnbuiltFeatures()
      expertLoRA = try Self.lora(&inner, over: lora)
      unknownKeys += try inner.quietUnknownKeys(inert: Self.inertKeys)
    } else {
      expertLoRA = lora
    }
    unknownKeys += try reader.quietUnknownKeys(inert: Self.inertKeys)
  }

  private static func lora(_ reader: inout ConfigurationReader, over base: LoRA?) throws -> LoRA {
    LoRA(
      rank: try reader.integer("r", in: 1...65_536, default: base?.rank),
      alpha: try reader.number("lora_alpha", default: base?.alpha, "a number") { $0.isFinite },
      dropout: try reader.number("lora_dropout", default: base?.dropout ?? 0, "a number in [0, 1)") { $0 >= 0 && $0 < 1 },
      isRankStabilised: try reader.bool("use_rslora", default: base?.isRankStabilised ?? false))
  }

  /// A list of names, or an object of name → true/false.
  private static func targets(_ reader: inout ConfigurationReader) throws -> Set<LinearName> {
    let expected = "a list of names among " + LinearName.allCases.map(\.rawValue).joined(separator: ", ") + ", or an object of name: true"
    guard let value = reader.value("target_modules") else { throw reader.missing("target_modules", expected) }
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
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "init_lora_weights", "lora_init", "peft_version",
    "auto_mapping", "jitter_noise",  // jitter acts while training only
  ]
}

extension ConfigurationReader {
  /// Features of PEFT and MoE-PEFT that change the mathematics and are not built yet.
  fileprivate mutating func refuseUnbuiltFeatures() throws {
    try refuse("bias", unless: { $0.isEmptyOrOff || $0.stringValue == "none" }, "\"none\"; trained biases are not built yet")
    for key in ["use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "layers_to_transform", "lora_bias"] {
      try refuse(key)
    }
  }

  /// Unknown keys, after an error for the first that says something.
  fileprivate func quietUnknownKeys(inert: Set<String>) throws -> [String] {
    let keys = unknownKeys(inert: inert)
    for key in keys {
      guard let value = object[key], !value.isEmptyOrOff else { continue }
      throw error(key, value, "no key of this name, or an empty value: what it means is not known here")
    }
    return keys
  }
}
