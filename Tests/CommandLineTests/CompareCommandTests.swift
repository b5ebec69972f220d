import Checkpoints
import Conformance
import Foundation
import Testing

/// `mixlora compare` as scripts meet it: exit codes, names, formats.
@Suite struct CompareCommandTests {
  private static let golden = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "Fixtures/golden/topk").path
  private static let model = [
    "--model", golden + "/model", "--adapter", golden + "/adapter", "--batch", golden + "/batch.safetensors",
  ]

  private func summary(_ output: String) throws -> JSON {
    try JSON(parsing: String(try #require(output.split(separator: "\n").last)), file: "summary")
  }

  @Test func pyTorchsResultsAreRight() throws {
    let result = try Program.run(["compare"] + Self.model + [Self.golden + "/expected64.safetensors", "--lr", "0.01", "--json", "--quiet"])
    #expect(result.code == 0, "\(result.error)")
    let last = try summary(result.output)
    #expect(last["verdict"] == "match" && last["compared"]?.intValue ?? 0 > 100)
    #expect(last["first"] == .null && last["causes"] == [])
  }

  @Test func whatIsLeftOutOfTheReportStillIsReadByTheRest() throws {
    let result = try Program.run(
      ["compare"] + Self.model + [Self.golden + "/expected64.safetensors", "--lr", "0.01", "--only", "after.*", "--json", "--quiet"])
    #expect(result.code == 0, "\(result.output.suffix(400))")
    #expect(result.output.split(separator: "\n").dropLast().allSatisfy { $0.contains("\"after.") })
  }

  @Test func aWrongLearningRateIsFoundInTheOptimizer() throws {
    let result = try Program.run(["compare"] + Self.model + [Self.golden + "/expected64.safetensors", "--lr", "0.02", "--json", "--quiet"])
    let last = try summary(result.output)
    #expect(result.code == 1 && last["phase"] == "optimizer", "\(last)")
    #expect(last["first"]?.stringValue?.hasPrefix("after.") == true, "the loss behind the steps only follows")
    #expect(last["cause_details"]?.arrayValue?.first?["text"] == "the learning rate is 0.5 times as large", "\(last["causes"] ?? .null)")
    let verdicts = result.output.split(separator: "\n").filter { $0.contains("\"tensor\":\"loss_curve\"") }
    #expect(verdicts.allSatisfy { $0.contains("\"verdict\":\"propagated\"") } && verdicts.count == 1)
  }

  @Test func aLossBehindStepsAloneSaysThatTheStepsAreInIt() throws {
    let result = try Program.run(
      ["compare"] + Self.model + [Self.golden + "/expected64.safetensors", "--lr", "0.02", "--only", "loss_curve", "--json", "--quiet"])
    let last = try summary(result.output)
    #expect(result.code == 1 && last["first"] == "loss_curve")
    #expect(last["equation"]?.stringValue?.hasPrefix("loss + aux_loss, from the second on behind steps of AdamW: w ← ") == true, "\(last)")
  }

  @Test func twoFilesAreComparedWithoutAModel() throws {
    let file = Self.golden + "/expected64.safetensors"
    let same = try Program.run(["compare", file, file, "--json", "--quiet"])
    #expect(same.code == 0)
    #expect(try summary(same.output)["verdict"] == "match")
    let renamed = try Program.run(["compare", file, file, "--map", "logits=loss", "--json", "--quiet"])
    #expect(renamed.code == 3, "two tensors of one name: \(renamed.error)")
  }

  @Test(arguments: [
    ["compare", "a.safetensors"], ["compare", "a", "b", "c"], ["compare", "--model", "m", "x"], ["compare", "a", "b", "--gen-test", "d"],
    ["compare", "a", "b", "--map", "["], ["compare", "a", "b", "--mode", "near"], ["compare", "a", "b", "--lr", "1"],
  ])
  func whatCannotBeMeantIsAUsageError(_ arguments: [String]) throws {
    let result = try Program.run(arguments)
    #expect(result.code == 2, "\(result.error)")
  }

  @Test func nothingInCommonIsAnError() throws {
    let result = try Program.run(["compare"] + Self.model + [Self.golden + "/model/model.safetensors", "--quiet"])
    #expect(result.code == 3 && result.error.contains("nothing in common"), "\(result.error)")
  }

  @Test func aFilterThatMatchesNothingIsNamed() throws {
    let file = Self.golden + "/expected64.safetensors"
    for arguments in [Self.model + [file], [file, file]] {
      let result = try Program.run(["compare"] + arguments + ["--only", "zzz", "--ignore", "a*", "--quiet"])
      #expect(result.code == 3 && result.error.contains("of 137 tensors under --only 'zzz' --ignore 'a*'"), "\(result.error)")
      #expect(result.error.contains("such as") && result.error.contains("logits"), "\(result.error)")
    }
  }

  @Test func aMeaningThatThereIsNotIsRefusedWithTheNearest() throws {
    let file = Self.golden + "/expected64.safetensors"
    for arguments in [Self.model + [file], [file, file]] {
      let result = try Program.run(["compare"] + arguments + ["--map", "log(its)=log_$1", "--quiet"])
      #expect(result.code == 2, "\(result.error)")
      #expect(result.error.contains("--map 'log(its)=log_$1': logits would be log_its, which no tensor is called"), "\(result.error)")
      #expect(result.error.contains("such as logits,"), "\(result.error)")
    }
  }

  /// An end record alone: what `zipfile` writes without members.
  private static let emptyArchive = Array("PK\u{5}\u{6}".utf8) + [UInt8](repeating: 0, count: 18)

  @Test(arguments: [
    ("empty.npz", emptyArchive, "found no tensors"), ("nothing.npz", [], "found no zip end record in 0 bytes"),
    ("garbage.pt", Array("garbage garbage".utf8), "expected a zip archive as torch.save writes it"),
    ("garbage", Array("garbage garbage".utf8), "expected safetensors, .npz or .npy, or a PyTorch file"),
    ("garbage.safetensors", Array("garbage garbage".utf8), "is this a safetensors file?"),
    ("nothing", [], "found an empty file"),
  ])
  func aFileThatIsNoneIsTold(_ name: String, _ bytes: [UInt8], _ message: String) throws {
    let scratch = try Scratch()
    let file = scratch.url.appending(path: name)
    try Data(bytes).write(to: file)
    let result = try Program.run(["compare"] + Self.model + [file.path, "--quiet"])
    #expect(result.code == 3 && result.error.contains(name) && result.error.contains(message), "\(result.error)")
  }

  @Test(.enabled(if: FileManager.default.fileExists(atPath: "/dev/full")))
  func aReportThatDoesNotArriveIsAnErrorOfTheSystem() throws {
    for rate in ["0.01", "0.02"] {  // a match and a mismatch
      let command = ([Program.url.path, "compare"] + Self.model + [Self.golden + "/expected64.safetensors", "--lr", rate, "--quiet"])
        .map { "'\($0)'" }.joined(separator: " ")
      let result = try Program.run(["-c", command + " > /dev/full"], program: "/bin/sh")
      #expect(result.code == 5 && result.error.contains("standard output"), "\(result.code) \(result.error)")
    }
  }
}
