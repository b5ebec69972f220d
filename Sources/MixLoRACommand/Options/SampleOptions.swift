import ArgumentParser
import Samples
import Tokenization

/// How samples become tokens and which of these count: the same for training and for the loss of a file.
struct SampleOptions: ParsableArguments {
  @Option(help: "Tokens that a sample may have; 0: as many as the model has positions.")
  var length = Setting(512)
  @Option(
    help: "What becomes of a sample that has more: cut, it keeps its first tokens (and is dropped if none of them counts); drop; error.")
  var tooLong = Setting(SampleEncoding.TooLong.cut)
  @Option(
    help: "Prompt of instruction records: moe_peft, alpaca or chatml; chatml lays out conversations too, instead of the model's template.")
  var template = Setting(PromptTemplate.moePEFT)
  @Option(help: ArgumentHelp("Words of the system turn of conversations, instead of their own.", valueName: "text"))
  var system: String?
  @Option(help: "Which columns the loss counts: answer or all.")
  var lossOn = Setting(EncodedSample.LossColumns.answer)
  @Flag(help: "Do not end a sample with the end token.")
  var noEndToken = false

  /// Puts what was given into settings.
  func override(_ encoding: inout SampleEncoding) {
    length.override(&encoding.length)
    tooLong.override(&encoding.tooLong)
    template.override(&encoding.template)
    lossOn.override(&encoding.lossOn)
    if let system { encoding.system = system }
    if noEndToken { encoding.addsEndToken = false }
  }

  /// The options that were given, by name.
  var given: [String] {
    let options = [
      ("--template", template.isGiven), ("--system", system != nil), ("--loss-on", lossOn.isGiven), ("--length", length.isGiven),
      ("--too-long", tooLong.isGiven),
      ("--no-end-token", noEndToken),
    ]
    return options.filter(\.1).map(\.0)
  }
}
