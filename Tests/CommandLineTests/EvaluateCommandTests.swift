import Checkpoints
import Foundation
import Testing

@Suite struct EvaluateCommandTests {
  @Test(arguments: [
    (["--split", "dev"], "dev"), (["--limit", "0"], "--limit is 0"), (["--task", "hellaswag"], "hellaswag"),
  ])
  func whatCannotBeAskedIsAUsageError(_ extra: [String], _ part: String) throws {
    let result = try Program.run(["evaluate", "--model", "m", "--data", "d"] + extra)
    #expect(result.code == 2 && result.error.contains(part), "\(result.error)")
  }

  @Test func theLossOfAFileIsTheTrainersValidationLoss() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let (data, model) = (folder.path + "/data.jsonl", folder.path + "/model")
    let trained = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "5", "--validation", data))
    #expect(trained.code == 0, "\(trained.error)")
    let metrics = try String(contentsOfFile: folder.path + "/run/metrics.jsonl", encoding: .utf8).split(separator: "\n")
    let expected = try #require(try JSON(parsing: String(metrics[4]), file: "metrics")["validation_loss"]?.doubleValue)
    let result = try Program.run([
      "evaluate", "--model", model, "--data", data, "--adapter", folder.path + "/run", "--json", "--threads", "1",
    ])
    #expect(result.code == 0, "\(result.error)")
    let line = try JSON(parsing: result.output, file: "output")
    let loss = try #require(line["loss"]?.doubleValue)
    #expect(abs(loss - expected) <= 1e-6 * expected, "\(loss) and \(expected)")
    #expect(abs(try #require(line["perplexity"]?.doubleValue) - exp(loss)) <= 1e-9 * exp(loss))
    #expect(line["adapter"]?.stringValue == folder.path + "/run")
    // The base model by itself, on the first record: " 0 is 1." and the end token.
    let first = try JSON(
      parsing: try Program.run(["evaluate", "--model", model, "--data", data, "--limit", "1", "--json"]).output, file: "output")
    #expect(first["adapter"] == .null && first["tokens"]?.intValue == 9, "\(first.serialized())")
    let open = ["evaluate", "--model", model, "--data", data, "--limit", "1", "--json", "--no-end-token"]
    #expect(try JSON(parsing: try Program.run(open).output, file: "output")["tokens"]?.intValue == 8)
  }

  @Test func optionsOfTheOtherKindOfDataAreUsageErrors() throws {
    let scratch = try Scratch()
    try AtomicFile.write("{}", to: scratch.url.path + "/data.jsonl")
    for (data, option) in [
      ("/data.jsonl", ["--task", "boolq"]), ("/data.jsonl", ["--split", "test"]), ("", ["--template", "alpaca"]), ("", ["--loss-on=all"]),
      ("", ["--length", "9"]), ("", ["--too-long", "drop"]), ("", ["--no-end-token"]),
    ] {
      let result = try Program.run(["evaluate", "--model", "m", "--data", scratch.url.path + data] + option)
      #expect(result.code == 2 && result.error.contains(option[0].split(separator: "=")[0] + " goes with"), "\(result.error)")
    }
  }

  @Test func aTokenThatTheModelDoesNotHaveIsSaid() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    try FileManager.default.removeItem(atPath: folder.path + "/model/model.safetensors")
    try scratch.edit(folder.appending(path: "model/config.json"), "\"vocab_size\": 61", "\"vocab_size\": 35")
    try AtomicFile.write(#"{"text":"letters alone"}"#, to: folder.path + "/data.jsonl")
    let made = try Program.run(TrainingCase.fullArguments(folder, "made", "--steps", "1", "--no-end-token"))
    #expect(made.code == 0, "\(made.error)")
    try FileManager.default.createDirectory(atPath: folder.path + "/tasks/boolq", withIntermediateDirectories: true)
    let line = #"{"question":"is nine 9","passage":"nine is 9","answer":true}"#
    try AtomicFile.write(line, to: folder.path + "/tasks/boolq/test.jsonl")
    let result = try Program.run(["evaluate", "--model", folder.path + "/made", "--data", folder.path + "/tasks"])
    #expect(result.code == 3 && result.error.contains("token 40") && result.error.contains("below 35"), "\(result.error)")
  }

  @Test func aFolderWithoutTasksIsNamed() throws {
    let scratch = try Scratch()
    let result = try Program.run(["evaluate", "--model", "m", "--data", scratch.url.path])
    #expect(result.code == 3 && result.error.contains("no TASK/test.jsonl"), "\(result.error)")
  }
}
