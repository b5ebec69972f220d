import CPUBackend
import Decoders
import Evaluation
import Layers
import Tensors
import TestModels
import Testing

/// Exact answers, judged in one pass, against greedy decoding written out naively.
@Suite struct AnswerMatchingTests {
  let backend = CPUDouble(threads: 1)

  /// The prompt's greedy continuation: the whole sequence is run again for every token.
  private func continuation(_ decoder: Decoder<CPUDouble>, _ prompt: [Int32], tokens: Int) throws -> [Int32] {
    var ids = prompt
    for _ in 0..<tokens {
      let run = Run(backend)
      let batch = PackedBatch([PackedSequence(ids: ids, labels: ids.map { _ in nil })], on: backend)
      let logits = try backend.download(decoder.logits(decoder.forward(batch, run), run))
      let last = logits.suffix(decoder.configuration.vocabulary)
      ids.append(Int32(last.indices.max { last[$0] < last[$1] }! - last.startIndex))
    }
    return Array(ids.suffix(tokens))
  }

  private func question(_ prompt: [Int32], _ answer: [Int32]) -> PackedSequence {
    let ids = prompt + answer
    return PackedSequence(ids: ids, labels: ids.indices.map { $0 + 1 >= prompt.count && $0 + 1 < ids.count ? ids[$0 + 1] : nil })
  }

  @Test func whatGreedyDecodingWritesCountsAsExactAndAnyOtherTokenDoesNot() throws {
    let decoder = try Golden.decoder("topk", on: backend)
    let prompts: [[Int32]] = [[3, 5, 7], [1], [9, 2, 4, 8, 6]]
    let answers = try prompts.map { try continuation(decoder, $0, tokens: 3) }
    let right = zip(prompts, answers).map(question)
    let wrong = prompts.indices.map { i in
      var answer = answers[i]  // another token at its first, middle, last place
      answer[i] = (answer[i] + 1) % Int32(decoder.configuration.vocabulary)
      return question(prompts[i], answer)
    }
    let matching = AnswerMatching(decoder, on: backend)
    #expect(try matching.ask(right).right == 3)
    #expect(try matching.ask(wrong).right == 0)
    #expect(try matching.ask([right[0], wrong[1], right[2]], samplesAtATime: 1).right == 2)
    #expect(try matching.ask(right).accuracy == 1)
  }

  @Test func aQuestionWithoutAnAnswerIsNeverRight() throws {
    let matching = AnswerMatching(try Golden.decoder("topk", on: backend), on: backend)
    #expect(try matching.ask([question([1, 2, 3], []), question([2], [])]).right == 0)
  }

  @Test func expertSharesAreThoseOfAllBatchesTogetherAndSumToOneALayer() throws {
    let decoder = try Golden.decoder("topk", on: backend)
    let questions = (1..<8).map { n in question((0..<Int32(n)).map { $0 + 2 }, [Int32(n)]) }
    let matching = AnswerMatching(decoder, on: backend)
    let load = try matching.ask(questions).expertLoad
    let apart = try matching.ask(questions, samplesAtATime: 2).expertLoad
    #expect(load.count == decoder.configuration.layers)
    for (a, b) in zip(load, apart) {
      #expect(abs(a.reduce(0, +) - 1) < 1e-12)
      #expect(zip(a, b).allSatisfy { abs($0 - $1) < 1e-12 })
    }
    #expect(try AnswerMatching(Golden.decoder("topk", withAdapter: false, on: backend), on: backend).ask(questions).expertLoad.isEmpty)
  }
}
