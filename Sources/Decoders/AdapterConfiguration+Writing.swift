import Checkpoints

extension AdapterConfiguration {
  /// The keys of `adapter_config.json`, by MoE-PEFT's or PEFT's names, with every key of the routing that is built.
  ///
  /// (MoE-PEFT's own export drops `router_loss`, `router_aux_loss_coef` and `router_init_range`, so that what was
  /// trained with other values comes back with the defaults.)
  public func json(baseModel: String?) -> JSON {
    var object = JSON.Object()
    object["bias"] = "none"
    object["peft_type"] = mixture == nil ? "LORA" : "MIXLORA"
    object["task_type"] = "CAUSAL_LM"
    object["base_model_name_or_path"] = baseModel.map { .string($0) } ?? .null
    for (key, value) in lora.members { object[key] = value }
    object["target_modules"] = .array(LinearName.allCases.filter(targets.contains).map { .string($0.rawValue) })
    guard let mixture else {
      if lora.initialization == .gaussian { object["init_lora_weights"] = "gaussian" }
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
    return .object(object)
  }
}

extension AdapterConfiguration.LoRA {
  fileprivate var members: [(String, JSON)] {
    [
      ("r", JSON(rank)), ("lora_alpha", alpha == alpha.rounded() && abs(alpha) < 1e15 ? JSON(Int(alpha)) : JSON(alpha)),
      ("lora_dropout", JSON(dropout)), ("use_rslora", JSON(isRankStabilized)),
    ]
  }
}

extension JSON.Object {
  fileprivate init(_ members: [(String, JSON)]) {
    self.init()
    for (key, value) in members { self[key] = value }
  }
}
