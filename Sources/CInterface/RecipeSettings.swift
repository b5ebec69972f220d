import MixLoRA

extension TrainingRecipe {
  /// The settings of `mixlora train` by their names, `_` for `-`; what is absent has its default.
  init(_ settings: Settings) throws {
    self.init()
    model = try settings.reader.string("model")
    data = try settings.reader.string("data")
    try settings.take(&task, "task")
    try settings.take(&validation, "validation")
    try settings.take(&evaluateEvery, "evaluate_every")
    try takeAdapter(settings)
    try takeSteps(settings)
    try takeSamples(settings)
  }

  private mutating func takeAdapter(_ settings: Settings) throws {
    try settings.take(&method, "method")
    try settings.take(&adapter, "adapter")
    try settings.take(&rank, "rank")
    try settings.take(&alpha, "alpha")
    try settings.take(&isRankStabilized, "rslora")
    try settings.take(&dropout, "dropout")
    try settings.take(&initialization, "init")
    try settings.take(&experts, "experts")
    try settings.take(&topK, "top_k")
    try settings.take(&activation, "act_fn")
    if settings.reader.value("targets") != nil {
      targets = try settings.strings("targets").map { name in
        guard let target = LinearName(rawValue: name) else {
          throw settings.reader.error("targets", "'\(name)'", "names among \(LinearName.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return target
      }
    }
    try settings.take(&routerLoss, "router_loss")
    try settings.take(&routerCoefficient, "router_coefficient")
    try settings.take(&evaluation, "evaluation")
    try settings.take(&recomputes, "recompute")
    try settings.take(&memory, "memory")
  }

  private mutating func takeSteps(_ settings: Settings) throws {
    try settings.take(&steps, "steps")
    try settings.take(&epochs, "epochs")
    try settings.take(&batch, "batch")
    try settings.take(&accumulate, "accumulate")
    try settings.take(&optimizer, "optimizer")
    try settings.take(&momentum, "momentum")
    try settings.take(&learningRate, "lr")
    try settings.take(&schedule, "schedule")
    try settings.take(&warmup, "warmup")
    try settings.take(&clip, "clip")
    try settings.take(&weightDecay, "weight_decay")
    try settings.take(&loraPlus, "lora_plus")
    try settings.take(&seed, "seed")
  }

  private mutating func takeSamples(_ settings: Settings) throws {
    var skipsEndToken = !encoding.addsEndToken
    try settings.take(&encoding.length, "length")
    try settings.take(&encoding.tooLong, "too_long")
    try settings.take(&encoding.template, "template")
    try settings.take(&encoding.lossOn, "loss_on")
    try settings.take(&encoding.system, "system")
    try settings.take(&skipsEndToken, "no_end_token")
    encoding.addsEndToken = !skipsEndToken
  }
}
