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
}
