import Testing

@testable import Tokenization

@Suite struct StopTextTests {
  /// The pieces of a stream of the tokens of `texts`, each encoded by itself; the last piece is that of `finish`.
  private func stream(_ texts: [String], stops: [String]) throws -> (pieces: [String], kept: Int?, tokens: Int) {
    let tokenizer = try Fixture("qwen2").tokenizer
    let ids = texts.flatMap { $0.utf8.flatMap { tokenizer.encode([$0]) } }  // a token a byte
    var decoder = tokenizer.streamingDecoder(stops: stops)
    let pieces = ids.map { decoder.text(after: $0) }
    return (pieces + [decoder.finish()], decoder.tokensBeforeStop, ids.count)
  }

  @Test func aStopTextOverSeveralTokensNeverShows() throws {
    let (pieces, kept, _) = try stream(["one STOP two"], stops: ["STOP"])
    #expect(pieces.joined() == "one " && kept == 4)
    #expect(Array(pieces[..<4]) == ["o", "n", "e", " "])
  }

  @Test func whatOnlyBeganLikeAStopTextComesLater() throws {
    let (pieces, kept, _) = try stream(["STSTOq"], stops: ["STOP", "TOX"])
    #expect(pieces == ["", "", "ST", "", "", "STOq", ""] && kept == nil)
  }

  @Test func whatIsHeldAtTheEndComesAtTheEnd() throws {
    let (pieces, kept, _) = try stream(["a STO"], stops: ["STOP"])
    #expect(pieces == ["a", " ", "", "", "", "STO"] && kept == nil)
  }

  @Test func theStopTextThatBeginsFirstCuts() throws {
    #expect(try stream(["xabcd"], stops: ["bc", "abc"]).pieces.joined() == "x")  // both are whole at once
  }

  @Test func aStopTextOfCharactersOfSeveralBytesIsFoundAmongThem() throws {
    let (pieces, kept, _) = try stream(["né\u{1F600}é"], stops: ["\u{1F600}"])
    #expect(pieces.joined() == "né" && kept == 3)
    #expect(try stream(["né\u{1F601}"], stops: ["\u{1F600}"]).pieces.joined() == "né\u{1F601}")
  }

  @Test func aTokenThatTheStopTextBeginsInIsKept() throws {
    let tokenizer = try Fixture("qwen2").tokenizer
    let text = " the other"
    let ids = tokenizer.encode(text)
    for end in 1...text.utf8.count {  // the stop text is the rest from every place on
      let stop = String(decoding: Array(text.utf8)[(end - 1)...], as: UTF8.self)
      var decoder = tokenizer.streamingDecoder(stops: [stop])
      var shown = ids.map { decoder.text(after: $0) }.joined()
      shown += decoder.finish()
      let before = try #require(text.firstRange(of: stop)).lowerBound
      #expect(shown == String(text[..<before]))
      let kept = try #require(decoder.tokensBeforeStop)
      #expect(tokenizer.decodeText(ids.prefix(kept)).hasPrefix(shown))
      if kept > 0 { #expect(tokenizer.decodeText(ids.prefix(kept - 1)).utf8.count < shown.utf8.count) }
    }
  }
}
