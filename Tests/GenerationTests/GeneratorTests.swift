import CPUBackend
import Decoders
import Generation
import Layers
import Tensors
import TestModels
import Testing
import Tokenization

@Suite struct GeneratorTests {
  private static let prompts = ["Tell me", "a", "Is it? No, it is not", "why"]

  /// The golden MixLoRA model continues `prompts`; `pieces` are what was heard of each text.
  private func generate(
    _ prompts: [String], _ sampler: Sampler = Sampler(), tokens: Int = 20, positions: Int = 64, ends: Set<Int32> = [], stops: [String] = []
  ) throws -> (results: [GeneratedText], pieces: [[String]]) {
    let (backend, tokenizer) = (CPUDouble(threads: 1, isPoisoned: true), try TalkingModel.tokenizer())
    let decoder: Decoder<CPUDouble> = try ModelFolder.load(
      Golden.folder("topk") + "/model", adapter: .folder(Golden.folder("topk") + "/adapter"), on: backend)
    let generator = Generator(
      tokenizer, sampler, .init(tokens: tokens, positions: positions, endTokens: ends, stops: stops), on: backend)
    var pieces = prompts.map { _ in [String]() }
    var ended = prompts.map { _ in false }
    let results = try generator.generate(
      prompts.map { tokenizer.encode($0) }, DecodingState(decoder, sequences: prompts.count, on: backend)
    ) {
      #expect(!ended[$0])
      pieces[$0].append($1)
      ended[$0] = $2
    }
    #expect(ended.allSatisfy { $0 })
    return (results, pieces)
  }

  @Test(arguments: [Sampler(), Sampler(temperature: 1.5, seed: 3), Sampler(temperature: 0.7, topK: 9, topP: 0.9, seed: 4)])
  func aTextDoesNotDependOnTheOthersOfItsBatch(_ sampler: Sampler) throws {
    let batched = try generate(Self.prompts, sampler, ends: [2, 9])
    for (prompt, result) in zip(Self.prompts, batched.results) {
      #expect(try generate([prompt], sampler, ends: [2, 9]).results == [result])
    }
    #expect(try generate(Self.prompts.reversed(), sampler, ends: [2, 9]).results == batched.results.reversed())
    #expect(Set(batched.results.map(\.ids)).count == Self.prompts.count)
  }

  @Test func aTextIsTheTextOfItsTokensAndThePiecesMakeIt() throws {
    let (results, pieces) = try generate(Self.prompts, Sampler(temperature: 2))
    for (result, pieces) in zip(results, pieces) {
      #expect(result.ids.count == 20 && result.stop == .length)
      #expect(try TalkingModel.tokenizer().decodeText(result.ids) == result.text)
      #expect(pieces.joined() == result.text)
    }
  }

  @Test func anEndTokenEndsTheTextAndIsNoPartOfIt() throws {
    let free = try generate(["Tell me"], Sampler(temperature: 1)).results[0]
    let end = free.ids[7]
    let first = try #require(free.ids.firstIndex(of: end))
    let ended = try generate(["Tell me"], Sampler(temperature: 1), ends: [end]).results[0]
    #expect(ended.ids == Array(free.ids[..<first]) && ended.stop == .end)
  }

  @Test func aStopTextOfSeveralTokensIsCutOffAndNeverShown() throws {
    let free = try generate(["Tell me"], Sampler(temperature: 1)).results[0]
    let stop = String(Array(free.text)[9..<12])
    let before = try #require(free.text.firstRange(of: stop)).lowerBound
    let (results, pieces) = try generate(["Tell me"], Sampler(temperature: 1), stops: ["not there", stop])
    #expect(results[0].text == String(free.text[..<before]) && results[0].stop == .text)
    #expect(results[0].ids == Array(free.ids.prefix(results[0].text.count)))  // a token is a character here
    #expect(pieces[0].joined() == results[0].text)
  }

  @Test func aTextEndsWhereThereAreNoMorePositions() throws {
    // 7 tokens of the prompt; positions 7, 8, 9 take three new ones, and the last needs no row of its own
    let result = try generate(["Tell me"], tokens: 100, positions: 10).results[0]
    #expect(result.ids.count == 4 && result.stop == .length)
  }

  @Test func logitsThatAreNotFiniteAreAnError() throws {
    let backend = CPUFloat(threads: 1)
    let decoder = try SmallModel.decoder(
      SmallModel.adapter(), edit: { name, original in name == "model.norm.weight" ? try original(name).map { _ in .nan } : nil },
      on: backend)
    let generator = Generator(try TalkingModel.tokenizer(), Sampler(), .init(tokens: 3, positions: 16), on: backend)
    #expect(throws: NonFiniteValue.self) {
      try generator.generate([[1]], DecodingState(decoder, sequences: 1, on: backend))
    }
  }
}
