import ArgumentParser
import Checkpoints
import Foundation
import Testing
import Training

@testable import MixLoRACommand

/// Options and MoE-PEFT's JSON are two ways to make one value.
@Suite struct RecipeTests {
  private func recipe(_ arguments: String...) throws -> TrainingRecipe {
    try TrainCommand.parse(["--model", "m", "--out", "o"] + arguments).recipes()[0]
  }

  private func recipe(of json: JSON, _ arguments: String...) throws -> TrainingRecipe {
    let scratch = try Scratch()
    let file = scratch.url.path + "/moe_peft.json"
    try AtomicFile.write(json.serialized(), to: file)
    return try TrainCommand.parse(["--model", "m", "--out", "o", "--config", file] + arguments).recipes()[0]
  }

  @Test func withoutOptionsARecipeHasTheLibrarysDefaultsAndSoHasTheHelp() throws {
    var expected = TrainingRecipe()
    (expected.model, expected.data) = ("m", "d")
    #expect(try recipe("--data", "d") == expected)
    let command = try TrainCommand.parse(["--model", "m", "--out", "o", "--data", "d"])
    #expect(command.branches.rank.value == expected.rank && command.lr.value == expected.learningRate)
    #expect(command.batch.value == expected.batch && command.targets.value == expected.json["targets"]?.stringValue)
    #expect(command.alpha.value == expected.alpha && command.routerCoefficient.value == expected.routerCoefficient)
    #expect(command.epochs.value == expected.epochs && command.weightDecay.value == expected.weightDecay)
    #expect(command.saveEvery.value == expected.saveEvery && command.keep.value == expected.keep && command.seed.value == expected.seed)
    #expect(command.sampling.length.value == expected.encoding.length && command.branches.dropout.value == expected.dropout)
  }

  @Test func everyKeyOfAConfigurationIsAnOption() throws {
    let adapter: JSON = [
      "data": "d", "task_name": "boolq;obqa", "prompt": "alpaca", "optim": "sgd", "momentum": 0.5, "weight_decay": 0, "lr": 0.001,
      "scheduler_type": "cosine", "warmup_ratio": 0.25, "loraplus_lr_ratio": 4, "r": 2, "lora_alpha": 6, "lora_dropout": 0.5,
      "use_rslora": true, "lora_init": "gaussian", "target_modules": ["up_proj", "q_proj"], "peft_type": "MIXLORA", "num_epochs": 1,
      "batch_size": 8, "micro_batch_size": 2, "num_experts": 4, "top_k": 3, "router_aux_loss_coef": 0.5,
    ]
    let options = try recipe(
      "--data", "d", "--task", "boolq;obqa", "--template", "alpaca", "--optimizer", "sgd", "--momentum", "0.5", "--weight-decay", "0",
      "--lr", "0.001", "--schedule", "cosine", "--warmup", "0.25", "--lora-plus", "4", "--rank", "2", "--alpha", "6", "--dropout", "0.5",
      "--rslora", "--init", "gaussian", "--targets", "q_proj,up_proj", "--method", "mixlora", "--epochs", "1", "--batch", "8",
      "--accumulate", "4", "--experts", "4", "--top-k", "3", "--router-coefficient", "0.5", "--length", "64", "--save-every", "2")
    #expect(try recipe(of: ["cutoff_len": 64, "save_step": 8, "lora": [adapter]]) == options)
    var changed = options
    (changed.rank, changed.batch, changed.schedule, changed.data) = (5, 12, .linear, "e")
    #expect(
      try recipe(
        of: ["cutoff_len": 64, "save_step": 8, "lora": [adapter]], "--rank", "5", "--batch", "12", "--schedule", "linear", "--data", "e")
        == changed, "an option that is given wins")
  }
}
