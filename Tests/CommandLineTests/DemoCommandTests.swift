import Checkpoints
import Foundation
import Testing

/// The demo as a newcomer's first command, with few steps.
@Suite struct DemoCommandTests {
  @Test func everythingComesFromTheProgramAlone() throws {
    let scratch = try Scratch()
    let result = try Program.run(["demo", "--steps", "2", "--json"], in: scratch.url)
    #expect(result.code == 0 && result.error.isEmpty, "\(result.error)")
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 1)
    let json = try JSON(parsing: String(lines.last ?? ""), file: "output")
    #expect(json.objectValue?.keys == ["tasks", "trainable_parameters", "seconds", "files"])

    let tasks = try #require(json["tasks"]?.objectValue)
    #expect(tasks.keys == ["close", "descend", "minus", "previous", "rotate", "swap"])
    for accuracies in tasks.members.map(\.value) {
      #expect(accuracies.objectValue?.keys == ["base", "lora", "mixlora"])
      for share in accuracies.objectValue?.members ?? [] { #expect((0...1).contains(share.value.doubleValue ?? .nan)) }
      #expect(accuracies["base"]?.doubleValue == 0, "the base model was never taught these")
    }
    let lora = try #require(json["trainable_parameters"]?["lora"]?.doubleValue)
    let mixlora = try #require(json["trainable_parameters"]?["mixlora"]?.doubleValue)
    #expect(mixlora > 0 && abs(lora / mixlora - 1) < 0.02)
    let files = try #require(json["files"]?.arrayValue).compactMap(\.stringValue)
    #expect(files.count >= 10 && files.allSatisfy { $0.hasPrefix("/") && FileManager.default.fileExists(atPath: $0) })
    let page = try String(contentsOf: scratch.url.appending(path: "mixlora-demo/report.html"), encoding: .utf8)
    #expect(page.components(separatedBy: "<svg").count == 4 && !page.contains("NaN") && !page.contains("http://localhost"))

    // What it leaves is a model and adapters like any other; the base knows what it was trained on.
    let base = scratch.url.path + "/mixlora-demo/base"
    let questions = ["reverse: k d a p ->", "upper: b o a ->", "length: i r a h a ->"]
    let answers = try Program.run(["generate", "--model", base, "--json"] + questions.flatMap { ["--prompt", $0] })
    let texts = try answers.output.split(separator: "\n").map { try JSON(parsing: String($0), file: "output")["text"]?.stringValue }
    #expect(texts == [" p a d k", " B O A", " 5"], "\(answers.error)")

    // A second demo takes another name and leaves the first alone.
    let second = try Program.run(["demo", "--steps", "1"], in: scratch.url)
    #expect(second.code == 0 && second.output.contains("mixlora-demo-2/report.html"), "\(second.error)")
    #expect(!second.output.contains("\u{1b}"), "colors belong to terminals")
  }

  @Test func aFolderInUseAndNoStepsAreUsageErrors() throws {
    let scratch = try Scratch()
    try Data("mine".utf8).write(to: scratch.url.appending(path: "file"))
    let used = try Program.run(["demo", "--out", scratch.url.path])
    #expect(used.code == 2 && used.error.contains("--out") && used.error.contains("not empty"))
    #expect(try Program.run(["demo", "--steps", "0"], in: scratch.url).code == 2)
  }

  #if os(Linux)
    @Test func aFolderThatCannotBeMadeIsTheSystemsFailure() throws {
      let result = try Program.run(["demo", "--steps", "1"], in: URL(filePath: "/sys"))
      #expect(result.code == 5 && result.error.contains("mixlora-demo"), "\(result.error)")
    }
  #endif
}
