import CPUBackend
import Checkpoints
import Foundation
import Tensors
import Testing
import Training

@testable import MixLoRACommand

/// A tiny model with a tokenizer of its own and a few lines to learn: what `mixlora train` does with them.
@Suite struct TrainCommandTests {
  @Test func aRunLearnsAndLeavesTheFilesOfItsContract() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let result = try Program.run(
      TrainingCase.arguments(folder, "run", "--steps", "12", "--json", "--validation", folder.path + "/data.jsonl"))
    #expect(result.code == 0, "\(result.error)")
    #expect(result.error.isEmpty, "progress belongs to terminals")
    let report = try JSON(parsing: result.output, file: "output")
    for key in [
      "steps", "loss_first", "loss_last", "tokens", "seconds", "tokens_per_second", "trainable_parameters", "peak_resident_bytes",
    ] {
      #expect((report[key]?.doubleValue ?? 0) > 0, "\(key)")
    }
    #expect((report["loss_last"]?.doubleValue ?? .infinity) < (report["loss_first"]?.doubleValue ?? 0))
    let files = Set(try FileManager.default.contentsOfDirectory(atPath: folder.path + "/run"))
    #expect(files.isSuperset(of: ["adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "loss.svg", "experts.svg"]))
    #expect(Set(files.filter { $0.hasPrefix("checkpoint-") }) == Set(["checkpoint-9", "checkpoint-12"]))
    let metrics = try String(contentsOfFile: folder.path + "/run/metrics.jsonl", encoding: .utf8).split(separator: "\n")
    #expect(metrics.count == 12)
    let steps = try metrics.map { try JSON(parsing: String($0), file: "metrics") }
    let last = steps[11]
    #expect(steps.compactMap { $0["step"]?.intValue } == Array(1...12))
    #expect(report["steps"]?.intValue == 12)
    #expect(report["loss_first"] == steps[0]["loss"] && report["loss_last"] == last["loss"])
    #expect(report["tokens"]?.intValue == steps.reduce(0) { $0 + ($1["tokens"]?.intValue ?? 0) })
    try TrainingCase.expectPace(report, of: steps)
    let tensors = try Safetensors(path: folder.path + "/run/adapter_model.safetensors").entries
    #expect(report["trainable_parameters"]?.intValue == tensors.reduce(0) { $0 + $1.elementCount })
    // The adapter that was left is the one that was validated, and better than none.
    func loss(_ extra: String...) throws -> Double {
      let (model, data) = (folder.path + "/model", folder.path + "/data.jsonl")
      let result = try Program.run(["evaluate", "--model", model, "--data", data, "--json", "--threads", "1"] + extra)
      return try #require(try JSON(parsing: result.output, file: "output")["loss"]?.doubleValue, "\(result.error)")
    }
    let validated = try #require(last["validation_loss"]?.doubleValue)
    let reloaded = try loss("--adapter", folder.path + "/run")
    #expect(abs(reloaded - validated) <= 1e-6 * validated, "\(reloaded) and \(validated)")
    #expect(try loss() > validated)
    #expect(last["expert_load"]?.arrayValue?.count == 2 && last["expert_load"]?.arrayValue?.first?.arrayValue?.count == 3)
    #expect(steps[0]["lr"]?.doubleValue == 0, "a warm-up begins at 0")
  }

  @Test func aResumedRunGivesTheBitsOfTheUnbrokenOne() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    #expect(try Program.run(TrainingCase.arguments(folder, "whole", "--steps", "8")).code == 0)
    #expect(try Program.run(TrainingCase.arguments(folder, "broken", "--steps", "8")).code == 0)
    // What a run that was killed after step 6 and in the middle of a save would leave.
    let broken = folder.path + "/broken"
    for name in ["checkpoint-8", "adapter_model.safetensors", "adapter_config.json", "loss.svg", "experts.svg"] {
      try FileManager.default.removeItem(atPath: broken + "/" + name)
    }
    try FileManager.default.createDirectory(atPath: broken + "/.checkpoint-8.partial-1", withIntermediateDirectories: false)
    let handle = try FileHandle(forWritingTo: URL(filePath: broken + "/metrics.jsonl"))
    try handle.seekToEnd()
    try handle.write(contentsOf: Data(#"{"step": 9, "los"#.utf8))
    try handle.close()
    let resumed = try Program.run(TrainingCase.arguments(folder, "broken", "--steps", "8", "--resume"))
    #expect(resumed.code == 0, "\(resumed.error)")
    func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(filePath: folder.path + "/" + path)) }
    for file in ["adapter_model.safetensors", "checkpoint-8/optimizer.safetensors", "loss.svg", "experts.svg"] {
      #expect(try bytes("whole/" + file) == bytes("broken/" + file), "\(file)")
    }
    let finished = try Program.run(TrainingCase.arguments(folder, "broken", "--steps", "8", "--resume"))
    #expect(finished.code == 0, "a finished run is resumed without a step")
    #expect(finished.output.contains("8 steps, loss ") && finished.output.contains(", all made before; "), "\(finished.output)")
    #expect(!finished.output.contains("tokens/s"), "\(finished.output)")
    let nothing = try JSON(
      parsing: Program.run(TrainingCase.arguments(folder, "broken", "--steps", "8", "--resume", "--json")).output, file: "output")
    #expect(
      nothing["steps"] == 8 && nothing["tokens"] == 0 && nothing["seconds"]?.doubleValue == 0 && nothing["tokens_per_second"] == .null)
    #expect(!FileManager.default.fileExists(atPath: broken + "/.checkpoint-8.partial-1"))
  }

  @Test func aPlanBeyondTheMachineSaysWhatMakesItLess() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch).path
    let backend = CPUFloat(threads: 1)
    let run = try TrainingRun(.mixlora(rank: 2, experts: 3), model: folder + "/model", data: folder + "/data.jsonl", steps: 1, on: backend)
    let gibibyte = 1_073_741_824
    let preview = try TrainingPreview(run, held: HeldMemory(bytes: 40 * gibibyte))
    #expect(preview.shortage(of: Double(41 * gibibyte)) == nil)
    let text = try #require(preview.shortage(of: Double(16 * gibibyte))).option
    #expect(text.contains("needs 40.0") && text.contains("may have 16.00 GiB"), "\(text)")
    #expect(text.hasSuffix("--memory, --recompute or a smaller --batch make it less"), "\(text)")

    // A wide block and many tokens: nothing of that size is made for a plan.
    var members = try #require(JSON(contentsOf: folder + "/model/config.json").objectValue)
    (members["intermediate_size"], members["max_position_embeddings"], members["num_hidden_layers"]) = (400_000, 4096, 1)
    try FileManager.default.removeItem(atPath: folder + "/model/model.safetensors")
    try AtomicFile.write(JSON.object(members).serialized(), to: folder + "/model/config.json")
    let line = #"{"text":"\#(String(repeating: "a", count: 2000))"}"#
    try AtomicFile.write(Array(repeating: line, count: 200).joined(separator: "\n"), to: folder + "/long.jsonl")
    let arguments = [
      "train", "--model", folder + "/model", "--method", "full", "--data", folder + "/long.jsonl", "--out", folder + "/run", "--steps", "1",
      "--batch", "200", "--length", "4000", "--dry-run", "--json",
    ]
    let dry = try Program.run(arguments)
    #expect(dry.code == 0 && dry.error.contains("note: the run needs "), "\(dry.error)")
    #expect(try #require(JSON(parsing: dry.output, file: "output")["memory"]?["total_bytes"]?.intValue) > 1000 * gibibyte)
    let small = try Program.run(arguments + ["--batch", "1", "--length", "64"])
    #expect(small.code == 0 && !small.error.contains("note: the run needs "), "\(small.error)")
  }

  @Test func whatCannotBeTrainedIsSaid() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    #expect(try Program.run(TrainingCase.arguments(folder, "run", "--steps", "3")).code == 0)
    let again = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "3"))
    #expect(again.code == 2 && again.error.contains("not empty"), "\(again.error)")
    for (option, value, old) in [("--dropout", "0.5", "0.05"), ("--steps", "5", "3"), ("--threads", "2", "1"), ("--seed", "7", "42")] {
      let changed = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "3", "--resume", option, value))
      #expect(changed.code == 2, "\(changed.error)")
      for part in [option, value, old] { #expect(changed.error.contains(part), "\(changed.error)") }
    }
    let task = try Program.run(TrainingCase.arguments(folder, "other", "--task", "hellaswag"))
    #expect(task.code == 2 && task.error.contains("hellaswag"), "\(task.error)")
    try AtomicFile.write("{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\"}\n", to: folder.path + "/data.jsonl")
    let line = try Program.run(TrainingCase.arguments(folder, "other"))
    #expect(line.code == 3 && line.error.contains("data.jsonl, line 2") && line.error.contains("completion"), "\(line.error)")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/other"))
  }

  @Test(arguments: [
    ("--epochs", "9223372036854775807"), ("--batch", "9223372036854775807"), ("--steps", "9223372036854775807"), ("--keep", "0"),
    ("--alpha", "nan"), ("--alpha", "0"), ("--momentum", "1.5"), ("--momentum", "1.0"),
  ])
  func aNumberOutOfRangeIsAUsageError(_ option: String, _ value: String) throws {
    let result = try Program.run(["train", "--model", "m", "--data", "d", "--out", "o", option, value])
    #expect(result.code == 2 && result.error.contains("\(option) is \(value)"), "\(result.error)")
  }

  @Test func aRunGoesOnWithItsOwnSamplesAlone() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    #expect(try Program.run(TrainingCase.arguments(folder, "run", "--steps", "3")).code == 0)
    try scratch.edit(folder.appending(path: "data.jsonl"), "what is 7?", "what is 8?")
    let changed = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "3", "--resume"))
    #expect(changed.code == 2 && changed.error.contains("error: --data holds other samples than the run"), "\(changed.error)")
  }

  /// Which of two files has other samples is said; what was only left out holds none.
  @Test func theSamplesThatChangedAreCalledByTheirOption() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    try FileManager.default.copyItem(at: folder.appending(path: "data.jsonl"), to: folder.appending(path: "held.jsonl"))
    let arguments = TrainingCase.arguments(folder, "run", "--steps", "3")
    let validation = ["--validation", folder.path + "/held.jsonl", "--evaluate-every", "2"]
    #expect(try Program.run(arguments + validation).code == 0)
    let without = try Program.run(arguments + ["--resume"])
    #expect(without.code == 2 && without.error.contains("error: --validation is not given, but"), "\(without.error)")
    #expect(without.error.contains("--evaluate-every is not given") && !without.error.contains("other samples"), "\(without.error)")
    try scratch.edit(folder.appending(path: "held.jsonl"), "what is 7?", "what is 8?")
    let changed = try Program.run(arguments + validation + ["--resume"])
    #expect(changed.code == 2 && changed.error.contains("error: --validation holds other samples than the run"), "\(changed.error)")
    #expect(!changed.error.contains("--data holds"), "\(changed.error)")
  }

  /// What is advised where a run may not go on otherwise can be done: an interrupted run has values in its checkpoints alone.
  @Test(arguments: [false, true]) func theAdviceOfARefusedRunWorks(_ isFull: Bool) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    func run(_ out: String, _ more: String...) throws -> Program.Result {
      let own = isFull ? ["--method", "full"] : ["--rank", "2", "--experts", "3"]
      return try Program.run(
        ["train", "--model", "model", "--data", "data.jsonl", "--out", out, "--batch", "4", "--save-every", "3", "--threads", "1"]
          + own + more, in: folder)
    }
    #expect(try run("run", "--steps", "5").code == 0)
    let name = isFull ? "--model" : "--adapter"
    let ended = try run("run", "--steps", "6", "--resume")
    #expect(ended.code == 2 && ended.error.contains("give \(name) run and another --out."), "\(ended.error)")
    try FileManager.default.removeItem(atPath: folder.path + "/run/" + (isFull ? "model.safetensors" : "adapter_model.safetensors"))
    let broken = try run("run", "--steps", "6", "--resume")
    #expect(broken.code == 2 && broken.error.contains("give \(name) run/checkpoint-5 and another --out."), "\(broken.error)")
    let further = try run("further", "--steps", "1", name, "run/checkpoint-5")
    #expect(further.code == 0, "\(further.error)")
  }

  @Test func aFolderThatIsNoCheckpointIsNotTakenForOne() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let foreign = folder.path + "/run/checkpoint-3"
    try FileManager.default.createDirectory(atPath: foreign, withIntermediateDirectories: true)
    try AtomicFile.write("mine", to: foreign + "/notes")
    try AtomicFile.write("", to: folder.path + "/run/metrics.jsonl")
    let result = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "3", "--resume"))
    #expect(result.code == 5 && result.error.contains("checkpoint-3"), "\(result.code) \(result.error)")
    #expect(try String(contentsOfFile: foreign + "/notes", encoding: .utf8) == "mine")
  }

  @Test func withoutACheckpointAModelOrAnAdapterIsNotWrittenOver() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let file = URL(filePath: folder.path + "/model/model.safetensors")
    let before = try Data(contentsOf: file)
    let model = try Program.run(TrainingCase.fullArguments(folder, "model", "--steps", "1", "--resume"))
    #expect(model.code == 2 && model.error.contains("config.json"), "\(model.error)")
    #expect(try Data(contentsOf: file) == before)
    #expect(try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1")).code == 0)
    try FileManager.default.removeItem(atPath: folder.path + "/run/checkpoint-1")
    let adapter = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1", "--resume"))
    #expect(adapter.code == 2 && adapter.error.contains("adapter_config.json"), "\(adapter.error)")
    // What a run leaves that was killed before its first checkpoint is no reason not to begin.
    for name in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
      try FileManager.default.removeItem(atPath: folder.path + "/run/" + name)
    }
    #expect(try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1", "--resume")).code == 0)
  }

  @Test func aResumedRunHasTheThreadsOfItsCheckpoint() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    #expect(try Program.run(TrainingCase.arguments(folder, "run", "--steps", "4", "--threads", "3")).code == 0)
    try FileManager.default.removeItem(atPath: folder.path + "/run/checkpoint-4")
    let again = TrainingCase.arguments(folder, "run", "--steps", "4", "--resume")
    let threads = try #require(again.firstIndex(of: "--threads"))
    let result = try Program.run(again.enumerated().filter { $0.offset != threads && $0.offset != threads + 1 }.map(\.element))
    #expect(result.code == 0, "\(result.error)")
    #expect(try JSON(contentsOf: folder.path + "/run/checkpoint-4/state.json")["settings"]?["threads"] == 3)
  }

  /// A budget is refused by name where there is no room, and else said, in whatever form.
  @Test func aBudgetOfMemoryIsRefusedOrSaid() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    func run(_ more: String...) throws -> Program.Result { try Program.run(TrainingCase.arguments(folder, "run", "--steps", "2") + more) }
    let refused = try run("--memory", "1M")
    #expect(refused.code == 2 && refused.error.contains("--memory is 1000000 bytes, expected at least"), "\(refused.error)")
    let both = try run("--memory", "1G", "--recompute")
    #expect(both.code == 2 && both.error.contains("--recompute takes all"), "\(both.error)")
    for wrong in ["much", "0M", "1.5X", "10MB", "-1G", "9e9", "10000000T"] {
      let unread = try run("--memory=" + wrong)
      #expect(unread.code == 2 && unread.error.contains("as 800000, 600M or 1.5G"), "\(wrong): \(unread.code) \(unread.error)")
    }
    for (form, bytes) in [("1.5M", 1_500_000), ("1500000", 1_500_000), ("1MiB", 1 << 20), ("0.001G", 1_000_000), ("1.5KiB", 1536)] {
      #expect(try run("--memory", form).error.contains("--memory is \(bytes) bytes, expected"), "\(form)")
    }
    let dry = try run("--memory", "20G", "--dry-run", "--json")
    let memory = try #require(try JSON(parsing: dry.output, file: "output")["memory"])
    #expect(
      memory["recomputed_blocks"] == 0 && (memory["total_bytes"]?.intValue ?? 0) > (memory["held_bytes"]?.intValue ?? .max), "\(memory)")
    #expect(dry.error.contains("note: --memory 20000000000 bytes: 0 of"), "\(dry.error)")
    let all = try run("--recompute", "--dry-run")
    #expect(all.output.contains("by the steps with 2 of 2 blocks recomputed"), "\(all.output)")
  }

  @Test(arguments: [
    (["--method", "lora"], "--experts does nothing: what is trained has no experts"), (["--momentum", "0.9"], "--momentum does nothing"),
    (["--optimizer", "sgd", "--method", "lora", "--router-loss", "pooledTopK"], "does nothing: what is trained has no experts"),
    (["--epochs", "5"], "--epochs does nothing: --steps says"), (["--evaluate-every", "5"], "--evaluate-every does nothing: there is no"),
    (["--evaluate-every", "5", "--resume"], "--evaluate-every does nothing"),
  ])
  func anOptionThatNothingReadsIsRefusedByName(_ options: [String], _ words: String) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let result = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1") + options)
    #expect(result.code == 2 && result.error.contains(words), "\(result.code) \(result.error)")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/run"))
  }

  /// An adapter that training starts from keeps its own settings: to ask for others, or for what it has not, is an error.
  @Test func whatAnAdapterHasOtherwiseIsRefusedByName() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    #expect(try Program.run(TrainingCase.arguments(folder, "mixture", "--steps", "1")).code == 0)
    #expect(try Program.run(TrainingCase.loraArguments(folder, "plain", "--steps", "1")).code == 0)
    func run(_ out: String, from adapter: String, _ options: [String]) throws -> Program.Result {
      try Program.run(
        [
          "train", "--model", "model", "--data", "data.jsonl", "--out", out, "--adapter", adapter, "--steps", "1", "--threads", "1",
          "--batch", "4",
        ] + options, in: folder)
    }
    for (adapter, options, words) in [
      ("mixture", ["--rank", "9"], "--rank is 9, but the adapter mixture has 2, which holds."),
      ("mixture", ["--alpha", "5"], "--alpha is 5.0, but the adapter mixture has 4.0"),
      ("mixture", ["--experts", "5"], "--experts is 5, but the adapter mixture has 3"),
      ("mixture", ["--top-k", "3"], "--top-k is 3, but the adapter mixture has 2"),
      ("mixture", ["--dropout", "0.4"], "--dropout is 0.4, but the adapter mixture has 0.05"),
      ("mixture", ["--targets", "q_proj"], "--targets is \"q_proj\", but the adapter mixture has \"q_proj,k_proj,"),
      ("mixture", ["--rslora"], "--rslora is true, but the adapter mixture has false"),
      ("mixture", ["--init", "gaussian"], "--init is \"gaussian\", but the adapter mixture has \"kaiming\""),
      ("mixture", ["--router-coefficient", "0.5"], "--router-coefficient is 0.5, but the adapter mixture has 0.001"),
      ("mixture", ["--method", "lora", "--experts", "5"], "--method is \"lora\", but the adapter mixture has \"mixlora\""),
      ("plain", ["--method", "mixlora"], "--method is \"mixlora\", but the adapter plain has \"lora\""),
      ("plain", ["--experts", "3"], "--experts does nothing: what is trained has no experts"),
      ("plain", ["--router-loss", "pooledTopK"], "--router-loss does nothing"),
      ("plain", ["--rank", "3", "--resume"], "--rank is 3, but the adapter plain has 2"),
    ] as [(String, [String], String)] {
      let result = try run("refused", from: adapter, options)
      #expect(result.code == 2 && result.error.contains("error: " + words), "\(options): \(result.code) \(result.error)")
      #expect(!FileManager.default.fileExists(atPath: folder.path + "/refused"))
    }
    let own = ["--rank", "2", "--alpha", "4", "--dropout", "0.05", "--init", "kaiming"]
    let targets = ["--targets", "up_proj,q_proj,k_proj,v_proj,o_proj,gate_proj,down_proj"]
    for (adapter, options) in [
      (
        "mixture",
        own + targets + ["--method", "mixlora", "--experts", "3", "--top-k", "2", "--router-coefficient", "0.001", "--lr", "0.1"]
      ),
      ("plain", own + targets + ["--method", "lora"]),
    ] {
      let result = try run("again-" + adapter, from: adapter, options)
      #expect(result.code == 0 && result.error.isEmpty, "\(result.code) \(result.error)")
    }
  }

  /// The safe budget that a refusal names is taken, and kept: by a run whose steps add about as much as the process holds before.
  @Test(arguments: [1, 2]) func theBudgetThatARefusalNamesIsKept(_ threads: Int) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let text = String(repeating: "so what is it? ", count: 4)
    let lines = (0..<64).map { #"{"prompt":"\#($0) \#(text)","completion":"\#(text)"}"# }
    try AtomicFile.write(lines.joined(separator: "\n"), to: folder.path + "/data.jsonl")
    func run(_ out: String, _ memory: String) throws -> Program.Result {
      try Program.run(
        TrainingCase.arguments(
          folder, out, "--batch", "64", "--rank", "64", "--experts", "8", "--steps", "2", "--threads", "\(threads)", "--memory", memory,
          "--json"))
    }
    let refused = try run("refused", "1M")
    let words = try #require(
      refused.error.firstMatch(of: #/expected at least (\d+), and (\d+) to be safe: .* add (\d+) to the (\d+)/#), "\(refused.error)")
    let (least, budget) = try (#require(Int(words.1)), #require(Int(words.2)))
    let (added, held) = try (#require(Int(words.3)), #require(Int(words.4)))
    #expect(least == added + held && budget == least + 2_000_000)
    #expect(2 * added > held, "the steps should matter: \(refused.error)")
    for round in 1...3 {
      let kept = try run("run-\(round)", "\(budget)")
      #expect(kept.code == 0, "\(kept.error)")
      let peak = try #require(try JSON(parsing: kept.output, file: "output")["peak_resident_bytes"]?.intValue)
      #expect(held < peak && peak <= budget, "a peak of \(peak) under \(budget)")
    }
  }

  @Test func aDryRunMarksTheCountedTokens() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let result = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "3", "--dry-run"))
    #expect(result.code == 0, "\(result.error)")
    #expect(result.output.contains("what is 0?[ ][0][ ][i][s][ ][1][.][<end>]"), "\(result.output)")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/run"))
  }
}
