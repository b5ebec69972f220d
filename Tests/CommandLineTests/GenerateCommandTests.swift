import Checkpoints
import Foundation
import TestModels
import Testing

@Suite struct GenerateCommandTests {
  /// A golden model with a tokenizer, and its adapter.
  private struct Talker {
    let scratch: Scratch
    let model: URL
    let adapter: URL

    init(hasChat: Bool = true) throws {
      scratch = try Scratch()
      let golden = try scratch.golden("topk")
      (model, adapter) = (golden.appending(path: "model"), golden.appending(path: "adapter"))
      try Data(TalkingModel.json(hasChat: hasChat).utf8).write(to: model.appending(path: "tokenizer.json"))
    }

    func run(_ command: String, _ arguments: String..., input: String? = nil) throws -> Program.Result {
      try Program.run([command, "--model", model.path] + arguments, input: input)
    }

    func lines(_ arguments: [String]) throws -> [JSON] {
      let result = try Program.run(["generate", "--model", model.path, "--json"] + arguments)
      try #require(result.code == 0 && result.error.isEmpty, "\(result.error)")
      return try result.output.split(separator: "\n").map { try JSON(parsing: String($0), file: "output") }
    }
  }

  @Test func eachPromptHasALineOfItsOwnInOrder() throws {
    let talker = try Talker()
    let arguments = ["--adapter", talker.adapter.path, "--max-tokens", "9", "--temperature", "2", "--seed", "5"]
    let prompts = ["Is it so?", "a", "--dashes"]
    let lines = try talker.lines(arguments + prompts.flatMap { ["--prompt", $0] })
    #expect(lines.map { $0["prompt"]?.stringValue } == prompts)
    for (line, prompt) in zip(lines, prompts) {
      #expect(line.objectValue?.keys.sorted() == ["ids", "prompt", "stop", "text"])
      let ids = try #require(line["ids"]?.arrayValue)
      #expect(ids.count <= 9 && ["end", "length"].contains(line["stop"]?.stringValue))
      let decoded = try Program.run(
        ["tokenize", "--model", talker.model.path, "--decode"], input: "[\(JSON.array(ids).serialized())]")
      #expect(try JSON(parsing: decoded.output, file: "output") == .array([try #require(line["text"])]))
      #expect(try talker.lines(arguments + ["--prompt", prompt]) == [line])
    }
    #expect(lines[0] != lines[1])
    #expect(try talker.lines(arguments.dropLast() + ["6", "--prompt", prompts[0]]) != [lines[0]])
    #expect(try talker.lines(Array(arguments[2...]) + ["--prompt", prompts[0]]) != [lines[0]], "the adapter changes nothing")
  }

  @Test func textsComeWholeAndInOrderWhenPiped() throws {
    let talker = try Talker()
    let lines = try talker.lines(["--max-tokens", "6", "--prompt", "So", "--prompt", "Is it"])
    let result = try talker.run("generate", "--max-tokens", "6", "--prompt", "So", "--prompt", "Is it")
    #expect(result.output == lines.compactMap { $0["text"]?.stringValue }.map { $0 + "\n" }.joined())
    #expect(result.error.isEmpty)
  }

  @Test func aStopTextCutsIt() throws {
    let talker = try Talker()
    let arguments = ["--max-tokens", "12", "--prompt", "So"]
    let text = try #require(try talker.lines(arguments)[0]["text"]?.stringValue)
    let stop = String(Array(text)[5..<8])
    let line = try talker.lines(arguments + ["--stop", stop])[0]
    let before = try #require(text.firstRange(of: stop)).lowerBound
    #expect(line["stop"] == "text" && line["text"]?.stringValue == String(text[..<before]))
  }

  /// config.json may name several tokens; each ends a text.
  @Test func everyEndTokenOfTheModelsFilesEnds() throws {
    let talker = try Talker()
    let ids = try #require(try talker.lines(["--max-tokens", "8", "--prompt", "So"])[0]["ids"]?.arrayValue).compactMap(\.intValue)
    try #require(ids.count > 3)
    try talker.scratch.edit(talker.model.appending(path: "config.json"), "\"eos_token_id\": 2", "\"eos_token_id\": [2, \(ids[3])]")
    let line = try talker.lines(["--max-tokens", "8", "--prompt", "So"])[0]
    #expect(line["stop"] == "end")
    let first = try #require(ids.firstIndex(of: ids[3]))
    #expect(line["ids"]?.arrayValue?.compactMap(\.intValue) == Array(ids[..<first]))
  }

  @Test func aConversationKeepsWhatWasSaid() throws {
    let talker = try Talker()
    let both = try talker.run("chat", "--max-tokens", "5", input: "Hello\n\nSo\n")
    let first = try talker.run("chat", "--max-tokens", "5", input: "Hello\n")
    let alone = try talker.run("chat", "--max-tokens", "5", input: "So\n")
    let answer = try talker.lines(["--chat", "--max-tokens", "5", "--prompt", "Hello"])[0]["text"]?.stringValue
    #expect(both.code == 0 && both.error.isEmpty, "\(both.error)")
    #expect(first.output == (answer ?? "") + "\n")
    #expect(both.output.hasPrefix(first.output) && both.output.count > first.output.count)
    #expect(both.output != first.output + alone.output)
  }

  /// A template of one's own and the words of its system turn, against the text that they make.
  @Test func aConversationIsLaidOutAsAskedFor() throws {
    let talker = try Talker()
    let file = talker.scratch.url.appending(path: "own.jinja")
    let source = "{% for m in messages %}{{ m.role }} {{ m.content }}.{% endfor %}{% if add_generation_prompt %}A {% endif %}"
    try source.write(to: file, atomically: true, encoding: .utf8)
    let own = ["--template", file.path, "--system", "be kind", "--max-tokens", "6"]
    let wanted = try talker.lines(["--max-tokens", "6", "--prompt", "system be kind.user So.A "])[0]
    let answer = try talker.lines(own + ["--chat", "--prompt", "So"])[0]
    #expect(answer["ids"] == wanted["ids"] && answer["text"] == wanted["text"])
    let talk = try Program.run(["chat", "--model", talker.model.path] + own, input: "So\n")
    #expect(talk.code == 0 && talk.error.isEmpty && talk.output == (wanted["text"]?.stringValue ?? "") + "\n", "\(talk)")

    func chat(_ arguments: String...) throws -> JSON { try talker.lines(["--chat", "--prompt", "So", "--max-tokens", "6"] + arguments)[0] }
    #expect(try chat("--template", "chatml") == chat())
    #expect(try chat("--system", "be kind") != chat())
    for option in [["--system", "be kind"], ["--template", "chatml"]] {
      let alone = try Program.run(["generate", "--model", talker.model.path, "--prompt", "So"] + option)
      #expect(alone.code == 2 && alone.error.contains(option[0] + " goes with --chat"), "\(alone.error)")
    }
    for command in [["generate", "--chat", "--prompt", "So"], ["chat"]] {
      let missing = try Program.run(command + ["--model", talker.model.path, "--template", "/nowhere.jinja"], input: "So\n")
      #expect(missing.code == 3 && missing.error.contains("/nowhere.jinja"), "\(missing.error)")
      try "{{ raise_exception('no ' + messages[0].content) }}".write(to: file, atomically: true, encoding: .utf8)
      let refused = try Program.run(command + ["--model", talker.model.path] + own, input: "So\n")
      #expect(refused.code == 3 && refused.error.contains("no be kind") && refused.output.isEmpty, "\(refused)")
    }
  }

  /// What a model's files say in vain is said by every command that opens it.
  @Test func keysThatMeanNothingAreSaid() throws {
    let talker = try Talker()
    try talker.scratch.edit(talker.model.appending(path: "config.json"), "\"eos_token_id\": 2", "\"eos_token_id\": 2, \"mystery\": 3")
    let data = talker.scratch.url.appending(path: "data.jsonl")
    try #"{"prompt":"a","completion":"b"}"#.write(to: data, atomically: true, encoding: .utf8)
    let commands = [
      ["generate", "--prompt", "a", "--max-tokens", "1", "--quiet"], ["chat", "--quiet"], ["evaluate", "--data", data.path, "--json"],
      ["train", "--data", data.path, "--out", talker.scratch.url.path + "/run", "--dry-run"],
    ]
    for command in commands {
      let result = try Program.run(command + ["--model", talker.model.path])
      #expect(
        result.code == 0 && result.error.contains("note: ") && result.error.contains("ignored: mystery"), "\(command): \(result.error)")
    }
  }

  @Test func aConversationThatIsTooLongIsNamed() throws {
    let result = try Talker().run("chat", input: String(repeating: "Hello ", count: 20) + "\n")
    #expect(result.code == 2 && result.error.contains("at most 64"), "\(result.error)")
  }

  @Test func thereIsNoMoreRoomThanTheModelHas() throws {
    let talker = try Talker()
    let line = try talker.lines(["--max-tokens", "1000", "--prompt", "So it is"])[0]
    let count = try #require(line["ids"]?.arrayValue).count
    #expect(line["stop"] == "end" ? count < 57 : count == 57, "\(count)")  // 8 tokens in 64 positions, and one that needs none
    let long = try talker.run("generate", "--prompt", "a", "--prompt", String(repeating: "a", count: 65))
    #expect(long.code == 2 && long.error.contains("--prompt 2 has 65 tokens") && long.error.contains("64"), "\(long.error)")
  }

  /// A table of positions is made for no more than can be, whatever the options and the file say.
  @Test(arguments: ["", "\"max_position_embeddings\": 1000000000000000,"])
  func howLongATextMayBeHasALimit(_ line: String) throws {
    let talker = try Talker()
    let first = try #require(try talker.lines(["--max-tokens", "1", "--prompt", "So"])[0]["text"]?.stringValue)
    try talker.scratch.edit(talker.model.appending(path: "config.json"), "\"max_position_embeddings\": 64,", line)
    let result = try talker.lines(["--max-tokens", "9223372036854775807", "--prompt", "So", "--stop", first])
    #expect(result[0]["stop"] == "text")
  }

  @Test func whatCannotBeContinuedIsNamed() throws {
    let talker = try Talker()
    let empty = try talker.run("generate", "--prompt", "")
    #expect(empty.code == 2 && empty.error.contains("--prompt 1 is empty"), "\(empty.error)")
    let adapter = try talker.run("generate", "--prompt", "a", "--adapter", "/nowhere")
    #expect(adapter.code == 3 && adapter.error.contains("/nowhere"), "\(adapter.error)")
    let plain = try Talker(hasChat: false)
    for command in [["generate", "--chat", "--prompt", "a"], ["chat"]] {
      let result = try Program.run(command + ["--model", plain.model.path])
      #expect(result.code == 3 && result.error.contains("<|im_start|>"), "\(result.error)")
    }
    try plain.scratch.edit(plain.model.appending(path: "tokenizer.json"), #""Ċ":60"#, #""Ċ":61"#)
    let large = try plain.run("generate", "--prompt", "a\n")
    #expect(large.code == 3 && large.error.contains("61") && large.error.contains("vocabulary"), "\(large.error)")
  }

  @Test(arguments: [
    (["--max-tokens", "0"], "--max-tokens is 0"), (["--temperature=-1"], "--temperature is -1"), (["--top-k=-1"], "--top-k is -1"),
    (["--top-p", "0"], "--top-p is 0"), (["--top-p", "1.5"], "--top-p is 1.5"), (["--stop", ""], "--stop is empty"),
    (["--temperature", "nan"], "--temperature is nan"),
  ])
  func whatCannotBeAskedIsAUsageError(_ extra: [String], _ part: String) throws {
    for command in [["generate", "--prompt", "a"], ["chat"]] {
      let result = try Program.run(command + ["--model", "m"] + extra)
      #expect(result.code == 2 && result.error.contains(part), "\(result.error)")
    }
    #expect(try Program.run(["generate", "--model", "m"]).code == 2)
  }
}
