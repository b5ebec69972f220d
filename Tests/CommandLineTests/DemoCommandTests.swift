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
      for share in accuracies.objectValue?.members ?? [] {
        let accuracy = try #require(share.value.doubleValue)
        #expect((0...1).contains(accuracy) && abs(accuracy * 200 - (accuracy * 200).rounded()) < 1e-9, "\(accuracy) of 200 questions")
      }
      #expect(accuracies["base"]?.doubleValue == 0, "the base model was never taught these")
    }
    #expect(try #require(json["seconds"]?.doubleValue) > 0 && json["seconds"]?.doubleValue?.isFinite == true)

    // As many parameters as its settings say: rank 21, or 8 experts of rank 4 and their router, over four blocks.
    let folder = scratch.url.path + "/mixlora-demo"
    let (c, f) = (128, 288)
    let attention = 2 * (c + c) + 2 * (c + 64)
    let configured = [
      "lora": 4 * 21 * (attention + 3 * (c + f)), "mixlora": 4 * (4 * attention + 8 * 4 * 3 * (c + f) + 8 * c),
    ]
    let page = try String(contentsOfFile: folder + "/report.html", encoding: .utf8)
    for (method, count) in configured {
      #expect(json["trainable_parameters"]?[method]?.intValue == count, "\(method)")
      #expect(try Safetensors(path: "\(folder)/\(method)/adapter_model.safetensors").entries.reduce(0) { $0 + $1.elementCount } == count)
      #expect(page.contains("\(count)"), "\(method)")
      let metrics = try String(contentsOfFile: "\(folder)/\(method)/metrics.jsonl", encoding: .utf8).split(separator: "\n")
      #expect(metrics.count == 2)
      for line in metrics {
        let loss = try #require(try JSON(parsing: String(line), file: "metrics")["loss"]?.doubleValue)
        #expect(loss > 0 && loss.isFinite, "\(method): \(line)")
      }
    }
    #expect(abs(Double(configured["lora"] ?? 0) / Double(configured["mixlora"] ?? 0) - 1) < 0.02)

    let files = try #require(json["files"]?.arrayValue).compactMap(\.stringValue)
    let ofMethod = ["adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "loss.svg", "experts.svg"]
    let names =
      ["report.html", "base", "data/train.jsonl", "data/test.jsonl"] + ofMethod.map { "lora/\($0)" } + ofMethod.map { "mixlora/\($0)" }
      + ["accuracy.svg", "loss.svg", "experts.svg"]
    #expect(files.map { String($0.split(separator: "/mixlora-demo/").last ?? "") }.filter { !$0.isEmpty } == names)
    #expect(files.allSatisfy { $0.hasPrefix("/") && FileManager.default.fileExists(atPath: $0) })
    for task in tasks.keys { #expect(page.contains(">\(task)<"), "\(task)") }
    #expect(page.components(separatedBy: "<tr><td").count == 1 + tasks.keys.count, "a row of answers a task")
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
