import CPUBackend
import Checkpoints
import Decoders
import Evaluation
import Foundation
import Layers
import Samples
import Tensors
import TestModels
import Testing

/// The scorings of questions against their definitions, written out one sequence at a time.
@Suite struct AnswerScoringTests {
  let backend = CPUDouble(threads: 1)

  /// A token a word: the sum of its bytes, in a vocabulary of 23.
  private struct Words: TextEncoder {
    let leadingToken: Int32? = nil
    let endToken: Int32? = nil

    func tokens(of text: [UInt8]) -> [(id: Int32, end: Int)] {
      var (tokens, sum): ([(id: Int32, end: Int)], Int32) = ([], 0)
      for (i, byte) in text.enumerated() {
        sum += Int32(byte)
        if i + 1 == text.count || text[i + 1] == UInt8(ascii: " ") {
          tokens.append((sum % 23, i + 1))
          sum = 0
        }
      }
      return tokens
    }
  }

  private func decoder(edit: @escaping EditedWeights<CPUDouble>.Edit = { _, _ in nil }) throws -> Decoder<CPUDouble> {
    try Decoder(SmallModel.configuration, weights: EditedWeights(seed: 7, on: backend, edit), trainsBase: false, on: backend)
  }

  /// Open-book questions whose choices have one to four words.
  private func questions() throws -> [QuestionTask.Question] {
    let words = ["ice", "a", "warm", "rivers", "of", "stone", "light", "seven"]
    return try (0..<24).map { n in
      let texts: [JSON] = (0..<4).map { c in JSON((0...(n + c) % 4).map { words[(3 * n + 5 * c + 2 * $0 * n) % 8] }.joined(separator: " "))
      }
      let line: JSON = [
        "question_stem": JSON("what is \(words[n % 8]) \(words[n / 3])"), "answerKey": JSON(["A", "B", "C", "D"][n * n % 4]),
        "choices": ["text": .array(texts), "label": ["A", "B", "C", "D"]],
      ]
      return try QuestionTask.openBookQA.question(line, file: "line \(n)")
    }
  }

  /// log p of every token behind `ids`.
  private func logProbabilities(_ decoder: Decoder<CPUDouble>, after ids: [Int32]) throws -> [Double] {
    let run = Run(backend)
    let batch = PackedBatch([PackedSequence(ids: ids, labels: ids.map { _ in nil })], on: backend)
    let logits = try backend.download(decoder.logits(decoder.forward(batch, run), run)).suffix(23)
    let sum = logits.reduce(0) { $0 + exp($1) }
    return logits.map { $0 - log(sum) }
  }

  @Test func theFiguresAreThoseOfTheirDefinitions() throws {
    let (decoder, encoder, questions) = (try decoder(), Words(), try questions())
    func ids(_ text: String) -> [Int32] { encoder.tokens(of: Array(text.utf8)).map(\.id) }
    func best(_ values: [Double]) -> Int { values.indices.dropFirst().reduce(0) { values[$1] > values[$0] ? $1 : $0 } }
    var expected = try AnswerScoring(decoder, on: backend).score([], .openBookQA, with: encoder)[0]
    #expect(expected.count == 0)
    expected.count = 24
    for question in questions {
      let prompt = ids(question.prompt)
      let last = try logProbabilities(decoder, after: prompt)
      let labels = ["A", "B", "C", "D"]
      if labels[best(labels.map { last[Int(ids(" " + $0).last ?? 0)] })] == question.label { expected.byLabel += 1 }
      let sums = try question.candidates.map { candidate in
        var (sum, context) = (0.0, prompt)
        for id in ids(" " + candidate.text) {
          sum += try logProbabilities(decoder, after: context)[Int(id)]
          context.append(id)
        }
        return sum
      }
      if question.candidates[best(sums)].label == question.label { expected.byLikelihood += 1 }
      let perByte = zip(sums, question.candidates).map { $0 / Double($1.text.utf8.count) }
      if question.candidates[best(perByte)].label == question.label { expected.byLikelihoodPerByte += 1 }
    }
    expected.majority = ["A", "B", "C", "D"].map { label in questions.count { $0.label == label } }.max() ?? 0
    let result = try AnswerScoring(decoder, on: backend).score(questions, .openBookQA, with: encoder)[0]
    #expect(result == expected)
    #expect(
      Set([result.byLabel, result.byLikelihood, result.byLikelihoodPerByte]).count > 1, "the ways differ on these questions: \(result)")
  }

  /// Three adapters that are asked in the same batches answer as each does by itself; and so do their losses on texts.
  @Test func severalAdaptersAnswerAsEachDoesAlone() throws {
    let (settings, seeds) = (PluralModel.adapters(), [11, 12, 13] as [UInt64])
    let questions = try questions()
    let plural = try PluralModel.decoder(settings, seeds: seeds, on: backend)
    let together = try AnswerScoring(plural, on: backend).score(questions, .openBookQA, with: Words())
    let samples = questions.map { question in
      let (prompt, text) = (Array(question.prompt.utf8), Array("\(question.prompt) \(question.label)".utf8))
      return EncodedSample(
        TextSample(text: text, answers: [prompt.count..<text.count]), with: Words(), lossOn: .answer, addsEndToken: false)
    }
    let losses = try plural.meanLosses(of: samples, adapters: [0, 1, 2], batch: 5, on: backend)
    var alone: [AnswerScores] = []
    for (i, setting) in settings.enumerated() {
      let own = try PluralModel.decoder([setting], seeds: [seeds[i]], on: backend)
      alone += try AnswerScoring(own, on: backend).score(questions, .openBookQA, with: Words())
      let loss = try own.meanLoss(of: samples, batch: 5, on: backend)
      #expect(abs(losses[i].loss - loss.loss) <= 1e-12 * loss.loss && losses[i].columns == loss.columns && loss.columns == 24)
      #expect(try plural.meanLoss(of: samples, adapter: i, batch: 5, on: backend).loss == losses[i].loss)
    }
    #expect(together == alone && together.count == 3)
    #expect(together[0] != together[1] && together[1] != together[2], "the adapters answer alike, so nothing was shown")
  }

  @Test func aScoreThatIsNotFiniteIsAnErrorNotAnAnswer() throws {
    let decoder = try decoder { name, original in name == "model.norm.weight" ? try original(name).map { _ in .nan } : nil }
    #expect(throws: NonFiniteValue.self) {
      try AnswerScoring(decoder, on: backend).score(try questions(), .openBookQA, with: Words())
    }
  }
}
