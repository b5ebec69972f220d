import Testing

@testable import Tokenization

@Suite struct DecodingTests {
  @Test(arguments: Fixture.names) func brokenUTF8IsReplacedAsInTheReference(name: String) throws {
    let fixture = try Fixture(name)
    for item in fixture.decoded { #expect(Array(fixture.tokenizer.decodeText(item.ids).utf8) == item.text, "\(item.ids)") }
  }

  @Test(arguments: Fixture.names) func aStreamGivesTheSameTextAndOnlyWholeCharacters(name: String) throws {
    let fixture = try Fixture(name)
    for ids in fixture.decoded.map(\.ids) + fixture.cases.map(\.ids) {
      var stream = fixture.tokenizer.streamingDecoder()
      var text = ids.map { stream.text(after: $0) }.joined()
      text += stream.finish()
      #expect(text.utf8.elementsEqual(fixture.tokenizer.decodeText(ids).utf8), "\(ids)")
    }
  }

  @Test func anIncompleteCharacterIsHeldBack() throws {
    let tokenizer = try Fixture("qwen2").tokenizer
    let bytes = Array("\u{1F600}".utf8).map { tokenizer.encode([$0])[0] }
    var stream = tokenizer.streamingDecoder()
    let pieces = bytes.map { stream.text(after: $0) }
    #expect(pieces == ["", "", "", "\u{1F600}"])
    let rest = stream.finish()
    #expect(rest == "")
    let broken = [
      stream.text(after: bytes[0]), stream.text(after: tokenizer.encode("a")[0]), stream.text(after: bytes[0]), stream.finish(),
    ]
    #expect(broken == ["", "\u{FFFD}a", "", "\u{FFFD}"])
  }

  @Test func anIdWithoutTokenStandsForNothing() throws {
    let tokenizer = try Fixture("qwen2").tokenizer
    #expect(tokenizer.idToToken(-1) == nil && tokenizer.idToToken(Int32(tokenizer.vocabularySize)) == nil)
    #expect(tokenizer.decode([-1, Int32.max, tokenizer.encode("a")[0]]) == Array("a".utf8))
    #expect(tokenizer.idToToken(tokenizer.encode(" ")[0]) == "Ġ")
  }
}
