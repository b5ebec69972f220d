import Checkpoints
import Foundation
import Testing

@testable import Tokenization

/// What the files beside a tokenizer say, against transformers' `AutoTokenizer` (`Fixtures/tokenizers/folders.json`).
@Suite struct FolderTests {
  private func folder(_ base: String, _ files: [(key: String, value: JSON)]) throws -> String {
    let path = FileManager.default.temporaryDirectory.path + "/mixlora-tokenizer-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    for name in ["tokenizer.json", "tokenizer.model"] {
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
      let path = try folder(try #require(item["base"]?.stringValue), files.members.map { ($0.key, $0.value) })
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

  @Test func aFolderWithoutTokenizerIsNamed() throws {
    let path = try folder("none", [])
    defer { try? FileManager.default.removeItem(atPath: path) }
    #expect { try Tokenizer(folder: path) } throws: { ($0 as? CheckpointError)?.file == path + "/tokenizer.json" }
  }
}
