import Checkpoints
import Foundation
import Testing
import Training

@testable import MixLoRACommand

/// `mixlora train --config` with several adapters, and `evaluate` and `generate` with what came of it.
@Suite struct SeveralAdaptersCommandTests {
  /// What MoE-PEFT's launcher writes after `gen --template mixlora --tasks obqa` and `gen --template lora --tasks … --append`.
  private static let golden: JSON = [
    "cutoff_len": 512, "save_step": 1000, "train_lora_candidate_num": 2, "train_lora_simultaneously_num": 2, "train_strategy": "optim",
    "lora": [
      [
        "name": "obqa_0", "task_name": "obqa", "optim": "adamw", "scheduler_type": "constant", "warmup_steps": 0, "lr": 2e-4,
        "batch_size": 16, "micro_batch_size": 8, "evaluate_batch_size": 16, "num_epochs": 2, "r": 16, "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": [
          "q_proj": true, "k_proj": true, "v_proj": true, "o_proj": true, "gate_proj": true, "down_proj": true, "up_proj": true,
        ], "routing_strategy": "mixlora", "num_experts": 8, "top_k": 2, "group_by_length": false,
      ],
      [
        "name": "causal_1", "task_name": "causal", "optim": "adamw", "scheduler_type": "constant", "warmup_steps": 0, "lr": 1e-4,
        "batch_size": 12, "micro_batch_size": 4, "evaluate_batch_size": 16, "num_epochs": 1, "r": 80, "lora_alpha": 160,
        "lora_dropout": 0.1,
        "target_modules": [
          "q_proj": true, "k_proj": true, "v_proj": true, "o_proj": true, "gate_proj": true, "down_proj": true, "up_proj": true,
        ], "data": "mine.jsonl", "prompt": "alpaca", "group_by_length": false,
      ],
    ],
  ]

  @Test func theLaunchersFileOfTwoIsTwoRecipes() throws {
    let scratch = try Scratch()
    let file = scratch.url.path + "/moe_peft.json"
    try AtomicFile.write(Self.golden.serialized(), to: file)
    func recipes(_ arguments: String...) throws -> [TrainingRecipe] {
      try TrainCommand.parse(["--model", "m", "--out", "o", "--config", file] + arguments).recipes()
    }
    var (first, second) = (TrainingRecipe.mixlora(rank: 16, experts: 8), TrainingRecipe.lora(rank: 80))
    (first.name, first.model, first.task, first.batch, first.accumulate, first.saveEvery) = ("obqa_0", "m", "obqa", 16, 2, 500)
    (second.name, second.model, second.data, second.batch, second.accumulate) = ("causal_1", "m", "mine.jsonl", 12, 3)
    (second.epochs, second.dropout, second.learningRate, second.saveEvery) = (1, 0.1, 1e-4, 333)
    second.encoding.template = .alpaca
    #expect(try recipes() == [first, second])
    for i in [0, 1] {
      var given = [first, second][i]
      (given.data, given.batch, given.accumulate, given.seed) = ("d", 6, 1, 7)
      #expect(try recipes("--data", "d", "--batch", "6", "--accumulate", "1", "--seed", "7")[i] == given, "an option is for all")
    }
  }

  /// A mixture of four steps and a LoRA of two over the demo's model. The mixture's are SGD's: AdamW makes a step of full size of a
  /// gradient that is nothing but rounding, and a router then decides otherwise together than alone.
  private func configuration(_ changes: (inout [JSON.Object]) -> Void = { _ in }) throws -> JSON {
    var adapters = try [
      #require(
        ([
          "name": "swaps", "data": "data/train.jsonl", "optim": "sgd", "momentum": 0.9, "lr": 0.5, "batch_size": 40, "num_epochs": 1,
          "r": 2, "lora_alpha": 4,
          "lora_dropout": 0.05, "target_modules": ["q_proj", "up_proj", "down_proj"], "routing_strategy": "mixlora", "num_experts": 3,
        ] as JSON).objectValue),
      #require(
        ([
          "name": "plain", "data": "few.jsonl", "lr": 0.005, "batch_size": 4, "micro_batch_size": 2, "num_epochs": 2, "r": 3,
          "lora_alpha": 3,
          "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"],
        ] as JSON).objectValue),
    ]
    changes(&adapters)
    return ["cutoff_len": 64, "save_step": 2, "lora": .array(adapters.map { .object($0) })]
  }

  /// The demo's model and questions in a folder, and four lines more.
  private func place() throws -> Scratch {
    let scratch = try Scratch()
    try DemoFiles.write(to: scratch.url.path)
    let lines = try String(contentsOfFile: scratch.url.path + "/data/train.jsonl", encoding: .utf8).split(separator: "\n")
    try AtomicFile.write(lines.prefix(160).joined(separator: "\n"), to: scratch.url.path + "/data/train.jsonl")
    try AtomicFile.write(lines.suffix(4).joined(separator: "\n"), to: scratch.url.path + "/few.jsonl")
    return scratch
  }

  private func train(_ scratch: Scratch, _ json: JSON, out: String = "run", _ extra: String...) throws -> Program.Result {
    try AtomicFile.write(json.serialized(), to: scratch.url.path + "/\(out).json")
    return try Program.run(
      ["train", "--model", "base", "--config", out + ".json", "--out", out, "--threads", "1"] + extra, in: scratch.url)
  }

  private func lines(_ result: Program.Result) throws -> [JSON] {
    try #require(result.code == 0, "\(result.error)")
    return try result.output.split(separator: "\n").map { try JSON(parsing: String($0), file: "output") }
  }

  @Test func twoAdaptersAreTrainedTogetherAndEachAsAlone() throws {
    let scratch = try place()
    let json = try configuration()
    let dry = try train(scratch, json, "--dry-run")
    #expect(
      dry.code == 0 && dry.output.contains("adapter              swaps") && dry.output.contains("are the base and what else is held once"),
      "\(dry.output)")
    #expect(!FileManager.default.fileExists(atPath: scratch.url.path + "/run"))
    let memory = try #require(try lines(train(scratch, json, "--dry-run", "--json")).last)
    #expect(memory["adapters"] == 2 && (0.3...0.5).contains(memory["saved"]?.doubleValue ?? 0), "\(memory.serialized())")

    let reports = try lines(train(scratch, json, "--json"))
    #expect(reports.map { $0["adapter"]?.stringValue } == ["run/swaps", "run/plain"])
    #expect(reports.map { $0["steps"]?.intValue } == [4, 2])
    let folder = scratch.url.path + "/run"
    #expect(
      Set(Folder.names(in: folder)) == ["swaps", "plain", "checkpoint-2", "checkpoint-4"] && Folder.names(in: folder + "/plain").count == 5)
    for (i, name) in ["swaps", "plain"].enumerated() {
      let metrics = try String(contentsOfFile: folder + "/\(name)/metrics.jsonl", encoding: .utf8).split(separator: "\n")
      try TrainingCase.expectPace(reports[i], of: metrics.map { try JSON(parsing: String($0), file: "metrics") })
      let alone = try lines(train(scratch, configuration { $0 = [$0[i]] }, out: name, "--json"))[0]
      for key in ["loss_first", "loss_last"] {
        let (found, expected) = (reports[i][key]?.doubleValue ?? .nan, alone[key]?.doubleValue ?? .nan)
        #expect(abs(found - expected) <= 1e-5 * expected, "\(name) \(key): \(found), alone \(expected)")
      }
      #expect(reports[i]["tokens"] == alone["tokens"] && reports[i]["trainable_parameters"] == alone["trainable_parameters"])
    }
    #expect(try train(scratch, json, "--resume").code == 0, "a finished run is resumed without a step")
    let other = try train(scratch, configuration { $0[1]["name"] = "other" }, "--resume")
    #expect(
      other.code == 3 && other.error.contains("error: run.json: lora: swaps, other, but the run was started with swaps, plain."),
      "\(other.code) \(other.error)")
    let less = try train(scratch, configuration { $0[1]["r"] = 2 }, "--resume")
    #expect(
      less.code == 3 && less.error.contains("error: run.json: plain: lora[1].r is 2, but the run was started with 3"), "\(less.error)")

    // Each begins with its own values, whose settings then hold.
    let further = try train(scratch, configuration { $0[1]["r"] = 2 }, out: "further", "--adapter", "run", "--json")
    #expect(try lines(further).map { $0["trainable_parameters"] } == reports.map { $0["trainable_parameters"] })
    for (i, line) in try lines(further).enumerated() {
      #expect(try #require(line["loss_first"]?.doubleValue) < reports[i]["loss_first"]?.doubleValue ?? 0, "\(further.output)")
    }
    #expect(
      further.error.split(separator: "\n").filter { $0.contains("holds") }
        == ["note: further.json: lora[1].r is 2, but the adapter run/plain has 3, which holds."], "\(further.error)")
    let missing = try train(scratch, json, out: "none", "--adapter", "run/swaps")
    #expect(missing.code == 3 && missing.error.contains("run/swaps/swaps"), "\(missing.code) \(missing.error)")

    // Both in one batch are what each is by itself.
    let adapters = ["--adapter", "run/swaps", "--adapter", "run/plain"]
    for command in [
      ["evaluate", "--data", "few.jsonl"],
      ["generate", "--prompt", "swap: t a y j ->", "--prompt", "rotate: k d a ->", "--max-tokens", "8"],
    ] {
      func answers(_ adapters: [String]) throws -> [JSON] {
        try lines(Program.run(command + ["--model", "base", "--json", "--threads", "1"] + adapters, in: scratch.url))
      }
      let (together, each) = try (answers(adapters), answers(Array(adapters[..<2])) + answers(Array(adapters[2...])))
      #expect(together.count == each.count && together.count == 2 * (command[0] == "evaluate" ? 1 : 2))
      for (found, expected) in zip(together, each) {
        if command[0] == "generate" {
          #expect(try #require(found["text"]?.stringValue) == expected["text"]?.stringValue && found["prompt"] == expected["prompt"])
          continue
        }
        let (loss, own) = (try #require(found["loss"]?.doubleValue), try #require(expected["loss"]?.doubleValue))
        #expect(try #require(found["tokens"]?.intValue) > 0 && found["tokens"] == expected["tokens"])
        #expect(abs(loss - own) <= 1e-5 * own)
      }
      let key = command[0] == "generate" ? "text" : "loss"
      #expect(each[0][key] != each[each.count / 2][key], "the adapters differ")
      #expect(Set(together.map { $0["adapter"]?.stringValue }) == ["run/swaps", "run/plain"])
    }
  }

  @Test func whatCannotBeTrainedTogetherIsNamed() throws {
    let scratch = try place()
    for (change, code, named) in [
      ({ $0[1]["name"] = "swaps" }, 3, ["lora[1].name", "swaps", "lora[0]"]),
      ({ $0[0]["name"] = nil }, 3, ["lora[0].name"]),
      ({ $0[1]["name"] = "../plain" }, 3, ["lora[1].name", "../plain", "name of a folder"]),
      ({ $0[1]["name"] = "pla\nin" }, 3, ["lora[1].name", #""pla\u{A}in""#, "no control character"]),
      ({ $0[1]["name"] = "pla\u{1B}in" }, 3, ["lora[1].name", "no control character"]),
      ({ $0[1]["name"] = "state.json" }, 3, ["lora[1].name", "state.json"]),
      ({ $0[1]["name"] = "Swaps" }, 3, ["lora[1].name", "Swaps", "lora[0]"]),
      ({ $0[1]["learning_rate"] = 1 }, 3, ["lora[1].learning_rate", "no such key"]),
      ({ $0[0]["top_k"] = 9 }, 3, ["run.json: lora[0].top_k is 9, expected at most lora[0].num_experts, 3"]),
      ({ $0[1]["warmup_ratio"] = 0.5 }, 3, ["run.json: lora[1].warmup_ratio with lora[1].scheduler_type constant"]),
      ({ $0[1]["task_name"] = "obqa" }, 3, ["run.json: lora[1].task_name goes with a folder"]),
      ({ $0[1]["data"] = nil }, 3, ["lora[1].data", "--data"]),
      ({ $0[1]["data"] = "nowhere.jsonl" }, 3, ["nowhere.jsonl"]),
    ] as [((inout [JSON.Object]) -> Void, Int32, [String])] {
      let result = try train(scratch, configuration(change))
      #expect(result.code == code, "\(result.code) \(result.error)")
      for part in named { #expect(result.error.contains(part), "\(result.error)") }
      #expect(!FileManager.default.fileExists(atPath: scratch.url.path + "/run"))
    }
  }

  /// Data of an adapter's own that an option displaces are named; without it tasks and a file of one's own go together.
  @Test func dataThatAnOptionDisplacesAreNamed() throws {
    let scratch = try place()
    let question = #"{"question":"is it?","passage":"it is","answer":true}"#
    try FileManager.default.createDirectory(atPath: scratch.url.path + "/tasks/boolq", withIntermediateDirectories: true)
    try AtomicFile.write(question + "\n", to: scratch.url.path + "/tasks/boolq/train.jsonl")
    let mixed = try configuration {
      $0[0]["task_name"] = "boolq"
      $0[0]["data"] = "tasks"
    }
    let displaced = try train(scratch, mixed, "--data", "tasks", "--dry-run")
    #expect(
      displaced.error.split(separator: "\n").filter { $0.contains("--data") }
        == [#"note: run.json: lora[1].data is "few.jsonl", but --data tasks is given and takes its place."#], "\(displaced.error)")
    let lines = try lines(train(scratch, mixed, "--dry-run", "--json"))
    #expect(lines.prefix(2).map { $0["samples"] } == [1, 4])
  }

  /// One that diverges ends the run, also when it is resumed; what is then advised for the others can be done.
  @Test func theOthersGoOnWithoutTheOneThatDiverged() throws {
    let scratch = try place()
    func adapters(_ names: String...) throws -> JSON {
      try configuration { both in
        let plain = both[1]
        both = names.map { name in
          var own = plain
          own["name"] = JSON(name)
          own["num_epochs"] = 3
          if name == "wild" { (own["optim"], own["lr"]) = ("sgd", 1e30) }
          return own
        }
      }
    }
    for resume in [[], ["--resume"]] {
      try AtomicFile.write(adapters("first", "wild", "last").serialized(), to: scratch.url.path + "/run.json")
      let result = try Program.run(
        ["train", "--model", "base", "--config", "run.json", "--out", "run", "--threads", "1"] + resume, in: scratch.url)
      #expect(result.code == 4 && result.error.contains("of wild: "), "\(result.code) \(result.error)")
      #expect(
        result.error.contains("note: --resume comes to the same step. To train first, last without wild, take that out of run.json")
          && result.error.contains("; --adapter run/checkpoint-1 begins with the values of step 1,"), "\(result.error)")
    }
    let anew = try train(scratch, adapters("first", "last"), out: "anew", "--json")
    let further = try train(scratch, adapters("first", "last"), out: "further", "--adapter", "run/checkpoint-1", "--json")
    let one = try train(scratch, adapters("last"), out: "one", "--adapter", "run/checkpoint-1/last", "--json")
    let (fresh, begun) = try (lines(anew), lines(further))
    for i in [0, 1] {
      #expect(try #require(begun[i]["loss_first"]?.doubleValue) < fresh[i]["loss_first"]?.doubleValue ?? 0)
    }
    #expect(try lines(one).count == 1, "\(one.error)")
  }

  /// PiSSA takes its factors out of the base, which nobody else can then read.
  @Test func anAdapterThatChangesTheBaseIsAskedByItself() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    for (name, extra) in [("own", ["--init", "pissa"]), ("first", []), ("second", ["--seed", "7"])] {
      let arguments = name == "own" ? TrainingCase.loraArguments(folder, name) : TrainingCase.arguments(folder, name)
      let made = try Program.run(arguments + ["--steps", "2"] + extra)
      #expect(made.code == 0, "\(made.error)")
    }
    func losses(_ names: [String]) throws -> [String: Double] {
      let result = try Program.run(
        ["evaluate", "--model", "model", "--data", "data.jsonl", "--json", "--threads", "1"] + names.flatMap { ["--adapter", $0] },
        in: folder)
      return Dictionary(
        uniqueKeysWithValues: try lines(result).map { ($0["adapter"]?.stringValue ?? "", $0["loss"]?.doubleValue ?? .nan) })
    }
    let together = try losses(["own", "first", "second"])
    #expect(Set(together.values).count == 3)
    for name in ["own", "first", "second"] {
      let alone = try losses([name])
      #expect(abs((together[name] ?? .nan) - (alone[name] ?? 0)) <= 1e-6, "\(name): \(together), alone \(alone)")
    }
    let refused = try Program.run(
      ["generate", "--model", "model", "--prompt", "a", "--adapter", "first", "--adapter", "own"], in: folder)
    #expect(refused.code == 3 && refused.error.contains("own/adapter_config.json"), "\(refused.error)")
  }

  @Test func theBatchesOfTwoNameEachRowsAdapter() throws {
    let scratch = try place()
    #expect(try train(scratch, configuration(), "--dump-batches", "batches.safetensors", "--dry-run").code == 0)
    let file = try Safetensors(path: scratch.url.path + "/batches.safetensors")
    #expect(file.entries.count == 4 * 4)
    let rows = file.entries.filter { $0.name.hasSuffix(".adapter") }.map(\.shape)
    #expect(rows == [[44], [44], [40], [40]], "\(rows)")
  }
}
