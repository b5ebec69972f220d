import Checkpoints
import Testing

@testable import Tokenization

/// Tokenizers of characters: byte fallback, unigram, `tokenizer.model`.
@Suite struct SentencePieceTests {
  /// One word of 100 kB, which a quadratic merger would take minutes for.
  @Test func aTextWithoutBlanksIsQuick() throws {
    let text = [UInt8](String(repeating: "router\u{e9}", count: 12_500).utf8)
    for name in ["llama2", "unigram"] {
      let tokenizer = try Fixture(name).tokenizer
      let clock = ContinuousClock()
      var ids: [Int32] = []
      let time = clock.measure { ids = tokenizer.encode(text) }
      #expect(tokenizer.decode(ids) == text)
      #expect(time < .seconds(10))
    }
    #expect(try scored().encode(text).count > 1000)
  }

  // MARK: Scores

  /// A vocabulary as llama.cpp has it: pieces with scores, bytes, control tokens.
  private func scored(prefix: Bool = true, _ more: [(String, Double, Int)] = []) throws -> Tokenizer {
    var tokens: [(String, Double, Int)] = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    tokens += (0...255).map { (String(decoding: ByteToken.spelling(of: UInt8($0)), as: UTF8.self), 0, 6) }
    tokens += [("\u{2581}", -10, 1), ("a", -11, 1), ("b", -12, 1), ("ab", -1, 1), ("\u{2581}a", -2, 1), ("ba", -1, 1), ("  ", 0, 4)] + more
    return try Tokenizer(
      TokenizerDescription(
        source: "m.gguf", tokens: tokens.map { Array($0.0.utf8) }, types: tokens.map(\.2), scores: tokens.map(\.1), addsPrefixSpace: prefix)
    )
  }

  @Test func theGreatestScoreIsMergedFirstAndOfEqualOnesTheLeftmost() throws {
    let tokenizer = try scored()
    #expect(tokenizer.encode("ab").map { tokenizer.idToToken($0) } == ["\u{2581}", "ab"])
    #expect(tokenizer.encode("aba").map { tokenizer.idToToken($0) } == ["\u{2581}", "ab", "a"])
    #expect(tokenizer.encode("a").map { tokenizer.idToToken($0) } == ["\u{2581}a"])
    #expect(tokenizer.encode("\u{e9}").map { tokenizer.idToToken($0) } == ["\u{2581}", "<0xC3>", "<0xA9>"])
    #expect(tokenizer.beginToken == 1 && tokenizer.addsBeginToken && tokenizer.endTokens == [2])
    #expect(tokenizer.encode("<s>", parsingControlTokens: true) == [1])
    #expect(tokenizer.encode("<s>") != [1])
    // A blank is put before every part, those behind added tokens too.
    #expect(tokenizer.encode("a  a").map { tokenizer.idToToken($0) } == ["\u{2581}a", "  ", "\u{2581}a"])
    #expect(try scored(prefix: false).encode("ab").count == 1)
    #expect(tokenizer.decodeText(tokenizer.encode("ab \u{e9}\u{1F600}")) == "ab \u{e9}\u{1F600}")
    #expect(tokenizer.decodeText([3 + 0xC3, 3 + 0x0A]) == "\u{FFFD}\n")
  }

  @Test func charactersThatAreNoTokensMayBecomeOne() throws {
    let tokenizer = try scored([("\u{4E2D}\u{6587}", -3, 1)])
    #expect(tokenizer.encode("\u{4E2D}\u{6587}").map { tokenizer.idToToken($0) } == ["\u{2581}", "\u{4E2D}\u{6587}"])
  }

  @Test func ofOverlappingAddedTokensALongerOneIsFound() {
    let text = Array("aabcd".utf8)
    let tokens = ["aab", "abcd"].enumerated().map { AddedToken(id: Int32($0), content: Array($1.utf8), isSpecial: false) }
    func found(_ prefersLonger: Bool) -> [Int32?] {
      var ids: [Int32?] = []
      text.withUnsafeBufferPointer { bytes in
        AddedTokenMatcher(tokens, prefersLonger: prefersLonger).parts(of: bytes, 0..<text.count, parsingControlTokens: true) {
          ids.append($0.id)
        }
      }
      return ids
    }
    #expect(found(true) == [nil, 1])
    #expect(found(false) == [0, nil])
  }

  // MARK: Decoding

  @Test func bytesInARowAreHeldBackUntilTheyAreCertain() throws {
    let tokenizer = try Fixture("llama2").tokenizer
    let first = tokenizer.encode("a")
    func byte(_ byte: UInt8) throws -> Int32 {
      try #require(tokenizer.spellings.firstIndex { $0 == ByteToken.spelling(of: byte) }.map(Int32.init))
    }
    let (newline, odd) = (try byte(0x0A), try byte(0x80))
    var stream = tokenizer.streamingDecoder()
    let pieces = (first + [newline, odd] + first).map { stream.text(after: $0) }
    #expect(pieces.joined() == tokenizer.decodeText(first + [newline, odd] + first))
    #expect(tokenizer.decodeText([newline, odd]) == "\u{FFFD}\u{FFFD}")
    #expect(tokenizer.decodeText([newline]) == "\n")
    var other = tokenizer.streamingDecoder(stops: ["\n"])
    _ = first.map { other.text(after: $0) }
    #expect(other.text(after: newline) == "" && other.tokensBeforeStop == nil)
    #expect(other.finish() == "" && other.tokensBeforeStop == first.count)
  }

  // MARK: Hostile files

  private func model(_ name: String) throws -> [UInt8] {
    let file = try MappedFile(path: "\(Fixture.folder)/\(name)/tokenizer.model")
    return try file.bytes(in: 0..<file.size)
  }

  private func open(_ bytes: [UInt8]) throws -> Tokenizer {
    try Tokenizer(TokenizerDescription(SentencePieceModel(bytes, file: "m"), file: "m", .init()))
  }

  /// A model that is cut off is an error, or, at the end of a field, a smaller model.
  @Test func aTruncatedModelNeverTraps() throws {
    let bytes = try model("llama2")
    var readable = 0
    for length in stride(from: 0, to: bytes.count, by: 7) {
      do {
        _ = try SentencePieceModel(Array(bytes[..<length]), file: "m")
        readable += 1
      } catch let error as CheckpointError { #expect(error.file == "m") }
    }
    #expect(readable > 0 && readable < bytes.count / 7)
  }

  @Test func aBitOfAModelNeverTraps() throws {
    let bytes = try model("llama2")
    var readable = 0
    for bit in stride(from: 0, to: 8 * bytes.count, by: 131) {
      var damaged = bytes
      damaged[bit / 8] ^= 1 << (bit % 8)
      do {
        let tokenizer = try open(damaged)
        _ = tokenizer.decodeText(tokenizer.encode("the other 12 \u{e9}"))
        readable += 1
      } catch is CheckpointError {}
    }
    #expect(readable > 0)
  }

  @Test func hugeNumbersAndLyingSizesAreErrors() {
    let piece: [UInt8] = [0x0A, 0x05, 0x0A, 0x03, 0x61, 0x62, 0x63]
    #expect(throws: Never.self) { try SentencePieceModel(piece, file: "m") }
    let bad: [[UInt8]] = [
      [], [0x0A], [0x0A, 0x06, 0x0A, 0x03, 0x61, 0x62, 0x63],  // longer than the file
      [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],  // 2^63 bytes
      [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],  // 2^64 − 1 bytes
      [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],  // a number without end
      [0x0A, 0x05, 0x0A, 0x05, 0x61, 0x62, 0x63],  // a text longer than its piece
      [0x0A, 0x02, 0x0A, 0x00],  // an empty text
      [0x0A, 0x04, 0x0A, 0x02, 0xC3, 0x28],  // no UTF-8
      [0x0A, 0x02, 0x0B, 0x00], [0x07], [0x00, 0x00],  // a group, an unknown type, field 0
      [0x0A, 0x07, 0x0A, 0x03, 0x61, 0x62, 0x63, 0x18, 0x09],  // a type that there is not
      [0x0A, 0x0A, 0x0A, 0x03, 0x61, 0x62, 0x63, 0x15, 0x00, 0x00, 0xC0, 0x7F],  // a score that is no number
      piece + [0x12, 0x02, 0x18, 0x09],  // an algorithm that there is not
    ]
    for bytes in bad { #expect(throws: CheckpointError.self, "\(bytes)") { try SentencePieceModel(bytes, file: "m") } }
    // Words and characters are algorithms that are not built.
    #expect(throws: CheckpointError.self) { try open(piece + [0x12, 0x02, 0x18, 0x03]) }
    // A message inside of itself is bytes: nothing is followed.
    #expect(throws: Never.self) { try SentencePieceModel(piece + [0x22, 0x04, 0x22, 0x02, 0x22, 0x00], file: "m") }
  }
}
