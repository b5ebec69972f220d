import Checkpoints
import HostileCases
import Testing

@testable import Tokenization

/// The small tokenizers of `Fixtures/tokenizers` with the ids that `tokenizers` 0.20.3 gives.
struct Fixture {
  struct Case {
    let text: [UInt8]
    let ids: [Int32]
    let parsed: [Int32]
  }

  static let names = ["gpt2-prefix", "smollm", "llama3", "qwen2", "added"] + characters
  /// Those whose model knows characters: SentencePiece's kind.
  static let characters = ["llama2", "llama2-json", "gemma", "unigram", "unigram-plain"]
  static let folder = HostileCases.folder + "/../tokenizers"

  let tokenizer: Tokenizer
  let cases: [Case]
  /// Ids in any order with the text they give.
  let decoded: [(ids: [Int32], text: [UInt8])]

  init(_ name: String) throws {
    let file = "\(Self.folder)/\(name)/tokenizer.json"
    tokenizer = try MappedFile.isRegularFile(file) ? Tokenizer(contentsOf: file) : Tokenizer(folder: "\(Self.folder)/\(name)")
    let json = try JSON(contentsOf: "\(Self.folder)/\(name)/expected.json")
    func ids(_ json: JSON?) throws -> [Int32] { try #require(json?.arrayValue).map { Int32(try #require($0.intValue)) } }
    func text(_ json: JSON) throws -> [UInt8] { Array(try #require(json["text"]?.stringValue).utf8) }
    cases = try #require(json["strings"]?.arrayValue).map {
      Case(text: try text($0), ids: try ids($0["ids"]), parsed: try ids($0["parsed"] ?? $0["ids"]))
    }
    decoded = try #require(json["decoded"]?.arrayValue).map { (try ids($0["ids"]), try text($0)) }
  }
}
