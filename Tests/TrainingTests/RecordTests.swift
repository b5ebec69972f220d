import Checkpoints
import Foundation
import Samples
import TestModels
import Testing
import Tokenization

/// What is read of files of records, and what of it is said.
@Suite struct RecordTests {
  /// A text in a file of its own, which goes with it.
  private final class File {
    let path = FileManager.default.temporaryDirectory.appending(path: "mixlora-" + UUID().uuidString + ".jsonl").path

    init(_ text: String) throws { try AtomicFile.write(text, to: path) }

    deinit { try? FileManager.default.removeItem(atPath: path) }
  }

  private func samples(_ text: String, _ template: PromptTemplate = .moePEFT) throws -> (samples: [TextSample], notes: [String]) {
    let file = try File(text)
    var notes: [String] = []
    let samples = try TrainingData.samples(file.path, template: template) { notes.append($0.description) }
    return (samples, notes)
  }

  private func text(_ sample: TextSample) -> String { String(decoding: sample.text, as: UTF8.self) }

  private func answers(_ sample: TextSample) -> [String] { sample.answers.map { String(decoding: sample.text[$0], as: UTF8.self) } }

  private func error(_ text: String) throws -> CheckpointError {
    let file = try File(text)
    return try #require(throws: CheckpointError.self) { try TrainingData.samples(file.path, template: .moePEFT) }
  }

  private static let expected = try? JSON(contentsOf: Fixture.path("records/expected.json"))
  private static let files = (expected?["files"]?.objectValue?.members ?? []).map(\.key)

  /// Byte order marks, CR LF, empty lines, arrays, one object over several lines, nulls, records of several kinds; tables are refused.
  @Test(arguments: files)
  func theRecordsOfAFileAreThoseOfDatasets(_ name: String) throws {
    let expected = try #require(Self.expected?["files"]?[name])
    let path = Fixture.path("records/" + name)
    guard let records = expected.arrayValue else {
      let error = try #require(throws: CheckpointError.self) { try TrainingData.samples(path, template: .moePEFT) }
      #expect(error.description.contains(name))
      return
    }
    let samples = try TrainingData.samples(path, template: .moePEFT)
    #expect(samples.count == records.count && !records.isEmpty)
    for (sample, record) in zip(samples, records) {
      func value(_ key: String) -> String? { record[key]?.stringValue }
      let prompt =
        value("instruction").map { PromptTemplate.moePEFT.prompt(instruction: $0, input: value("input")) } ?? value("prompt") ?? ""
      let answer = try #require(value("output") ?? value("completion") ?? value("text"))
      #expect(text(sample) == prompt + answer && answers(sample) == [answer])
    }
  }

  @Test func theFilesOfTheReferenceAreThere() { #expect(Self.files.count >= 14) }

  @Test(arguments: [
    ("prompt\tcompletion\na\tb\n", "tab-separated text"), ("prompt,completion\na,b\n", "comma-separated text"),
    ("PAR1\u{15}\u{4}", "a Parquet file"), ("instruction: a\n", #"text that begins with "instruction: a""#),
  ])
  func whatIsNoJSONIsCalledWhatItIs(_ text: String, _ kind: String) throws {
    let error = try error(text)
    #expect(error.found == kind && error.expected.contains("JSON Lines") && error.expected.contains("to_json"))
  }

  @Test func aListInsideOfAnObjectIsNamed() throws {
    let error = try error(#"{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}"#)
    #expect(error.found == #"an object with a list of 2 objects under "data""# && error.expected.contains("write it alone into a file"))
    #expect(try self.error(#"{"id": 1, "conversations": "x"}"#).found == #"an object with "id", "conversations""#)
    #expect(try self.error("{}").found == "an empty object")
    #expect(try self.error("[1]").description.contains("element 1: found 1; expected an object"))
    #expect(try self.error(#"{"text":"a"}"# + "\n[]\n").description.contains("line 2"))
    #expect(try self.error(#"{"text":"a"}"# + "\n{\n").description.contains("line 2, byte 1"))
    #expect(try self.error(" \n").found == "no record")
  }

  // MARK: Instructions

  @Test func systemAndHistoryStandBeforeThePromptInTheSameTemplate() throws {
    let record = #"{"system":"Be kind.","history":[["Hi","Ho"],["1+1?","2"]],"instruction":"Add.","input":"1 2","output":"3"}"#
    let plain = try samples(record).samples[0]
    #expect(
      text(plain) == "Be kind.\n### Instruction:\nHi\n\n### Output:\nHo\n### Instruction:\n1+1?\n\n### Output:\n2\n"
        + "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Output:\n3")
    #expect(answers(plain) == ["3"])
    let alpaca = try samples(record, .alpaca).samples[0]
    let prompts = [("Hi", nil), ("1+1?", nil), ("Add.", "1 2")].map { PromptTemplate.alpaca.prompt(instruction: $0, input: $1) }
    #expect(text(alpaca) == "Be kind.\n\(prompts[0])Ho\n\(prompts[1])2\n\(prompts[2])3" && answers(alpaca) == ["3"])
    let chat = try samples(record, .chatML).samples[0]
    let turns = [
      ("system", "Be kind."), ("user", "Hi"), ("assistant", "Ho"), ("user", "1+1?"), ("assistant", "2"), ("user", "Add.\n\n1 2"),
    ]
    #expect(chat.conversation?.messages == (turns + [("assistant", "3")]).map { ChatMessage(role: $0, content: $1) })
    #expect(chat.conversation?.learning == [6] && chat.conversation?.leavingOut == [])
  }

  @Test func anEmptySystemTextOrHistoryIsNone() throws {
    let bare = try samples(#"{"instruction":"Add.","output":"3"}"#).samples[0]
    for extra in [#""system":"","history":[]"#, #""system":null,"history":null"#, #""input":"""#] {
      #expect(try text(samples(#"{"instruction":"Add.","output":"3",\#(extra)}"#).samples[0]) == text(bare))
    }
  }

  @Test(arguments: [
    (#""output":null"#, "output"), (#""output":3"#, "output"), (#""output":"a","system":["b"]"#, "system"),
    (#""output":"a","history":"b""#, "history"), (#""output":"a","history":[["b"]]"#, "history[0]"),
    (#""output":"a","history":[["b","c"],["b",null]]"#, "history[1]"), (#""output":"a","input":5"#, "input"),
  ])
  func whatIsNoTextIsRefusedByName(_ rest: String, _ key: String) throws {
    let error = try error(#"{"text":"a"}"# + "\n" + #"{"instruction":"b",\#(rest)}"#)
    #expect(error.file.hasSuffix("line 2") && error.place == .key(key), "\(error)")
  }

  // MARK: Messages

  private func conversation(_ weights: [String]) -> String {
    let turns = weights.enumerated().map { #"{"role":"\#($0 % 2 == 0 ? "user" : "assistant")","content":"t\#($0)"\#($1)}"# }
    return #"{"messages":[\#(turns.joined(separator: ","))]}"#
  }

  @Test func aTurnOfWeightZeroIsLeftOut() throws {
    let (samples, notes) = try samples(conversation(["", #","weight":0"#, #","weight":0"#, #","weight":1"#, "", #","weight":null"#]))
    #expect(samples[0].conversation?.learning == [3, 5] && samples[0].conversation?.leavingOut == [1, 2] && notes.isEmpty)
    #expect(try self.samples(conversation(["", #","weight":0"#])).samples[0].conversation?.learning == [])
    for weight in ["0.5", "2", "true", #""1""#] {
      let error = try error(conversation(["", #","weight":\#(weight)"#]))
      #expect(error.place == .key("messages[1].weight") && error.expected.contains("0") && error.file.hasSuffix("line 1"), "\(error)")
    }
    #expect(try error(conversation([""])).found == "no message of the assistant")
  }

  // MARK: Keys

  @Test func keysThatNothingReadsAreListedOnceWithTheirNumbers() throws {
    let lines = [
      #"{"instruction":"a","output":"b","id":1,"text":"both"}"#, #"{"text":"c","id":2,"meta":null}"#, #"{"prompt":"a","completion":"b"}"#,
      #"{"messages":[{"role":"user","content":"a","name":"n","weight":1},{"role":"assistant","content":"b","name":"m"}]}"#,
    ]
    let (samples, notes) = try samples(lines.joined(separator: "\n"))
    #expect(samples.count == 4 && notes.count == 1)
    for part in [#""id" (2)"#, #""text" (1)"#, #""messages[].weight 1 of user" (1)"#] {
      #expect(notes[0].contains(part), "\(notes)")
    }
    #expect(!notes[0].contains("meta"))
    let many = (0..<5000).map { #"{"text":"a","k\#($0)":1}"# }
    let note = try self.samples(many.joined(separator: "\n")).notes[0]
    #expect(note.utf8.count < 400 && note.contains("and 992 more"), "\(note)")
  }
}
