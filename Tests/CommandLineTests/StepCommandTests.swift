import Checkpoints
import Foundation
import Testing
import Traces

/// `mixlora step` as scripts use it.
@Suite struct StepCommandTests {
  private func golden(_ name: String) -> [String] {
    let folder = URL(filePath: #filePath).deletingLastPathComponent().path + "/../../Fixtures/golden/" + name
    return ["--model", folder + "/model", "--adapter", folder + "/adapter", "--batch", folder + "/batch.safetensors"]
  }

  /// A script's output.
  private func output(_ arguments: [String], _ script: String) throws -> [String] {
    let result = try Program.run(["step"] + arguments + ["--script", "-"], input: script)
    #expect(result.code == 0 && result.error.isEmpty, "\(result.error)")
    return result.output.split(separator: "\n").map(String.init)
  }

  @Test func itsNumbersAreThoseOfATrace() throws {
    let scratch = try Scratch()
    let file = scratch.url.path + "/trace.safetensors"
    let traced = try Program.run(
      ["trace"] + golden("left-padding") + [
        "--out", file, "--backward", "--activations", "--steps", "1", "--lr", "0.01", "--dtype", "float64",
      ])
    #expect(traced.code == 0, "\(traced.error)")
    let trace = try TraceFile(path: file)
    var script = ""
    var expected: [String] = []
    for name in trace.names {
      let (shape, values) = (try #require(trace.shape(of: name)), try trace.values(of: name))
      guard let value = values.last else { continue }
      let element = "\(name)[\(shape.map { "\($0 - 1)" }.joined(separator: ","))]"
      script += "print \(element)\n"
      expected.append("\(element) = \(value)")
    }
    #expect(expected.count > 300)
    #expect(try output(golden("left-padding") + ["--lr", "0.01"], script) == expected)
    let listed = try output(golden("left-padding"), "list")
    #expect(listed.map { String($0.split(separator: " ")[0]) } == trace.names)
  }

  /// The demo's model, which lies in the program: nothing is read from where it runs, and nothing is left there.
  @Test func withoutAModelItWalksThroughTheDemos() throws {
    let scratch = try Scratch()
    let script = "# a lesson\nwhere\nnext 3\n\nwhy [0,1,2]\nwhy loss\nout\nnext\nback\ninto\ngoto logits\ndiff\nhelp\nquit\nnonsense\n"
    let runs = try (0..<2).map { _ in try Program.run(["step", "--script", "-"], in: scratch.url, input: script) }
    #expect(runs[0].code == 0 && runs[0].error.isEmpty, "\(runs[0].error)")
    #expect(runs[0].output == runs[1].output)
    #expect(runs[0].output.hasPrefix("[1/"))
    #expect(runs[0].output.contains("\nloss[0] = "))
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).isEmpty)
    let file = scratch.url.appending(path: "lesson.txt")
    try script.write(to: file, atomically: true, encoding: .utf8)
    #expect(try Program.run(["step", "--script", file.path]).output == runs[0].output)
  }

  @Test(arguments: [
    ("where\nnxt", "line 2", "nxt"), ("print nowhere[0,0]", "line 1", "nowhere"),
    ("next\n\nwhy model.norm.output[9,9,9]", "line 3", "9,9,9"),
    ("patch loss[0] 1", "line 1", "loss"),
  ])
  func whatAScriptCannotDoIsAUsageErrorWithItsLine(_ script: String, _ line: String, _ part: String) throws {
    let result = try Program.run(["step", "--script", "-"], input: script)
    #expect(result.code == 2)
    #expect(result.error.contains(line) && result.error.contains(part), "\(result.error)")
  }

  @Test func aModelNeedsItsBatchAndAScriptItsFile() throws {
    #expect(try Program.run(["step", "--batch", "x"]).code == 2)
    #expect(try Program.run(["step", "--model", "x"]).code == 2)
    let missing = try Program.run(["step", "--script", "/nowhere/script"])
    #expect(missing.code == 3 && missing.error.contains("/nowhere/script"), "\(missing.error)")
  }

  @Test func withoutLabelsThereIsTheWayForward() throws {
    let scratch = try Scratch()
    let batch = scratch.url.path + "/batch.safetensors"
    try SafetensorsWriter.write(to: batch, entries: [TensorEntry(name: "input_ids", elementType: .int64, shape: [1, 3])]) { _, emit in
      try [Int64(3), 4, 5].withUnsafeBytes { try emit($0) }
    }
    var arguments = golden("topk")
    arguments[5] = batch
    let lines = try output(arguments, "list\nwhy logits[0,2,7]")
    #expect(lines.contains { $0.contains("lm_head.output") } && !lines.contains { $0.contains("grad.") })
  }

  @Test func aPatchIsFollowed() throws {
    let lines = try output(golden("topk"), "patch model.norm.output[0,1,2] 3\ndiff\nprint model.norm.output[0,1,2]\nunpatch\ndiff")
    #expect(lines[0].hasPrefix("model.norm.output[0,1,2]: ") && lines[0].contains("→ 3.0"))
    #expect(lines[1].hasPrefix("model.norm.output[0,1,2]  ") && lines[2].hasPrefix("lm_head.output["))
    #expect(lines.contains("model.norm.output[0,1,2] = 3.0") && lines.last == "Nothing differs.")
  }

  /// A walk shows where it begins, so a number that is none is no error, but it is told.
  @Test func aNumberThatIsNotFiniteIsTold() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    let file = folder.appending(path: "model/model.safetensors")
    var bytes = try Data(contentsOf: file)
    bytes.replaceSubrange(bytes.count - 4..<bytes.count, with: [0, 0, 0xC0, 0x7F])  // the last of model.norm.weight
    try bytes.write(to: file)
    let result = try Program.run(
      ["step", "--model", folder.path + "/model", "--adapter", folder.path + "/adapter", "--batch", folder.path + "/batch.safetensors"]
        + ["--script", "-"], input: "why loss\n")
    #expect(result.code == 0 && result.output.hasPrefix("loss[0] = nan") && !result.output.contains("-nan"), "\(result.output)")
    #expect(result.error == "note: model.norm.output is the first tensor with a value that is not finite\n")
  }

  /// What is wrong with a batch is said with its file and tensor before anything runs.
  @Test(arguments: [
    ("input_ids", [4], [Int64(1), 2, 3, 4], "(B, T)"), ("input_ids", [0, 4], [], "at least one row"),
    ("input_ids", [1, 2], [3, 1000], "1000"), ("input_ids", [1, 2], [3, -1], "-1"), ("labels", [1, 2], [3, 4], "input_ids"),
  ])
  func aBatchThatDoesNotFitIsAnErrorOfInput(_ tensor: String, _ shape: [Int], _ values: [Int64], _ part: String) throws {
    let scratch = try Scratch()
    let batch = scratch.url.path + "/batch.safetensors"
    var entries = [try TensorEntry(name: tensor, elementType: .int64, shape: shape)]
    if tensor != "input_ids" { entries.append(try TensorEntry(name: "input_ids", elementType: .int64, shape: [2, 2])) }
    try SafetensorsWriter.write(to: batch, entries: entries) { entry, emit in
      try (entry.name == tensor ? values : [1, 2, 3, 4]).withUnsafeBytes { try emit($0) }
    }
    var arguments = golden("topk")
    arguments[5] = batch
    let result = try Program.run(["step"] + arguments + ["--script", "-"], input: "where")
    #expect(result.code == 3 && result.output.isEmpty)
    #expect(result.error.contains(batch) && result.error.contains(tensor) && result.error.contains(part), "\(result.error)")
  }
}
