import Checkpoints

extension AdapterConfiguration {
  /// The keys of `adapter_config.json`, by MoE-PEFT's or PEFT's names, with every key of the routing that is built.
  ///
  /// (MoE-PEFT's own export drops `router_loss`, `router_aux_loss_coef` and `router_init_range`, so that what was
  /// trained with other values comes back with the defaults.)
  public func json(baseModel: String?) -> JSON {
    var object = JSON.Object()
    object["bias"] = JSON(biases.rawValue)
    object["peft_type"] = mixture == nil ? "LORA" : "MIXLORA"
    object["task_type"] = "CAUSAL_LM"
    object["base_model_name_or_path"] = baseModel.map { .string($0) } ?? .null
    for (key, value) in lora.members { object[key] = value }
    object["target_modules"] = targets.targets.json
    guard let mixture else {
      for (key, value) in plainMembers { object[key] = value }
      return .object(object)
    }
    if lora.initialization == .gaussian { object["lora_init"] = "gaussian" }
    if mixture.lora != lora { object["expert_lora"] = .object(JSON.Object(mixture.lora.members)) }
    let routing: [(String, JSON)] =
      switch mixture.policy {
      case .topK(let k): [("top_k", JSON(k))]
      case .topP(let threshold, let temperature): [("top_p", JSON(threshold)), ("temperature", JSON(temperature))]
      }
    object["routing_strategy"] = routing.count == 1 ? "mixlora" : "mixlora-dynamic"
    object["num_experts"] = JSON(mixture.experts)
    for (key, value) in routing { object[key] = value }
    object["act_fn"] = JSON((mixture.activation ?? .silu).rawValue)
    object["router_loss"] = JSON(mixture.hasBalanceLoss)
    object["router_aux_loss_coef"] = JSON(mixture.balanceCoefficient)
    object["router_init_range"] = JSON(mixture.routerInitializerRange)
    if mixture.jitterNoise != 0 { object["jitter_noise"] = JSON(mixture.jitterNoise) }
    return .object(object)
  }
}

extension AdapterConfiguration {
  /// What only PEFT's configurations say, where it says something.
  private var plainMembers: [(String, JSON)] {
    var members: [(String, JSON)] = []
    if lora.initialization != .kaiming { members.append(("init_lora_weights", JSON(lora.initialization.rawValue))) }
    if let excluded = targets.excluded { members.append(("exclude_modules", excluded.json)) }
    if let layers = targets.layers {
      let numbers = layers.numbers.sorted().map { JSON($0) }
      members.append(("layers_to_transform", layers.isList ? .array(numbers) : numbers.first ?? .null))
      if !targets.layersPatterns.isEmpty { members.append(("layers_pattern", .array(targets.layersPatterns.map { JSON($0.text) }))) }
    }
    func object<Number>(_ numbers: ModuleNumbers<Number>, _ json: (Number) -> JSON) -> JSON {
      .object(JSON.Object(numbers.rules.map { ($0.text, json($0.number)) }))
    }
    if !ranks.rules.isEmpty { members.append(("rank_pattern", object(ranks) { JSON($0) })) }
    if !alphas.rules.isEmpty { members.append(("alpha_pattern", object(alphas) { Self.json(alpha: $0) })) }
    if !saved.isEmpty { members.append(("modules_to_save", .array(saved.map { JSON($0.name) }))) }
    return members
  }

  fileprivate static func json(alpha: Double) -> JSON {
    alpha == alpha.rounded() && abs(alpha) < 1e15 ? JSON(Int(alpha)) : JSON(alpha)
  }
}

extension ModuleSelection.Names {
  fileprivate var json: JSON {
    switch self {
    case .listed(let names): .array(names.map { JSON($0) })
    case .pattern(let pattern): JSON(pattern.text)
    case .allLinear: "all-linear"
    }
  }
}

extension AdapterConfiguration.LoRA {
  fileprivate var members: [(String, JSON)] {
    [
      ("r", JSON(rank)), ("lora_alpha", AdapterConfiguration.json(alpha: alpha)),
      ("lora_dropout", JSON(dropout)), ("use_rslora", JSON(isRankStabilized)),
    ]
  }
}

extension JSON.Object {
  init(_ members: [(String, JSON)]) {
    self.init()
    for (key, value) in members { self[key] = value }
  }
}
