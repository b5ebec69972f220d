import Checkpoints
import Foundation
import Testing

@testable import Tokenization

/// What the files beside a tokenizer say, against transformers' `AutoTokenizer` (`Fixtures/tokenizers/folders.json`).
@Suite struct FolderTests {
  /// A folder of a base's tokenizer and some files, or with its vocabulary and merges in files of their own, as older folders have them.
  private func folder(_ base: String, _ files: [(key: String, value: JSON)], isOlder: Bool = false) throws -> String {
    let path = FileManager.default.temporaryDirectory.path + "/mixlora-tokenizer-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    if isOlder {
      let model = try #require(try JSON(contentsOf: "\(Fixture.folder)/\(base)/tokenizer.json")["model"])
      let merges = try #require(model["merges"]?.arrayValue).map { merge in
        merge.stringValue ?? (merge.arrayValue ?? []).compactMap(\.stringValue).joined(separator: " ")
      }
      try Data(try #require(model["vocab"]).serialized().utf8).write(to: URL(fileURLWithPath: path + "/vocab.json"))
      try Data((["#version: 0.2"] + merges + [""]).joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: path + "/merges.txt"))
    }
    for name in ["tokenizer.json", "tokenizer.model"] where !isOlder {
      try? FileManager.default.copyItem(atPath: "\(Fixture.folder)/\(base)/\(name)", toPath: "\(path)/\(name)")
    }
    for file in files { try Data(file.value.serialized().utf8).write(to: URL(fileURLWithPath: "\(path)/\(file.key)")) }
    return path
  }

  @Test func theIdsAreThoseOfAutoTokenizer() throws {
    let json = try JSON(contentsOf: Fixture.folder + "/folders.json")
    let texts = try #require(json["texts"]?.arrayValue).compactMap(\.stringValue)
    let cases = try #require(json["cases"]?.arrayValue)
    #expect(cases.count > 50 && texts.count == 5)
    for item in cases {
      let files = try #require(item["files"]?.objectValue)
      let path = try folder(
        try #require(item["base"]?.stringValue), files.members.map { ($0.key, $0.value) }, isOlder: item["older"] == true)
      defer { try? FileManager.default.removeItem(atPath: path) }
      let what = item["files"]?.serialized() ?? ""
      do {
        let tokenizer = try Tokenizer(folder: path)
        #expect(item["error"] == nil, "\(what)")
        for (text, ids) in zip(texts, item["ids"]?.arrayValue ?? []) {
          let begin = tokenizer.addsBeginToken ? [try #require(tokenizer.beginToken)] : []
          let end = tokenizer.addsEndToken ? [try #require(tokenizer.endToken)] : []
          let expected = ids.arrayValue?.compactMap { $0.intValue.flatMap(Int32.init(exactly:)) }
          #expect(begin + tokenizer.encode(text, parsingControlTokens: true) + end == expected, "\(what): \(text)")
        }
      } catch let error as CheckpointError {
        #expect(error.place == .key(item["error"]?.stringValue ?? "none"), "\(what): \(error)")
      }
    }
  }

  @Test func withoutSettingsTheModelsFilesNameTheEnd() throws {
    let config: JSON = ["model_type": "llama", "bos_token_id": 0, "eos_token_id": [1, 2]]
    let path = try folder("smollm", [("config.json", config)])
    defer { try? FileManager.default.removeItem(atPath: path) }
    let tokenizer = try Tokenizer(folder: path)
    #expect(tokenizer.endToken == 1 && tokenizer.endTokens == [1, 2] && tokenizer.beginToken == 0)
    #expect(!tokenizer.addsBeginToken && !tokenizer.addsEndToken)
    let fixture = try Fixture("smollm")
    #expect(tokenizer.vocabularySize == fixture.tokenizer.vocabularySize)
  }

  @Test func vocabularyAndMergesThatAreWrongAreNamed() throws {
    let config: [(key: String, value: JSON)] = [("config.json", ["model_type": "qwen2"])]
    let wrong: [(file: String, text: String, part: String)] = [
      ("merges.txt", "#version: 0.2\na b c\n", "line 2"), ("merges.txt", "a b\nab\n", "line 2"),
      ("merges.txt", "#version: 0.2\n\u{120}zzz q\n", "zzz"),
      ("vocab.json", "[1]", "an object"), ("vocab.json", #"{"a": -1}"#, "-1"), ("vocab.json", "", "vocab.json"),
    ]
    for (file, text, part) in wrong {
      let path = try folder("qwen2", config, isOlder: true)
      defer { try? FileManager.default.removeItem(atPath: path) }
      try Data(text.utf8).write(to: URL(fileURLWithPath: path + "/" + file))
      let error = try #require(throws: CheckpointError.self) { try Tokenizer(folder: path) }
      #expect("\(error)".contains(part), "\(error)")
    }
    let path = try folder("qwen2", config, isOlder: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    try FileManager.default.moveItem(atPath: path + "/merges.txt", toPath: path + "/away")
    #expect { try Tokenizer(folder: path) } throws: { ($0 as? CheckpointError)?.file == path + "/merges.txt" }
    try FileManager.default.moveItem(atPath: path + "/away", toPath: path + "/merges.txt")
    // CR LF, and a class that makes nothing of these files.
    let merges = try String(contentsOfFile: path + "/merges.txt", encoding: .utf8).replacing("\n", with: "\r\n")
    try Data(merges.utf8).write(to: URL(fileURLWithPath: path + "/merges.txt"))
    #expect(try Tokenizer(folder: path).encode("Hello world") == Fixture("qwen2").tokenizer.encode("Hello world"))
    try Data(#"{"model_type": "llama"}"#.utf8).write(to: URL(fileURLWithPath: path + "/config.json"))
    #expect { try Tokenizer(folder: path) } throws: { ($0 as? CheckpointError)?.file == path + "/tokenizer.json" }
  }

  /// A GGUF file without tensors: a key of each pair is a text or a list of texts.
  private func gguf(_ pairs: [(key: String, value: JSON)]) throws -> String {
    func number<N: FixedWidthInteger>(_ value: N) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    func text(_ value: String) -> [UInt8] { number(UInt64(value.utf8.count)) + Array(value.utf8) }
    var bytes = Array("GGUF".utf8) + number(UInt32(3)) + number(UInt64(0)) + number(UInt64(pairs.count))
    for (key, value) in pairs {
      bytes += text("tokenizer.ggml." + key)
      if let list = value.arrayValue {
        bytes += number(UInt32(9)) + number(UInt32(8)) + number(UInt64(list.count)) + list.compactMap(\.stringValue).flatMap(text)
      } else if let string = value.stringValue {
        bytes += number(UInt32(8)) + text(string)
      } else {
        bytes += number(UInt32(7)) + [1]  // true
      }
    }
    let path = FileManager.default.temporaryDirectory.path + "/mixlora-\(UUID().uuidString).gguf"
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    return path
  }

  /// Which words a text is cut into is not known then; llama.cpp's default may be something else than the model was trained with.
  @Test func aGGUFFileThatDoesNotNameItsPreTokenizerIsReadWithANote() throws {
    let vocabulary: [(key: String, value: JSON)] = [("model", "gpt2"), ("tokens", ["a", "1", "aa", "11"]), ("merges", ["a a", "1 1"])]
    for (more, notes) in [([], 1), ([("pre", "default")], 0)] as [([(key: String, value: JSON)], Int)] {
      let path = try gguf(vocabulary + more)
      defer { try? FileManager.default.removeItem(atPath: path) }
      let tokenizer = try Tokenizer(model: path)
      #expect(tokenizer.notes.count == notes && tokenizer.notes.allSatisfy { $0.contains(path) && $0.contains("tokenizer.ggml.pre") })
      #expect(tokenizer.encode("aa1111") == [2, 3, 1, 1])  // three digits at most: two, a pair, and the fourth
    }
    let path = try gguf(vocabulary + [("pre", true)])
    defer { try? FileManager.default.removeItem(atPath: path) }
    #expect { try Tokenizer(model: path) } throws: { "\($0)".contains("tokenizer.ggml.pre") }
  }

  @Test func aFolderWithoutTokenizerIsNamed() throws {
    let path = try folder("none", [])
    defer { try? FileManager.default.removeItem(atPath: path) }
    #expect { try Tokenizer(folder: path) } throws: { ($0 as? CheckpointError)?.file == path + "/tokenizer.json" }
  }
}
