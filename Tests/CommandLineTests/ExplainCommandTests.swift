import Checkpoints
import Foundation
import Testing
import Traces

/// `mixlora explain` as its users run it.
@Suite struct ExplainCommandTests {
  private func golden(_ name: String) -> [String] {
    let folder = URL(filePath: #filePath).deletingLastPathComponent().path + "/../../Fixtures/golden/" + name
    return ["--model", folder + "/model", "--adapter", folder + "/adapter", "--batch", folder + "/batch.safetensors"]
  }

  /// What the page has as JSON.
  private func run(of page: String) throws -> JSON {
    let text = try String(contentsOfFile: page, encoding: .utf8)
    let begin = try #require(text.range(of: "id=\"run\">"))
    let end = try #require(text.range(of: "</script>", range: begin.upperBound..<text.endIndex))
    return try JSON(parsing: Array(text[begin.upperBound..<end.lowerBound].utf8), file: page)
  }

  @Test func withoutFilesItShowsTheDemosModel() throws {
    let scratch = try Scratch()
    let arguments = ["explain", "--out", "explain.html", "--steps", "3", "--json"]
    let result = try Program.run(arguments, in: scratch.url)
    #expect(result.code == 0 && result.error.isEmpty, "\(result.error)")
    let (page, report) = (scratch.url.path + "/explain.html", try JSON(parsing: Array(result.output.utf8), file: "output"))
    let bytes = try Data(contentsOf: URL(filePath: page))
    #expect(bytes.count <= 5_000_000 && report["bytes"]?.intValue == bytes.count)
    // All that runs is there; what is left out are weights of layers in between, and what a step makes of them.
    let left = try #require(report["left_out"]?.arrayValue)
    for part in left {
      #expect(["frozen weights", "moments and values after a step"].contains(part["part"]?.stringValue), "\(part)")
      #expect(part["part"]?.stringValue != "frozen weights" || [1, 2].contains(part["layer"]?.intValue), "\(part)")
    }
    let run = try run(of: page)
    #expect(run["training"]?["steps"]?.intValue == 3 && run["training"]?["load"]?.arrayValue?.count == 3)
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path) == ["explain.html"])
    #expect(try Program.run(arguments, in: scratch.url).code == 0)
    #expect(try Data(contentsOf: URL(filePath: page)) == bytes, "the same command gave another page")
  }

  /// The page names a command, as a shell reads it, that gives the same page.
  @Test func itsCommandGivesThePageAgain() throws {
    let scratch = try Scratch()
    let page = scratch.url.path + "/it's.html"
    let result = try Program.run(
      ["explain", "--out", "it's.html", "--prompt", "swap: k d ->", "--answer", " d k", "--steps", "1", "--layers", "1", "--size", "3M"],
      in: scratch.url)
    #expect(result.code == 0, "\(result.error)")
    let bytes = try Data(contentsOf: URL(filePath: page))
    let command = try #require(run(of: page)["command"]?.stringValue)
    #expect(command.hasPrefix("mixlora explain "))
    try FileManager.default.removeItem(atPath: page)
    let again = try Program.run(
      ["-c", "\"$0\"\(command.dropFirst("mixlora".count))", Program.url.path], in: scratch.url, program: "/bin/sh")
    #expect(again.code == 0, "\(command): \(again.error)")
    #expect(try Data(contentsOf: URL(filePath: page)) == bytes, "\(command) gave another page")
  }

  /// The page of a batch has what a trace of it has: here by the program's own file.
  @Test func itsNumbersAreThoseOfATrace() throws {
    let scratch = try Scratch()
    let (page, file) = (scratch.url.path + "/p.html", scratch.url.path + "/trace.safetensors")
    #expect(try Program.run(["explain", "--out", page] + golden("left-padding")).code == 0)
    let traced = try Program.run(["trace", "--out", file, "--backward", "--activations", "--steps", "1"] + golden("left-padding"))
    #expect(traced.code == 0, "\(traced.error)")
    let trace = try TraceFile(path: file)
    let run = try run(of: page)
    let text = try String(contentsOfFile: page, encoding: .utf8)
    let begin = try #require(text.range(of: "id=\"numbers\">")).upperBound
    let points = try #require(run["points"]?.arrayValue).compactMap(\.arrayValue)
    #expect(points.map { $0[0].stringValue } == trace.names)
    for point in points {
      let (name, place) = (try #require(point[0].stringValue), try #require(point.last?.intValue, "\(point[0]) is not there"))
      let values = try trace.values(of: name, in: 0..<(trace.shape(of: name) ?? []).reduce(1, *))
      let from = text.utf8.index(begin, offsetBy: place)
      let data = try #require(Data(base64Encoded: String(text[from..<text.utf8.index(from, offsetBy: (4 * values.count + 2) / 3 * 4)])))
      let bits = data.withUnsafeBytes { bytes in values.indices.map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) } }
      #expect(bits == values.map { Float($0).bitPattern }, "\(name)")
    }
  }

  @Test(arguments: [
    ([], "--out"), (["--out", "p.html", "--adapter", "a"], "--model"), (["--out", "p.html", "--batch", "b"], "--model"),
    (["--out", "p.html", "--model", "m"], "--prompt"), (["--out", "p.html", "--model", "m", "--prompt", "a", "--batch", "b"], "--batch"),
    (["--out", "p.html", "--model", "m", "--prompt", "a", "--steps", "3"], "--steps"), (["--out", "p.html", "--answer", "a"], "--prompt"),
    (["--out", "p.html", "--steps", "0"], "--steps"), (["--out", "p.html", "--size", "5X"], "5X"),
    (["--out", "p.html", "--size", "0"], "0"),
    (["--out", "p.html", "--layers", "0,x"], "0,x"), (["--out", "p.html", "--steps", "1", "--layers", "0,4"], "4"),
    (["--out", "p.html", "--steps", "1", "--size", "10K"], "10000"), (["--out", "p.html", "--steps", "1", "--size", "90K"], "90000"),
    // Before anything is opened or trained.
    (["--out", "p.html", "--model", "/nowhere", "--prompt", "a", "--size", "10K"], "10000"),
    (["--out", "p.html", "--steps", "1", "--prompt", ""], "--prompt"),
    (["--out", "p.html", "--steps", "1", "--prompt", "swap:", "--answer", ""], "--answer"),
    (["--out", "p.html", "--model", "m", "--adapter", "a", "--adapter", "b", "--prompt", "c"], "--adapter"),
  ]) func whatDoesNotFitIsAUsageErrorThatNamesIt(_ arguments: [String], _ part: String) throws {
    let scratch = try Scratch()
    let result = try Program.run(["explain"] + arguments, in: scratch.url)
    #expect(result.code == 2 && result.error.contains(part), "\(result.code): \(result.error)")
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).isEmpty)
  }

  @Test func whatIsNotThereIsAnErrorOfInput() throws {
    let scratch = try Scratch()
    let missing = try Program.run(["explain", "--out", "p.html", "--model", "/nowhere", "--prompt", "a"], in: scratch.url)
    #expect(missing.code == 3 && missing.error.contains("/nowhere"), "\(missing.error)")
    let folder = try scratch.golden("topk").path
    let over = try Program.run(
      ["explain", "--out", folder + "/model/config.json", "--model", folder + "/model", "--batch", folder + "/batch.safetensors"])
    #expect(over.code == 2 && over.error.contains("--model"), "\(over.error)")
    let tokenizer = try Program.run(["explain", "--out", "p.html", "--model", folder + "/model", "--prompt", "a"], in: scratch.url)
    #expect(tokenizer.code == 3 && tokenizer.error.contains("tokenizer"), "\(tokenizer.error)")
  }

  /// The headless browser that this machine has, if it has one.
  static let browser = ["chromium", "google-chrome", "chromium-browser"].lazy.map { "/usr/bin/" + $0 }
    .first { FileManager.default.isExecutableFile(atPath: $0) }

  /// The page's own scripts, in a browser: every kind of number is what its terms give.
  @Test(.enabled(if: browser != nil, "no browser here"), arguments: ["topk", "left-padding"])
  func inABrowserEveryNumberIsWhatItsTermsGive(_ name: String) throws {
    let scratch = try Scratch()
    let page = scratch.url.path + "/p.html"
    #expect(try Program.run(["explain", "--out", page] + golden(name)).code == 0)
    let shown = try Program.run(
      [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--user-data-dir=\(scratch.url.path)/profile", "--dump-dom",
        "file://\(page)#check",
      ],
      program: Self.browser)
    let verdict = try #require(shown.output.firstMatch(of: /id="verdict"[^>]*>([^<]*)</), "the page did not check itself").1
    #expect(verdict.hasPrefix("✓") && (Int(verdict.split(separator: " ")[1]) ?? 0) > 3000, "\(verdict)")
  }
}
