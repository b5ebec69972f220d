import Checkpoints
import Foundation
import Testing

/// What `train` and `evaluate` do with records that are too long, or not as one would think.
@Suite struct RecordCommandTests {
  private func fixture(_ name: String, file: String = #filePath) -> String {
    URL(filePath: file).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path + "/Fixtures/" + name
  }

  /// Runs `train --dry-run` on lines, and gives its last line too.
  private func preview(_ data: String, in folder: URL, _ extra: String...) throws -> (result: Program.Result, report: JSON?) {
    try AtomicFile.write(data, to: folder.path + "/mine.jsonl")
    let result = try Program.run(
      ["train", "--model", fixture("records/model"), "--data", "mine.jsonl", "--out", "run", "--dry-run", "--json", "--quiet"] + extra,
      in: folder)
    return (result, try? JSON(parsing: result.output, file: "output"))
  }

  private let long =
    #"{"prompt":"question: what colour is grass? answer:","completion":" green and the small boat crosses the wide river"}"#
  private let short = #"{"prompt":"the","completion":" boat"}"#

  @Test func whatIsCutAndDroppedIsCountedWhereOneLooks() throws {
    let scratch = try Scratch()
    let data = [long, short, #"{"prompt":"the small boat crosses the wide river at dawn the small boat","completion":"."}"#].joined(
      separator: "\n")
    let (cut, report) = try preview(data, in: scratch.url, "--length", "28")
    #expect(cut.code == 0 && report?["samples"] == 2 && report?["longest"] == 28, "\(cut.error)")
    #expect(report?["samples_cut"] == 1 && report?["samples_dropped"] == 1)
    #expect(cut.error.contains("note: 1 of 3 samples of mine.jsonl have more than --length 28 tokens and were cut to the first 28"))
    #expect(cut.error.contains("note: 1 of 3 samples of mine.jsonl have no token that counts"), "\(cut.error)")
    let text = try Program.run(
      ["train", "--model", fixture("records/model"), "--data", "mine.jsonl", "--out", "run", "--dry-run", "--length", "28"], in: scratch.url
    )
    #expect(text.output.contains("1 cut, 1 dropped"), "\(text.output)")
    let (_, dropped) = try preview(data, in: scratch.url, "--length", "28", "--too-long", "drop")
    #expect(dropped?["samples"] == 1 && dropped?["samples_cut"] == 0 && dropped?["samples_dropped"] == 2)
    let (refused, _) = try preview("\n" + data, in: scratch.url, "--length", "28", "--too-long", "error")
    #expect(refused.code == 3 && refused.error.contains("mine.jsonl, line 2: found a sample of"), "\(refused.error)")
    #expect(try preview(data, in: scratch.url, "--too-long", "warn").result.code == 2)
    #expect(!FileManager.default.fileExists(atPath: scratch.url.path + "/run"))
  }

  /// A published report: 632 tokens of one record under --length 64.
  @Test func lengthHoldsForTextToo() throws {
    let scratch = try Scratch()
    let text = [String](repeating: "the small boat crosses the wide river", count: 30).joined(separator: " ")
    let (result, report) = try preview(#"{"text":"\#(text)"}"#, in: scratch.url, "--length", "64", "--dump-batches", "batches.safetensors")
    #expect(result.code == 0 && report?["tokens"] == 64 && report?["samples_cut"] == 1, "\(result.error)")
    let ids = try Safetensors(path: scratch.url.path + "/batches.safetensors").int64s(of: "step.1.input_ids")
    let cases = try #require(try JSON(contentsOf: fixture("records/expected.json"))["cut"]?.arrayValue)
    let expected = try #require(cases.first { $0["length"] == 64 }?["ids"]?.arrayValue).map { Int64($0.intValue ?? -1) }
    #expect(ids == expected)
  }

  @Test func theRunsLastLineHasTheCountsToo() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let result = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1", "--json", "--length", "15"))
    let report = try JSON(parsing: result.output, file: "output")
    #expect(report["samples_cut"] == 11 && report["samples_dropped"] == 0 && result.error.contains("note: 11 of 11"), "\(result.error)")
    // A setting that a checkpoint has not is the default; another one is a change.
    #expect(try JSON(contentsOf: folder.path + "/run/checkpoint-1/state.json")["settings"]?["too-long"] == nil)
    let other = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1", "--length", "15", "--resume", "--too-long", "error"))
    #expect(other.code == 3 && other.error.contains("data.jsonl, line 1"), "\(other.error)")
  }

  @Test func evaluateDealsWithAFileAlike() throws {
    let scratch = try Scratch()
    try AtomicFile.write([long, short].joined(separator: "\n"), to: scratch.url.path + "/mine.jsonl")
    let arguments = ["evaluate", "--model", fixture("records/model"), "--data", "mine.jsonl", "--json", "--length", "28"]
    let cut = try Program.run(arguments, in: scratch.url)
    let line = try JSON(parsing: cut.output, file: "output")
    #expect(line["samples_cut"] == 1 && line["samples_dropped"] == 0 && cut.error.contains("note: 1 of 2 samples"), "\(cut.error)")
    let dropped = try JSON(parsing: Program.run(arguments + ["--too-long", "drop"], in: scratch.url).output, file: "output")
    #expect(dropped["samples_dropped"] == 1 && dropped["tokens"]?.intValue ?? 0 < line["tokens"]?.intValue ?? 0)
    let refused = try Program.run(arguments + ["--too-long", "error"], in: scratch.url)
    #expect(refused.code == 3 && refused.error.contains("mine.jsonl, line 1"), "\(refused.error)")
  }

  @Test func aQuestionThatIsTooLongForTheModelIsAskedWholeAndCounted() throws {
    let scratch = try Scratch()
    try FileManager.default.createDirectory(atPath: scratch.url.path + "/tasks/boolq", withIntermediateDirectories: true)
    let long = String(repeating: "the small boat crosses the wide river ", count: 20)
    let lines = [long, "is grass green"].map { #"{"question":"\#($0)","passage":"p","answer":true}"# }
    try AtomicFile.write("\u{feff}" + lines.joined(separator: "\n"), to: scratch.url.path + "/tasks/boolq/test.jsonl")
    let result = try Program.run(
      ["evaluate", "--model", fixture("records/model"), "--data", "tasks", "--json", "--quiet"], in: scratch.url)
    let line = try JSON(parsing: result.output, file: "output")
    #expect(result.code == 0 && line["count"] == 2 && line["questions_too_long"] == 1, "\(result.error)")
    let words = "1 of 2 questions of boolq are longer than the 256 positions of the model: they are asked whole and count like the others"
    #expect(result.error.contains("note: " + words), "\(result.error)")
    let text = try Program.run(["evaluate", "--model", fixture("records/model"), "--data", "tasks"], in: scratch.url)
    #expect(text.output.contains("2 questions") && text.output.contains("(1 too long, asked all the same)"), "\(text.output)")
  }

  @Test func aByteOrderMarkIsPassedOverWhereAPersonWrites() throws {
    let scratch = try Scratch()
    let (result, report) = try preview("\u{feff}" + #"{"prompt":"a b","completion":" c"}"# + "\r\n", in: scratch.url)
    #expect(result.code == 0 && report?["samples"] == 1 && result.error.isEmpty, "\(result.error)")
    let settings = "\u{feff}" + #"{"cutoff_len":30,"save_step":null,"train_strategy":"optim","lora":[{"name":"a","r":2,"lora_alpha":4}]}"#
    try AtomicFile.write(settings, to: scratch.url.path + "/moe_peft.json")
    let (configured, cut) = try preview(long, in: scratch.url, "--config", "moe_peft.json")
    #expect(configured.code == 0 && cut?["tokens"] == 30 && cut?["samples_cut"] == 1, "\(configured.error)")
  }

  @Test func whatIsNotReadIsSaid() throws {
    let scratch = try Scratch()
    let (keys, _) = try preview(#"{"text":"a","id":1}"# + "\n" + #"{"text":"b","id":2}"#, in: scratch.url)
    #expect(
      keys.code == 0
        && keys.error == "note: mine.jsonl has keys that nothing reads, with the number of records that have them: \"id\" (2)\n")
    let (table, _) = try preview("prompt\tcompletion\na\tb\n", in: scratch.url)
    #expect(table.code == 3 && table.error.contains("mine.jsonl: found tab-separated text; expected JSON Lines"), "\(table.error)")
    // Without an end token.
    let model = scratch.url.path + "/model"
    try FileManager.default.copyItem(atPath: fixture("records/model"), toPath: model)
    try AtomicFile.write(#"{"tokenizer_class":"PreTrainedTokenizerFast"}"#, to: model + "/tokenizer_config.json")
    try scratch.edit(URL(filePath: model + "/config.json"), "\"eos_token_id\": 0", "\"eos_token_id\": null")
    for (flags, isSaid) in [([], true), (["--no-end-token"], false)] {
      try AtomicFile.write(short, to: scratch.url.path + "/other.jsonl")
      let said = try Program.run(
        ["train", "--model", model, "--data", "other.jsonl", "--out", "run", "--dry-run", "--quiet"] + flags, in: scratch.url)
      #expect(said.code == 0 && said.error.hasPrefix("note: no end token is known: ") == isSaid, "\(said.error)")
    }
  }

  /// The lock goes with the process: what a killed run leaves is free.
  @Test func aSecondRunIsLockedOutOfAFolderUntilTheFirstEnds() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let arguments = TrainingCase.arguments(folder, "run", "--steps", "100000", "--resume")
    let process = Process()
    process.executableURL = Program.url
    process.arguments = arguments
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    defer { kill(process.processIdentifier, SIGKILL) }
    let metrics = folder.path + "/run/metrics.jsonl"
    while process.isRunning, !FileManager.default.fileExists(atPath: metrics) { usleep(2000) }
    let second = try Program.run(arguments)
    #expect(second.code == 3 && second.error.contains(folder.path + "/run: found another run"), "\(second.code) \(second.error)")
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
    let third = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "100000", "--resume", "--dry-run"))
    #expect(third.code == 0, "\(third.error)")
  }
}
