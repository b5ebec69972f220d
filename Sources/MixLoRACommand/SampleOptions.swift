import ArgumentParser
import Checkpoints
import Tokenization
import Training

/// How samples become tokens and which of these count: the same for training and for the loss of a file.
struct SampleOptions: ParsableArguments {
  @Option(help: "Tokens that a sample may have; a longer prompt is cut from the left.")
  var length = 512
  @Option(help: "Prompt of instruction records: moe_peft, alpaca or chatml.")
  var template = PromptTemplate.moePEFT
  @Option(help: "Which columns the loss counts: answer or all.")
  var lossOn = EncodedSample.LossColumns.answer
  @Flag(help: "Do not end a sample with the end token.")
  var noEndToken = false

  func validate() throws {
    guard length >= 2 else { throw ValidationError("--length is \(length), expected at least 2.") }
  }

  /// The samples as tokens, those without a column that counts left out.
  ///
  /// - Parameters:
  ///   - file: where they come from, for messages.
  ///   - vocabulary: how many tokens the model knows.
  func encoded(_ samples: [TextSample], with tokenizer: Tokenizer, vocabulary: Int, from file: String) throws -> [EncodedSample] {
    let encoded = samples.map {
      EncodedSample($0, with: tokenizer, lossOn: lossOn, length: length, addsEndToken: !noEndToken)
    }
    if let id = encoded.lazy.flatMap(\.ids).first(where: { $0 >= vocabulary }) {
      throw CheckpointError(
        file: file, found: "text with the tokenizer's token \(id)", expected: "tokens below \(vocabulary), the vocabulary of the model")
    }
    let cut = encoded.count { $0.cut > 0 }
    if cut > 0 {
      writeError("note: \(cut) of \(encoded.count) prompts were longer than --length \(length) allows and were cut from the left\n")
    }
    let counted = encoded.filter { $0.counts.contains(true) }
    guard !counted.isEmpty else {
      throw CheckpointError(file: file, found: "no sample with a column that counts", expected: "at least one")
    }
    return counted
  }
}

extension EncodedSample.LossColumns: ExpressibleByArgument {}
extension PromptTemplate: ExpressibleByArgument {}
