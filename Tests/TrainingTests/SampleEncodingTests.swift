import Checkpoints
import Samples
import TestModels
import Testing
import Tokenization

/// What becomes of texts that have too many tokens, or none that count.
@Suite struct SampleEncodingTests {
  /// A token a byte.
  private struct ByteEncoder: TextEncoder {
    var leadingToken: Int32?
    var endToken: Int32?

    func tokens(of text: [UInt8]) -> [(id: Int32, end: Int)] { text.enumerated().map { (Int32($1), $0 + 1) } }
  }

  private func encode(
    _ texts: [TextSample], _ change: (inout SampleEncoding) -> Void = { _ in }, begin: Int32? = nil, end: Int32? = 256
  ) throws -> (result: EncodedSamples, notes: [String]) {
    var encoding = SampleEncoding()
    change(&encoding)
    var notes: [String] = []
    let encoder = ByteEncoder(leadingToken: begin, endToken: end)
    let result = try encoding.samples(texts, with: encoder, chat: Self.layout(), vocabulary: 300, from: "data.jsonl") {
      notes.append($0.text { "--" + $0.name })
    }
    return (result, notes)
  }

  /// ChatML over a token a character.
  private static func layout() throws -> ChatLayout {
    try ChatLayout(ChatTemplate(ChatML.template, file: "chatml"), TalkingModel.tokenizer())
  }

  private func bytes(_ text: String) -> [Int32] { text.utf8.map { Int32($0) } }

  /// MoE-PEFT's tokens[:cutoff_len], on its own tokens; where nothing is cut ours ends with the end token, which MoE-PEFT does not add.
  @Test func whatIsCutIsWhatMoEPEFTCuts() throws {
    let tokenizer = try Tokenizer(model: Fixture.path("records/model"))
    let cases = try #require(try JSON(contentsOf: Fixture.path("records/expected.json"))["cut"]?.arrayValue)
    #expect(cases.count >= 5)
    for item in cases {
      let (text, length) = (try #require(item["text"]?.stringValue), try #require(item["length"]?.intValue))
      let expected = try #require(item["ids"]?.arrayValue).compactMap { $0.intValue.map { Int32($0) } }
      var encoding = SampleEncoding()
      encoding.length = length
      let record = TextSample(text: Array(text.utf8), answers: [0..<text.utf8.count])
      let result = try encoding.samples([record], with: tokenizer, vocabulary: 300, from: "data.jsonl")
      let isWhole = expected.count < length
      #expect(result.samples[0].ids == expected + (isWhole ? [0] : []) && result.cut == (isWhole ? 0 : 1) && result.dropped == 0)
      #expect(result.samples[0].ids.count <= length && !expected.isEmpty)
    }
  }

  /// A length of 0 is the positions of the model, as MoE-PEFT's cutoff_len of −1; a model that does not say how many takes all.
  @Test func aLengthOfZeroIsThePositionsOfTheModel() throws {
    var encoding = SampleEncoding()
    encoding.length = 0
    try encoding.check()
    let text = TextSample(text: Array(repeating: UInt8(ascii: "a"), count: 600), answers: [0..<600])
    for (positions, count) in [(64, 64), (600, 600), (nil, 601)] as [(Int?, Int)] {
      var notes: [String] = []
      let result = try encoding.samples(
        [text], with: ByteEncoder(leadingToken: nil, endToken: 1), vocabulary: 300, positions: positions, from: "data.jsonl"
      ) { notes.append($0.description) }
      #expect(result.samples[0].ids.count == count && result.cut == (positions == nil ? 0 : 1))
      let words =
        "1 of 1 samples of data.jsonl have more tokens than the \(count) positions of the model and were cut to the first \(count)"
      #expect(notes == (result.cut > 0 ? [words] : []))
    }
    // Nor is it called a length where nothing counts.
    let silent = [TextSample(text: Array(repeating: 97, count: 90), answers: []), text]
    for (positions, words) in [(64, " among the 64 positions of the model"), (nil, "")] as [(Int?, String)] {
      var notes: [String] = []
      _ = try encoding.samples(
        silent, with: ByteEncoder(leadingToken: nil, endToken: nil), vocabulary: 300, positions: positions, from: "data.jsonl"
      ) { notes.append($0.description) }
      #expect(notes.contains("1 of 2 samples of data.jsonl have no token that counts\(words) and were dropped"), "\(notes)")
    }
  }

  /// A published report: of a prompt of 27 tokens and an answer of 31 the first 30 stay, so the question is whole.
  @Test func aLongAnswerKeepsItsPrompt() throws {
    let tokenizer = try Tokenizer(model: Fixture.path("records/model"))
    var encoding = SampleEncoding()
    encoding.length = 30
    let record = TextSample(
      prompt: "question: what colour is grass? answer:", answer: " green and the small boat crosses the wide river at dawn")
    let sample = try encoding.samples([record], with: tokenizer, vocabulary: 300, from: "data.jsonl").samples[0]
    #expect(
      sample.ids == [
        83, 87, 71, 270, 75, 267, 28, 271, 74, 275, 282, 81, 78, 81, 87, 84, 223, 75, 85, 283, 294, 33, 274, 85, 89, 259, 28, 283, 298, 80,
      ])
    #expect(sample.isLabel == (0..<30).map { $0 >= 27 } && sample.cutTokens == 28)
  }

  @Test func ofASampleThatIsTooLongTheFirstTokensStay() throws {
    let texts = [
      TextSample(prompt: "ab", answer: "cdefgh"), TextSample(prompt: "abcdefg", answer: "h"), TextSample(prompt: "a", answer: "b"),
      TextSample(text: Array("abcdefgh".utf8), answers: [0..<8]),
    ]
    let (result, notes) = try encode(texts, { $0.length = 5 }, begin: 257)
    #expect(result.samples.map(\.ids) == [[257] + bytes("abcd"), [257] + bytes("ab") + [256], [257] + bytes("abcd")])
    #expect(
      result.samples[0].isLabel == [false, false, false, true, true] && result.samples[2].isLabel == [false, true, true, true, true])
    #expect(result.cut == 2 && result.dropped == 1)
    #expect(
      notes == [
        "2 of 4 samples of data.jsonl have more than --length 5 tokens and were cut to the first 5",
        "1 of 4 samples of data.jsonl have no token that counts among the first --length 5 and were dropped",
      ])
    // Of a length that is just enough nothing is cut.
    let whole = try encode(texts, { $0.length = 10 }, begin: 257)
    #expect(whole.result.samples.count == 4 && whole.result.cut == 0 && whole.result.dropped == 0 && whole.notes.isEmpty)
  }

  @Test func aSampleThatIsTooLongIsDroppedOrRefusedWhereAsked() throws {
    var texts = [TextSample(prompt: "a", answer: "b"), TextSample(prompt: "ab", answer: "cdefgh")]
    texts[1].name = "data.jsonl, line 7"
    let (result, notes) = try encode(texts) { ($0.length, $0.tooLong) = (5, .drop) }
    #expect(result.samples.map(\.ids) == [bytes("ab") + [256]] && result.cut == 0 && result.dropped == 1)
    #expect(notes == ["1 of 2 samples of data.jsonl have more than --length 5 tokens and were dropped"])
    let error = try #require(throws: CheckpointError.self) { try encode(texts) { ($0.length, $0.tooLong) = (5, .error) } }
    #expect(error.file == "data.jsonl, line 7" && error.found == "a sample of 9 tokens" && error.expected == "at most 5")
    #expect(try encode(texts) { ($0.length, $0.tooLong) = (9, .error) }.result.samples.count == 2)
    let none = try #require(throws: CheckpointError.self) { try encode([texts[1]]) { ($0.length, $0.tooLong) = (5, .drop) } }
    #expect(none.expected.contains("1 have more than 5 tokens"), "\(none)")
  }

  @Test func aTextWithoutATokenThatCountsIsDroppedAndSaid() throws {
    let texts = [TextSample(text: [], answers: [0..<0]), TextSample(prompt: "a", answer: "b")]
    let (result, notes) = try encode(texts)
    #expect(result.samples.count == 1 && result.dropped == 1 && result.cut == 0 && notes.count == 1)
    let left = TextSample(LearntConversation([ChatMessage(role: "assistant", content: "a")], learning: [], leavingOut: [0]))
    #expect(try encode([left, texts[1]]).result.dropped == 1)
  }

  @Test func aTurnThatIsLeftOutCountsNowhere() throws {
    let turns = ["one", "two", "three"].map { ChatMessage(role: "assistant", content: $0) }
    let sample = TextSample(LearntConversation(turns, learning: [0, 2], leavingOut: [1]))
    for columns in EncodedSample.LossColumns.allCases {
      let encoded = try encode([sample]) { $0.lossOn = columns }.result.samples[0]
      let counted = try TalkingModel.tokenizer().decodeText(zip(encoded.ids, encoded.isLabel).filter(\.1).map(\.0))
      #expect(counted.contains("one") && !counted.contains("two") && counted.contains("three"))
      #expect(counted.contains("assistant") == (columns == .all))
    }
  }

  @Test func aMissingEndTokenIsSaidWhereOneWouldFollow() throws {
    let text = TextSample(prompt: "a", answer: "b")
    let conversation = TextSample(LearntConversation([ChatMessage(role: "assistant", content: "a")]))
    #expect(try encode([conversation, text], end: nil).notes.map { $0.hasPrefix("no end token is known: ") } == [true])
    #expect(try encode([text], { $0.addsEndToken = false }, end: nil).notes.isEmpty)
    #expect(try encode([conversation], end: nil).notes.isEmpty)
    #expect(try encode([text]).notes.isEmpty)
  }

  /// The tokens that nobody trains on may be ones that the model does not have.
  @Test func aTokenBeyondTheVocabularyIsRefusedWhereItIsNeeded() throws {
    var texts = [TextSample(prompt: "a", answer: "b"), TextSample(prompt: "a", answer: "bcd\u{fffd}")]
    texts[1].name = "data.jsonl, line 2"
    var encoding = SampleEncoding()
    encoding.length = 4
    let encoder = ByteEncoder(leadingToken: nil, endToken: 5)
    #expect(try encoding.samples(texts, with: encoder, vocabulary: 128, from: "data.jsonl").samples.count == 2)
    encoding.length = 5
    let error = try #require(throws: CheckpointError.self) {
      try encoding.samples(texts, with: encoder, vocabulary: 128, from: "data.jsonl")
    }
    #expect(error.file == "data.jsonl, line 2" && error.found.contains("token 239"))
  }
}
