import Checkpoints
import Foundation
import Testing

@Suite struct TokenizeCommandTests {
  private func run(_ tokenizer: String, _ input: String?, _ extra: String...) throws -> Program.Result {
    try Program.run(["tokenize", "--model", Scratch.tokenizer(tokenizer)] + extra, input: input)
  }

  @Test(arguments: ["gpt2-prefix", "smollm", "llama3", "qwen2", "added"])
  func stringsBecomeTheReferencesIdsAndTextAgain(_ name: String) throws {
    let expected = try JSON(contentsOf: Scratch.tokenizer(name) + "/expected.json")
    let cases = try #require(expected["strings"]?.arrayValue)
    let texts = JSON.array(cases.compactMap { $0["text"] }).serialized()
    let ids = try run(name, texts)
    #expect(ids.code == 0 && ids.error.isEmpty, "\(ids.error)")
    #expect(try JSON(parsing: ids.output, file: "output") == .array(cases.compactMap { $0["ids"] }))
    let parsed = try run(name, texts, "--parse-special")
    #expect(try JSON(parsing: parsed.output, file: "output") == .array(cases.compactMap { $0["parsed"] ?? $0["ids"] }))

    let decoded = try #require(expected["decoded"]?.arrayValue)
    let back = try run(name, JSON.array(decoded.compactMap { $0["ids"] }).serialized(), "--decode")
    #expect(try JSON(parsing: back.output, file: "output") == .array(decoded.compactMap { $0["text"] }))
  }

  @Test func controlTokensAreTextUnlessAskedFor() throws {
    let parsed = try run("qwen2", #"["<|im_start|>user"]"#, "--parse-special").output
    let plain = try run("qwen2", #"["<|im_start|>user"]"#).output
    #expect(parsed != plain)
    for ids in [parsed, plain] { #expect(try run("qwen2", ids, "--decode").output == "[\"<|im_start|>user\"]\n") }
  }

  /// The model of a published report, whose template refuses nothing; and a folder with a template that raises an error.
  @Test func conversationsAreLaidOutByTheModelsTemplate() throws {
    let folder = Scratch.tokenizer("../reports/default-system-turn-of-chat-template")
    func chat(_ input: String, _ extra: String...) throws -> Program.Result {
      try Program.run(["tokenize", "--model", folder, "--chat"] + extra, input: input)
    }
    let hi = #"[[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]]"#
    let rendered = try chat(hi, "--render")
    let text = "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    #expect(try rendered.code == 0 && JSON(parsing: rendered.output, file: "output") == [JSON(text)], "\(rendered)")
    let prompt = try chat(#"[[{"role":"user","content":"hi"}],[]]"#, "--render", "--generation-prompt")
    #expect(prompt.output.contains(#"hi<|im_end|>\n<|im_start|>assistant\n""#), "\(prompt)")
    let ids = [
      1, 85, 91, 270, 299, 201, 68, 71, 223, 77, 266, 70, 2, 201, 1, 87, 85, 259, 201, 74, 75, 2, 201, 1, 294, 75, 270, 289, 86, 201,
      260, 261, 81, 2, 201,
    ]
    #expect(try JSON(parsing: chat(hi).output, file: "output") == [.array(ids.map { JSON($0) })])
    #expect(try chat("[[3]]").code == 3)
    let scratch = try Scratch()
    let template = scratch.url.appending(path: "template.jinja")
    try "{{ raise_exception('no ' + messages[0].role) }}".write(to: template, atomically: true, encoding: .utf8)
    let refused = try chat(hi, "--template", template.path)
    #expect(refused.code == 3 && refused.error.contains("no user") && refused.output.isEmpty, "\(refused)")
  }

  @Test func nothingGivesNothing() throws {
    #expect(try run("llama3", "[]").output == "[]\n")
    #expect(try run("llama3", #"["", ""]"#).output == "[[],[]]\n")
    #expect(try run("llama3", "[[]]", "--decode").output == "[\"\"]\n")
  }

  @Test(arguments: [
    ("", "the end of the text"), ("{}", "a JSON array of strings"), (#"["a", 1]"#, "[1]"), ("[[1]]", "an array of 1"),
    (#"["\ud800"]"#, "surrogate"), ("no JSON", "expected null"),
  ])
  func inputThatIsNoArrayOfStringsIsNamed(_ input: String, _ part: String) throws {
    let result = try run("llama3", input)
    #expect(result.code == 3)
    #expect(result.output.isEmpty)
    #expect(result.error.contains("standard input") && result.error.contains(part), "\(result.error)")
  }

  @Test(arguments: [("[[100000]]", "100000"), ("[[-1]]", "-1"), ("[[1.0]]", "1.0"), (#"["a"]"#, "arrays of ids"), ("[1]", "arrays of ids")])
  func idsThatAreNoneAreNamed(_ input: String, _ part: String) throws {
    let result = try run("llama3", input, "--decode")
    #expect(result.code == 3)
    #expect(result.error.contains(part), "\(result.error)")
  }

  @Test func aFolderWithoutTokenizerIsAnErrorAndTwoModesAreAUsageError() throws {
    let scratch = try Scratch()
    let result = try Program.run(["tokenize", "--model", scratch.url.path], input: "[]")
    #expect(result.code == 3)
    #expect(result.error.contains("tokenizer.json"))
    #expect(try run("llama3", "[]", "--decode", "--parse-special").code == 2)
  }

  /// The files beside tokenizer.json name tokens; an id that is none is an error, a name that is none a token more.
  @Test func whatTheFilesBesideATokenizerName() throws {
    let scratch = try Scratch()
    let folder = scratch.url.appending(path: "model")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try FileManager.default.copyItem(atPath: Scratch.tokenizer("qwen2") + "/tokenizer.json", toPath: folder.path + "/tokenizer.json")
    func write(_ name: String, _ text: String) throws { try Data(text.utf8).write(to: folder.appending(path: name)) }
    try write("config.json", #"{"eos_token_id": [899, 2], "bos_token_id": null}"#)
    #expect(try Program.run(["tokenize", "--model", folder.path], input: "[]").code == 0)
    try write("config.json", #"{"eos_token_id": 99999}"#)
    let wrong = try Program.run(["tokenize", "--model", folder.path], input: "[]")
    #expect(wrong.code == 3 && wrong.error.contains("eos_token_id") && wrong.error.contains("99999"), "\(wrong.error)")
    try write("tokenizer_config.json", #"{"eos_token": {"content": "<|im_end|>"}}"#)
    #expect(try Program.run(["tokenize", "--model", folder.path], input: "[]").code == 0)
    try write("tokenizer_config.json", #"{"eos_token": "</s>"}"#)
    let more = try Program.run(["tokenize", "--model", folder.path, "--parse-special"], input: #"["</s>"]"#)
    #expect(more.code == 0 && more.output.hasPrefix("[[9"), "\(more.output)")
    try write("tokenizer_config.json", #"{"tokenizer_class": "NobodysTokenizer"}"#)
    let unknown = try Program.run(["tokenize", "--model", folder.path], input: "[]")
    #expect(unknown.code == 3 && unknown.error.contains("NobodysTokenizer"), "\(unknown.error)")
  }
}
