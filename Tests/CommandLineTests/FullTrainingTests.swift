import Checkpoints
import Foundation
import Testing

/// `mixlora train --method full`: all weights of a model, from files or drawn.
@Suite struct FullTrainingTests {
  /// The tiny model without its weights: config.json and the tokenizer.
  private func folder(_ scratch: Scratch) throws -> URL {
    let folder = try TrainingCase.folder(scratch)
    try FileManager.default.removeItem(atPath: folder.path + "/model/model.safetensors")
    return folder
  }

  private func loss(_ result: Program.Result, _ key: String) throws -> Double {
    let line = try JSON(parsing: result.output, file: "output")
    return try #require(line[key]?.doubleValue)
  }

  @Test func aModelLearnsFromNothingAndIsAModelAfterwards() throws {
    let scratch = try Scratch()
    let folder = try folder(scratch)
    let result = try Program.run(TrainingCase.fullArguments(folder, "made", "--steps", "20", "--json"))
    #expect(result.code == 0 && result.error.contains("has no weights"), "\(result.error)")
    #expect(try loss(result, "loss_last") < 0.8 * loss(result, "loss_first"))
    let made = folder.path + "/made"
    let files = Set(try FileManager.default.contentsOfDirectory(atPath: made))
    #expect(
      files.isSuperset(of: ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "metrics.jsonl", "loss.svg"]))
    #expect(files.isDisjoint(with: ["adapter_config.json", "adapter_model.safetensors", "experts.svg"]))
    for file in ["config.json", "tokenizer.json"] {
      let (old, new) = ("\(folder.path)/model/\(file)", "\(made)/\(file)")
      #expect(FileManager.default.contentsEqual(atPath: old, andPath: new), "\(file) is copied byte for byte")
    }
    // The folder is a base model for everything else.
    let next = try Program.run([
      "train", "--model", made, "--data", folder.path + "/data.jsonl", "--out", folder.path + "/tuned", "--steps", "1", "--batch", "11",
      "--rank", "2", "--experts", "3", "--threads", "1", "--json",
    ])
    #expect(next.code == 0, "\(next.error)")
    #expect(try loss(next, "loss_first") < 0.8 * loss(result, "loss_first"), "the trained values were written")
  }

  @Test func trainingGoesOnFromTheWeightsOfAFolder() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let result = try Program.run(TrainingCase.fullArguments(folder, "more", "--steps", "2", "--lr", "0", "--weight-decay", "0"))
    #expect(result.code == 0 && !result.error.contains("has no weights"), "\(result.error)")
    let (old, new) = try (
      Safetensors(path: folder.path + "/model/model.safetensors"), Safetensors(path: folder.path + "/more/model.safetensors")
    )
    #expect(new.entries.count == old.entries.count && !new.entries.isEmpty)
    for entry in new.entries {
      #expect(entry.elementType == .float32)
      let double = try #require(old.entry(entry.name)).elementType == .float64
      let before = try old.withBytes(of: entry.name) { bytes in
        double ? bytes.bindMemory(to: Double.self).map { Float($0) } : Array(bytes.bindMemory(to: Float.self))
      }
      #expect(try new.withBytes(of: entry.name) { Array($0.bindMemory(to: Float.self)) } == before, "\(entry.name)")
    }
  }

  /// A GGUF file's weights, tokenizer and chat template become a Hugging Face folder: untrained the same model, trained a better one.
  @Test func theBaseMayBeAGGUFFile() throws {
    let scratch = try Scratch()
    let model = URL(filePath: Scratch.tokenizer("../gguf/talks.gguf")).standardized.path
    let data = scratch.url.path + "/data.jsonl"
    let turns = [("what is the hint?", "a hat."), ("what is the other?", "a mat."), ("the third?", "a rat.")]
    let lines = turns.map {
      #"{"messages":[{"role":"user","content":"\#($0)"},{"role":"assistant","content":"\#($1)"}]}"# + "\n"
    }
    try AtomicFile.write(lines.joined(), to: data)
    func train(_ out: String, _ more: String...) throws -> Program.Result {
      try Program.run(
        ["train", "--method", "full", "--model", model, "--data", data, "--out", scratch.url.path + "/" + out, "--batch", "3", "--json"]
          + more)
    }
    func lossOf(_ model: String) throws -> Double {
      let result = try Program.run(["evaluate", "--model", model, "--data", data, "--json"])
      #expect(result.code == 0 && result.error.isEmpty, "\(result.error)")
      return try loss(result, "loss")
    }
    let same = try train("same", "--steps", "1", "--lr", "0", "--weight-decay", "0")
    #expect(same.code == 0 && same.error.isEmpty, "\(same.error)")
    let folder = scratch.url.path + "/same"
    #expect(try abs(lossOf(folder) - lossOf(model)) < 1e-5)
    let texts = #"["the hint, a 3\n", "</s> \u00e9  x"]"#
    for flags in [[], ["--parse-special"]] {
      let ids = try [model, folder].map { try Program.run(["tokenize", "--model", $0] + flags, input: texts) }
      #expect(ids[0].code == 0 && ids[0].output == ids[1].output, "\(ids)")
    }

    let learnt = try train("learnt", "--steps", "12", "--lr", "0.01")
    #expect(try learnt.code == 0 && loss(learnt, "loss_last") < 0.1 * loss(learnt, "loss_first"), "\(learnt)")
    for (question, answer) in turns {
      let result = try Program.run([
        "generate", "--model", scratch.url.path + "/learnt", "--chat", "--prompt", question, "--max-tokens", "9",
      ])
      #expect(result.code == 0 && result.output == answer + "\n", "\(result)")
    }
  }

  @Test(arguments: [["--optimizer", "adamw"], ["--optimizer", "sgd", "--momentum", "0.9"]])
  func aResumedRunGivesTheBitsOfTheUnbrokenOne(_ optimizer: [String]) throws {
    let scratch = try Scratch()
    let folder = try folder(scratch)
    let arguments = { TrainingCase.fullArguments(folder, $0, "--steps", "7") + optimizer }
    #expect(try Program.run(arguments("whole")).code == 0)
    #expect(try Program.run(arguments("broken")).code == 0)
    for name in ["checkpoint-7", "model.safetensors", "config.json", "loss.svg"] {
      try FileManager.default.removeItem(atPath: "\(folder.path)/broken/\(name)")
    }
    let resumed = try Program.run(arguments("broken") + ["--resume"])
    #expect(resumed.code == 0, "\(resumed.error)")
    for file in ["model.safetensors", "config.json", "checkpoint-7/model.safetensors", "checkpoint-7/optimizer.safetensors", "loss.svg"] {
      let (whole, broken) = ("\(folder.path)/whole/\(file)", "\(folder.path)/broken/\(file)")
      #expect(FileManager.default.contentsEqual(atPath: whole, andPath: broken), "\(file)")
    }
  }

  @Test(arguments: [
    ["--rank", "2"], ["--adapter=x"], ["--experts", "8"], ["--rslora"], ["--lora-plus", "1"], ["--router-coefficient", "0"],
  ])
  func whatDescribesAnAdapterIsRefused(_ option: [String]) throws {
    let scratch = try Scratch()
    let result = try Program.run(TrainingCase.fullArguments(scratch.url, "run") + option)
    #expect(result.code == 2 && result.error.contains(option[0].split(separator: "=")[0] + " goes with an adapter"), "\(result.error)")
  }

  @Test func weightsThatCannotBeReadAreNotDrawnAnew() throws {
    let scratch = try Scratch()
    let folder = try folder(scratch)
    try AtomicFile.write("weights", to: folder.path + "/model/consolidated.00.pth")
    let result = try Program.run(TrainingCase.fullArguments(folder, "run"))
    #expect(result.code == 3 && result.error.contains("neither model.safetensors"), "\(result.error)")
    let adapter = try Program.run(TrainingCase.arguments(folder, "run"))
    #expect(adapter.code == 3, "an adapter needs the weights of its base")
  }

  @Test func aModelBeyondTheMemoryIsSaid() throws {
    let scratch = try Scratch()
    let folder = try folder(scratch)
    try scratch.edit(folder.appending(path: "model/config.json"), "\"intermediate_size\": ", "\"intermediate_size\": 16700000, \"x\": ")
    try scratch.edit(folder.appending(path: "model/config.json"), "\"num_hidden_layers\": ", "\"num_hidden_layers\": 10000, \"y\": ")
    let result = try Program.run(TrainingCase.fullArguments(folder, "run"))
    #expect(result.code == 3 && result.error.contains("GiB"), "\(result.error)")
  }

  @Test func tokensThatTheModelDoesNotHaveAreSaid() throws {
    let scratch = try Scratch()
    let folder = try folder(scratch)
    try scratch.edit(folder.appending(path: "model/config.json"), "\"vocab_size\": 61", "\"vocab_size\": 60")
    let result = try Program.run(TrainingCase.fullArguments(folder, "run"))
    #expect(result.code == 3 && result.error.contains("token 60"), "\(result.error)")
  }
}
