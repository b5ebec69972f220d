import Samples
import Tensors
import Testing
import Training

@Suite struct TrainingRecipeTests {
  @Test func recipesAreEqualWhereAllSettingsAre() {
    var recipe = TrainingRecipe.mixlora(rank: 16, experts: 8)
    #expect(recipe == TrainingRecipe() && recipe.json == TrainingRecipe().json)
    recipe.encoding.lossOn = .all
    #expect(recipe != TrainingRecipe() && recipe.json["loss-on"] == "all")
    #expect(TrainingRecipe.lora(rank: 4).alpha == 8 && TrainingRecipe.lora(rank: 4).adapterConfiguration?.mixture == nil)
    #expect(TrainingRecipe.full.adapterConfiguration == nil)
    recipe.activation = .geluTanh
    #expect(recipe.json["act_fn"] == "gelu_pytorch_tanh" && recipe.adapterConfiguration?.mixture?.activation == .geluTanh)
  }

  @Test func everySettingThatACheckpointKeepsHasItsName() {
    #expect(
      TrainingRecipe().json.objectValue?.keys == [
        "model", "data", "task", "epochs", "steps", "method", "adapter", "rank", "alpha", "rslora", "dropout", "init", "experts", "top-k",
        "targets", "router-loss", "router-coefficient", "evaluation", "recompute", "batch", "accumulate", "length", "optimizer", "momentum",
        "lr", "schedule", "warmup", "clip", "weight-decay", "lora-plus", "template", "loss-on", "no-end-token", "validation",
        "evaluate-every", "seed", "threads",
      ])
  }

  /// A setting, a value that cannot be, and the name in the error.
  static let refused: [(change: @Sendable (inout TrainingRecipe) -> Void, name: String)] = [
    ({ $0.rank = 0 }, "rank"), ({ $0.topK = 9 }, "top-k"), ({ $0.dropout = 1 }, "dropout"), ({ $0.batch = 0 }, "batch"),
    ({ $0.accumulate = 3 }, "accumulate"), ({ $0.steps = 0 }, "steps"), ({ $0.alpha = .nan }, "alpha"), ({ $0.learningRate = -1 }, "lr"),
    ({ $0.warmup = 0.1 }, "warmup"), ({ $0.loraPlus = 0.5 }, "lora-plus"), ({ $0.encoding.length = 1 }, "length"),
    ({ $0.task = "none" }, "task"), ({ $0.keep = 0 }, "keep"), ({ $0.clip = .infinity }, "clip"),
  ]

  @Test(arguments: refused.indices) func whatCannotBeIsRefusedByName(_ index: Int) throws {
    var recipe = TrainingRecipe()
    try recipe.check()
    Self.refused[index].change(&recipe)
    let error = try #require(throws: SettingsError.self) { try recipe.check() }
    #expect(error.text.text { "--" + $0.name }.hasPrefix("--" + Self.refused[index].name + " "), "\(error)")
  }
}
