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
    let line = String(repeating: "so ", count: 40)
    try AtomicFile.write(#"{"prompt":"\#(line)","completion":" 1"}"# + "\n" + #"{"text":"\#(line)"}"#, to: folder.path + "/data.jsonl")
    let json = template(
      ["data": "data.jsonl", "num_epochs": 1, "batch_size": 2, "micro_batch_size": 1], top: ["cutoff_len": -1, "save_step": 8])
    let result = try train(folder, json)
    let words = "have more tokens than the 64 positions of the model and were cut to the first 64"
    #expect(result.code == 0 && result.error.contains(words) && !result.error.contains("cutoff_len"), "\(result.error)")
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
    ("momentum", 1, ["lora[0].momentum", "[0, 1)"]),
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

  /// What an option gave is called by the option, also where the other half of the contradiction is the file's: that half was right.
  @Test func anOptionOverTheFileIsCalledByItsName() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let (batch, micro) = (16, 8)
    try AtomicFile.write(
      template(["data": "data.jsonl", "batch_size": JSON(batch), "micro_batch_size": JSON(micro)]).serialized(),
      to: folder.path + "/moe_peft.json")
    for (option, words) in [
      (["--top-k", "9"], "--top-k is 9, expected at most lora[0].num_experts, 8"),
      (["--top-k", "9", "--experts", "7"], "--top-k is 9, expected at most --experts, 7"),
      (["--experts", "1"], "lora[0].top_k is 2, expected at most --experts, 1"),
      (["--warmup", "0.1"], "--warmup with lora[0].scheduler_type constant"),
      (["--task", "obqa"], "--task goes with a folder"),
      (["--length", "1"], "--length is 1, expected at least 2"),
      (["--batch", "3"], "lora[0].batch_size/micro_batch_size is \(batch / micro), expected a divisor of --batch, 3"),
      (["--accumulate", "3"], "--accumulate is 3, expected a divisor of lora[0].batch_size, \(batch)"),
      (["--memory", "1000"], "--memory is 1000 bytes"),
    ] as [([String], String)] {
      let result = try Program.run(["train", "--model", "model", "--config", "moe_peft.json", "--out", "run"] + option, in: folder)
      #expect(result.code == 2 && result.error.contains("error: " + words), "\(result.code) \(result.error)")
    }
  }

  /// What stands in the file is the file's, found before the data is read or behind.
  @Test func aContradictionInTheFileIsNamedByFileAndKey() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    for (key, value, words) in [
      ("top_k", 9, "lora[0].top_k is 9, expected at most lora[0].num_experts, 8"),
      ("task_name", "obqa", "lora[0].task_name goes with a folder"),
      ("r", 1_000_000, "lora[0].r, lora[0].num_experts: found sizes that need"),
    ] as [(String, JSON, String)] {
      let result = try train(folder, template(["data": "data.jsonl", key: value]))
      #expect(result.code == 3 && result.error.contains("error: moe_peft.json: " + words), "\(result.code) \(result.error)")
    }
  }

  /// A number that is said of a key is the one that stands there, whatever the setting is that it became.
  @Test func aValueUnderAKeyIsTheFiles() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let first: [String: JSON] = [
      "data": "data.jsonl", "num_epochs": 1, "batch_size": 4, "micro_batch_size": 2, "r": 2, "lora_init": "original", "act_fn": "silu",
    ]
    let started = try train(folder, template(first, top: ["cutoff_len": 64]))
    #expect(started.code == 0, "\(started.error)")
    for (changes, length, words) in [
      (["micro_batch_size": 1], 64, "lora[0].batch_size/micro_batch_size is 4, but the run was started with 2."),
      (["lora_init": "gaussian"], 64, "lora[0].lora_init is \"gaussian\", but the run was started with \"original\"."),
      ([:], -1, "cutoff_len is -1, but the run was started with 64."),
      (["routing_strategy": nil], 64, "lora[0].routing_strategy is none, but the run was started with \"mixlora\"."),
      (["peft_type": "LORA"], 64, "lora[0].peft_type is \"LORA\", but the run was started with \"MIXLORA\"."),
      (["router_loss": false], 64, "lora[0].router_loss is false, but the run was started with true."),
      (["act_fn": nil], 64, "lora[0].act_fn is not given, but the run was started with \"silu\"."),
      (["name": "other"], 64, "lora[0].name is \"other\", but the run was started with \"mixlora_0\"; "),
      (["lora_dropout": 0.1], 64, "lora[0].lora_dropout is 0.1, but the run was started with 0.05."),
    ] as [([String: JSON], JSON, String)] {
      let result = try train(folder, template(first.merging(changes) { $1 }, top: ["cutoff_len": length]), "--resume")
      #expect(result.code == 3 && result.error.contains("error: moe_peft.json: " + words), "\(result.code) \(result.error)")
    }
    let longer = try train(folder, template(first.merging(["num_epochs": 2]) { $1 }, top: ["cutoff_len": 64]), "--resume")
    #expect(longer.code == 3 && longer.error.contains("lora[0].num_epochs is 2, but the run was started with 1."), "\(longer.error)")
    #expect(longer.error.contains("\nthe number of steps is 6, but the run was started with 3."), "\(longer.error)")
    let other = try train(folder, template(first, top: ["cutoff_len": 64]), "--resume", "--rank", "3")
    #expect(other.code == 2 && other.error.contains("error: --rank is 3, but the run was started with 2."), "\(other.error)")
    let without = try Program.run(
      ["train", "--model", "model", "--data", "data.jsonl", "--out", "run", "--threads", "1", "--resume"], in: folder)
    #expect(without.code == 2 && without.error.contains("name of --config is not given, but"), "\(without.error)")
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
