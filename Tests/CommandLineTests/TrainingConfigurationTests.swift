import Checkpoints
import Foundation
import Testing

/// `mixlora train --config`: MoE-PEFT's training JSON as options.
@Suite struct TrainingConfigurationTests {
  /// What MoE-PEFT's launcher writes for MixLoRA, with other values at the end of the adapter.
  private func template(_ changes: [String: JSON] = [:], top: [String: JSON] = [:]) -> JSON {
    let on = Dictionary(uniqueKeysWithValues: ["q", "k", "v", "o", "gate", "down", "up"].map { ($0 + "_proj", JSON.bool(true)) })
    var adapter = JSON.Object()
    let members: KeyValuePairs<String, JSON> = [
      "name": "mixlora_0", "task_name": "", "optim": "adamw", "scheduler_type": "constant", "warmup_steps": 0,
      "lr": 2e-4,
      "batch_size": 16, "micro_batch_size": 8, "evaluate_batch_size": 16, "num_epochs": 2, "r": 16, "lora_alpha": 32,
      "lora_dropout": 0.05, "target_modules": object(on), "routing_strategy": "mixlora", "num_experts": 8,
      "top_k": 2,
      "group_by_length": false,
    ]
    for (key, value) in members { adapter[key] = value }
    for (key, value) in changes { adapter[key] = value }
    var file: [String: JSON] = [
      "cutoff_len": 512, "save_step": 1000, "train_lora_candidate_num": 2, "train_lora_simultaneously_num": 2, "train_strategy": "optim",
      "lora": [.object(adapter)],
    ]
    file.merge(top) { $1 }
    return object(file)
  }

  private func object(_ members: [String: JSON]) -> JSON {
    var object = JSON.Object()
    for (key, value) in members { object[key] = value }
    return .object(object)
  }

  /// Runs `train` in a folder with the file and returns what it says.
  private func train(_ folder: URL, _ json: JSON, _ extra: String...) throws -> Program.Result {
    try AtomicFile.write(json.serialized(), to: folder.path + "/moe_peft.json")
    return try Program.run(
      ["train", "--model", "model", "--config", "moe_peft.json", "--out", "run", "--threads", "1"] + extra, in: folder)
  }

  @Test func theAuthorsTemplateRunsAndOptionsWin() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let json = template(["data": "data.jsonl", "task_name": "casual"])
    let result = try train(folder, json, "--rank", "2", "--batch", "4", "--json")
    #expect(result.code == 0, "\(result.error)")
    let state = try JSON(contentsOf: folder.path + "/run/checkpoint-6/state.json")
    let settings = try #require(state["settings"])
    let expected: [String: JSON] = [
      "rank": 2, "batch": 4, "accumulate": 2, "experts": 8, "top-k": 2, "length": 512, "epochs": 2, "method": "mixlora",
      "data": "data.jsonl",
      "optimizer": "adamw", "schedule": "constant",
    ]
    for (key, value) in expected { #expect(settings[key] == value, "\(key) is \(settings[key]?.serialized() ?? "nothing")") }
    #expect(settings["alpha"]?.doubleValue == 32 && settings["lr"]?.doubleValue == 2e-4 && settings["dropout"]?.doubleValue == 0.05)
    let written = try JSON(contentsOf: folder.path + "/run/adapter_config.json")
    #expect(written["r"] == 2 && written["lora_alpha"] == 32 && written["num_experts"] == 8)
  }

  /// MoE-PEFT's cutoff_len −1 is the model's own length.
  @Test func aCutoffOfMinusOneIsThePositionsOfTheModel() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let words = String(repeating: "so ", count: 40)
    try AtomicFile.write(#"{"prompt":"\#(words)","completion":" 1"}"# + "\n" + #"{"text":"\#(words)"}"#, to: folder.path + "/data.jsonl")
    let json = template(
      ["data": "data.jsonl", "num_epochs": 1, "batch_size": 2, "micro_batch_size": 1], top: ["cutoff_len": -1, "save_step": 8])
    let result = try train(folder, json)
    #expect(
      result.code == 0 && result.error.contains("note: moe_peft.json: ") && result.error.contains("cutoff_len 64 tokens"), "\(result.error)"
    )
    #expect(try JSON(contentsOf: folder.path + "/run/checkpoint-1/state.json")["settings"]?["length"] == 0)
  }

  @Test func everyKeyWithAMeaningArrives() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let json = template(
      [
        "data": "data.jsonl", "optim": "sgd", "momentum": 0.5, "weight_decay": 0, "scheduler_type": "cosine",
        "warmup_ratio": 0.25, "loraplus_lr_ratio": 4, "r": 2, "use_rslora": true, "lora_init": "gaussian",
        "target_modules": ["up_proj", "q_proj"], "peft_type": "LORA", "prompt": "alpaca", "num_epochs": 1, "batch_size": 8,
        "micro_batch_size": 2, "router_loss": false,
      ], top: ["cutoff_len": 64, "save_step": 8])
    let result = try train(folder, json)
    #expect(result.code == 0, "\(result.error)")
    let settings = try #require(try JSON(contentsOf: folder.path + "/run/checkpoint-2/state.json")["settings"])
    let expected: [String: JSON] = [
      "optimizer": "sgd", "schedule": "cosine", "rslora": true, "init": "gaussian", "targets": "q_proj,up_proj", "method": "lora",
      "template": "alpaca", "epochs": 1, "batch": 8, "accumulate": 4, "length": 64, "rank": 2,
    ]
    for (key, value) in expected { #expect(settings[key] == value, "\(key) is \(settings[key]?.serialized() ?? "nothing")") }
    for (key, value) in [("momentum", 0.5), ("weight-decay", 0), ("warmup", 0.25), ("lora-plus", 4), ("router-coefficient", 0)] {
      #expect(settings[key]?.doubleValue == value, "\(key)")
    }
    #expect(try JSON(contentsOf: folder.path + "/run/adapter_config.json")["peft_type"] == "LORA")
  }

  /// A change of the template, and what the error must name.
  static let refused: [(key: String, value: JSON, named: [String])] = [
    ("learning_rate", 1, ["lora[0].learning_rate", "no such key"]),
    ("r", "sixteen", ["lora[0].r", "sixteen", "whole number"]),
    ("r", 0, ["lora[0].r", "0"]),
    ("lr", "fast", ["lora[0].lr", "fast"]),
    ("lora_dropout", 1, ["lora[0].lora_dropout", "[0, 1)"]),
    ("use_dora", true, ["lora[0].use_dora", "true"]),
    ("use_dora", 3, ["lora[0].use_dora", "3"]),
    ("group_by_length", true, ["lora[0].group_by_length"]),
    ("routing_strategy", "mixlora-dynamic", ["lora[0].routing_strategy", "mixlora-dynamic"]),
    ("peft_type", "MOLA", ["lora[0].peft_type", "MOLA"]),
    ("top_p", 1, ["lora[0].top_p"]),
    ("expert_lora", ["a": 1], ["lora[0].expert_lora"]),
    ("act_fn", "gelu", ["lora[0].act_fn", "gelu"]),
    ("jitter_noise", 1, ["lora[0].jitter_noise"]),
    ("router_init_range", 1, ["lora[0].router_init_range"]),
    ("scheduler_type", "reduce_lr_on_plateau", ["lora[0].scheduler_type", "reduce_lr_on_plateau"]),
    ("task_name", "arc-e;hellaswag", ["lora[0].task_name", "hellaswag"]),
    ("data", "a.json;b.json", ["lora[0].data", "a.json;b.json"]),
    ("prompt", "mine.json", ["lora[0].prompt", "mine.json"]),
    ("micro_batch_size", 5, ["lora[0].micro_batch_size", "16"]),
    ("target_modules", ["fc1"], ["lora[0].target_modules", "fc1"]),
    ("target_modules", ["W_pack"], ["lora[0].target_modules", "W_pack"]),
    ("target_modules", ["q_proj": 1], ["lora[0].target_modules", "q_proj"]),
    ("target_modules", ["q_proj": false], ["lora[0].target_modules", "no layer"]),
    ("evaluate_steps", 10, ["lora[0].evaluate_steps", "10"]),
    ("top_k", 9, ["moe_peft.json: lora[0].top_k is 9, expected at most lora[0].num_experts, 8"]),
    ("r", 2_000_000, ["lora[0].r is 2000000, expected 1 to 1000000"]),
    ("warmup_ratio", 0.5, ["lora[0].warmup_ratio with lora[0].scheduler_type constant"]),
    ("batch_size", 2_000_000_000, ["lora[0].batch_size", "1 to 1000000000"]),
  ]

  /// What an option gave is called by the option, also where the other half of the contradiction is the file's.
  @Test func anOptionOverTheFileIsCalledByItsName() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let json = template(["data": "data.jsonl"])
    for (option, code, words) in [
      (["--top-k", "9"], 3, "--top-k is 9, expected at most lora[0].num_experts, 8"),
      (["--top-k", "9", "--experts", "7"], 2, "error: --top-k is 9, expected at most --experts, 7"),
      (["--task", "obqa"], 2, "--task goes with a folder"),
    ] as [([String], Int32, String)] {
      try AtomicFile.write(json.serialized(), to: folder.path + "/moe_peft.json")
      let result = try Program.run(["train", "--model", "model", "--config", "moe_peft.json", "--out", "run"] + option, in: folder)
      #expect(result.code == code && result.error.contains(words), "\(result.code) \(result.error)")
    }
  }

  @Test(arguments: refused.indices) func whatIsNotUnderstoodIsNamed(_ index: Int) throws {
    let scratch = try Scratch()
    let (key, value, named) = Self.refused[index]
    let result = try train(scratch.url, template([key: value]))
    #expect(result.code == 3 && result.error.contains("moe_peft.json"), "\(result.error)")
    for part in named { #expect(result.error.contains(part), "\(result.error)") }
  }

  @Test func theTopOfTheFileIsCheckedToo() throws {
    let scratch = try Scratch()
    for (top, named) in [
      (["cutoff_len": -2], "cutoff_len"), (["save_step": "x"], "save_step"), (["train_strategy": "best"], "train_strategy"),
      (["lora": []], "no adapter"), (["lora": [["name": "a"], ["name": "a"]]], "lora[1].name"), (["steps": 3], "steps"),
    ] as [([String: JSON], String)] {
      let result = try train(scratch.url, template(top: top))
      #expect(result.code == 3 && result.error.contains(named), "\(result.error)")
    }
    let list = try train(scratch.url, [])
    #expect(list.code == 3 && list.error.contains("an object"), "\(list.error)")
    let missing = try Program.run(["train", "--config", "nowhere.json", "--model", "m", "--out", "o"], in: scratch.url)
    #expect(missing.code == 3 && missing.error.contains("nowhere.json"), "\(missing.error)")
    let help = try Program.run(["train", "--config", "nowhere.json", "--help"], in: scratch.url)
    #expect(help.code == 0, "help needs no file")
  }
}
