import Checkpoints
import Foundation
import TestModels
import Testing

/// What a run must refuse before it costs anything, and what it must not leave behind.
@Suite struct RefusedRunTests {
  @Test func anAdapterBeyondTheMemoryIsRefusedBeforeItIsMade() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    for flags in [["--rank", "1000000", "--experts", "100000"], ["--experts", "1000000", "--rank", "100000", "--dry-run"]] {
      let run = try Program.run(
        ["train", "--model", folder.path + "/model", "--data", folder.path + "/data.jsonl", "--out", folder.path + "/run"] + flags)
      #expect(run.code == 3 && run.error.contains("--rank, --experts") && run.error.contains("GiB"), "\(run.code) \(run.error)")
    }
  }

  @Test func valuesThatOverflowInTheUpdateAreNotSaved() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let run = try Program.run(
      ["train", "--model", folder.path + "/model", "--data", folder.path + "/data.jsonl", "--out", folder.path + "/run"]
        + ["--steps", "1", "--batch", "4", "--lr", "1e38", "--weight-decay", "1e5", "--threads", "1"])
    #expect(run.code == 4 && run.error.contains("not finite"), "\(run.code) \(run.error)")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/run/adapter_model.safetensors"))
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/run/checkpoint-1"))
  }

  @Test func resumeLeavesAFolderAloneThatIsNoRun() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let other = folder.appending(path: "other")
    try FileManager.default.createDirectory(at: other, withIntermediateDirectories: true)
    try Data("mine".utf8).write(to: other.appending(path: "loss.svg"))
    let run = try Program.run(TrainingCase.arguments(folder, "other", "--steps", "1", "--resume"))
    #expect(run.code == 2 && run.error.contains("loss.svg"), "\(run.error)")
    #expect(try String(contentsOf: other.appending(path: "loss.svg"), encoding: .utf8) == "mine")
  }

  @Test func batchesAreNotDumpedOverTheirOwnData() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let data = folder.path + "/data.jsonl"
    let before = try Data(contentsOf: URL(filePath: data))
    let run = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1", "--dry-run", "--dump-batches", data))
    #expect(run.code == 2 && run.error.contains("--dump-batches"), "\(run.error)")
    #expect(try Data(contentsOf: URL(filePath: data)) == before)
  }

  @Test func whatIsNoModelIsCalledWhatItIs() throws {
    let missing = try Program.run(["generate", "--model", "/nowhere/at all", "--prompt", "a"])
    #expect(missing.code == 3 && missing.error.contains("nothing of this name"), "\(missing.error)")
    let scratch = try Scratch()
    let golden = try scratch.golden("topk")
    let adapter = try Program.run(["generate", "--model", golden.path + "/adapter", "--prompt", "a"])
    #expect(adapter.code == 3 && adapter.error.contains("found an adapter"), "\(adapter.error)")
  }

  #if os(Linux)
    @Test func whatCannotBePrintedIsTheSystemsFailure() throws {
      let scratch = try Scratch()
      let golden = try scratch.golden("topk").path
      try Data(TalkingModel.json(hasChat: true).utf8).write(to: URL(filePath: golden + "/model/tokenizer.json"))
      let talk = "--model '\(golden)/model' --max-tokens 3"
      for arguments in [
        "--help", "inspect '\(golden)/adapter' --json", "generate \(talk) --prompt So", "generate \(talk) --prompt So --json",
        "chat \(talk)", "capture-helper numpy",
      ] {
        let result = try Program.run(["-c", "'\(Program.url.path)' \(arguments) > /dev/full"], input: "So\n", program: "/bin/sh")
        #expect(result.code == 5 && result.error.contains("standard output"), "\(arguments): \(result.code) \(result.error)")
      }
    }
  #endif
}
