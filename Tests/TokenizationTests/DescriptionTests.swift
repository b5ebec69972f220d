import Checkpoints
import Testing

@testable import Tokenization

@Suite struct DescriptionTests {
  private let alphabet = (0...255).map { ByteAlphabet.encode([UInt8($0)]) }

  private func metadata(
    _ tokens: [String] = [], types: [Int]? = nil, merges: [String] = [], pre: String = "gpt-2", begin: Int? = nil, end: Int? = nil,
    addsBegin: Bool? = nil
  ) throws -> Tokenizer {
    try Tokenizer(
      TokenizerDescription(
        source: "m.gguf", tokens: alphabet + tokens.map { Array($0.utf8) }, types: types.map { [Int](repeating: 1, count: 256) + $0 },
        merges: merges.map { Array($0.utf8) }, pre: pre, beginToken: begin, endToken: end, addsBeginToken: addsBegin))
  }

  /// What a GGUF file of the same tokenizer would say gives the same ids.
  @Test(arguments: [("smollm", "smollm"), ("llama3", "llama-bpe"), ("qwen2", "qwen2")])
  func metadataMakeTheSameTokenizer(name: String, pre: String) throws {
    let fixture = try Fixture(name)
    let description = try TokenizerDescription(contentsOf: "\(Fixture.folder)/\(name)/tokenizer.json")
    var tokens = fixture.tokenizer.spellings.map { $0 ?? [] }
    var types = tokens.map { _ in 1 }
    for token in description.addedTokens { types[Int(token.id)] = token.isSpecial ? 3 : 4 }
    tokens.append(Array("unused".utf8))
    types.append(5)
    let other = try Tokenizer(
      TokenizerDescription(
        source: "m.gguf", tokens: tokens, types: types, merges: description.merges.map { $0.left + [0x20] + $0.right }, pre: pre))
    for item in fixture.cases {
      #expect(other.encode(item.text) == item.ids)
      #expect(other.encode(item.text, parsingControlTokens: true) == item.parsed)
    }
  }

  /// A tokenizer written as `tokenizer.json` gives the same ids, whether it came from such a file or from a GGUF file's metadata.
  @Test(arguments: ["smollm", "llama3", "qwen2", "llama2-json", "unigram"]) func aWrittenTokenizerIsTheSame(name: String) throws {
    let fixture = try Fixture(name)
    let description = try TokenizerDescription(contentsOf: "\(Fixture.folder)/\(name)/tokenizer.json")
    let json = try JSON(parsing: description.json().serialized(), file: "written")
    let written = try TokenizerDescription(json, file: "written")
    #expect(written.addsBeginToken == description.addsBeginToken && written.beginToken == description.beginToken)
    let tokenizer = try Tokenizer(written)
    for item in fixture.cases {
      #expect(tokenizer.encode(item.text) == item.ids)
      #expect(tokenizer.encode(item.text, parsingControlTokens: true) == item.parsed)
    }
  }

  @Test func controlTokensAreTextUnlessAskedForAndUsersTokensNever() throws {
    let tokenizer = try metadata(["<a>", "<b>", "xy"], types: [3, 4, 5], begin: 256, end: 256, addsBegin: true)
    #expect(tokenizer.encode("<a><b>", parsingControlTokens: true) == [256, 257])
    #expect(tokenizer.encode("<a><b>") == [60, 97, 62, 257])
    #expect(tokenizer.encode("xy") == [120, 121])
    #expect(tokenizer.idToToken(258) == nil)
    #expect(tokenizer.vocabularySize == 258)
    #expect((tokenizer.beginToken, tokenizer.endToken) == (256, 256))
    #expect(tokenizer.addsBeginToken)
  }

  @Test func whatMetadataMayNotSayIsNamed() {
    func key(_ body: () throws -> Tokenizer) -> String? {
      do {
        _ = try body()
        return nil
      } catch let error as CheckpointError {
        guard case .key(let name) = error.place else { return nil }
        return error.file == "m.gguf" ? name : nil
      } catch {
        return nil
      }
    }
    #expect(key { try metadata(pre: "nobodys") } == "tokenizer.ggml.pre")
    #expect(key { try metadata(["x"], types: []) } == "tokenizer.ggml.token_type")
    #expect(key { try metadata(["<0x00>"], types: [6]) } == "tokenizer.ggml.token_type")
    #expect(key { try metadata(merges: ["a"]) } == "tokenizer.ggml.merges")
    #expect(key { try metadata(merges: ["a b c"]) } == "tokenizer.ggml.merges")
    #expect(key { try metadata(begin: 256) } == "tokenizer.ggml.bos_token_id")
    #expect(key { try metadata(end: -1) } == "tokenizer.ggml.eos_token_id")
    #expect(key { try metadata(addsBegin: true) } == "tokenizer.ggml.add_bos_token")
    #expect(key { try metadata(merges: ["a b"]) } == "merges")
    #expect(key { try metadata(["ab"], merges: ["a b", "a b"]) } == "merges")
    #expect(key { try metadata(["a"]) } == "vocab")
    #expect(key { try metadata(["<a>", "<a>"], types: [3, 3]) } == "added_tokens")
  }

  @Test func theAlphabetIsTheReferences() {
    #expect(ByteAlphabet.encode([0x20, 0x0A, 0x41, 0xAD, 0xFF, 0x00, 0x7F]) == Array("ĠĊAŃÿĀġ".utf8))
    for byte in UInt8.min ... .max { #expect(ByteAlphabet.decode(ByteAlphabet.encode([byte])) == [byte]) }
    #expect(ByteAlphabet.decode(Array("<｜x｜>".utf8)) == Array("<｜x｜>".utf8))
  }
}
