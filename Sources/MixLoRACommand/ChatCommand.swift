import ArgumentParser
import Checkpoints
import Decoders
import Generation
import Tokenization
import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A conversation with a model.
struct ChatCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chat",
    abstract: "Talk with a model.",
    discussion: """
      Each line of standard input is a turn in ChatML, and the answer appears as it comes. The conversation and its keys and \
      values are kept, so that a turn costs its own tokens only. The end of the input ends the conversation (control-D), and so \
      does a turn that the model has no positions left for.

      Examples:
        mixlora chat --model m --adapter run --temperature 0.7 --top-p 0.9
        printf 'Hello!\\nWhat did I just say?\\n' | mixlora chat --model m
      """)

  @OptionGroup var options: GenerationOptions
  @OptionGroup var common: CommonOptions

  func run() throws {
    let tokenizer = try Tokenizer(model: options.model)
    let format = try ChatFormat(tokenizer, model: options.model)
    let model = try LoadedModel(
      options, tokenizer, endOfTurn: format.endOfTurn, longest: LoadedModel.usualPositions, threads: common.threadCount)
    let state = DecodingState(model.decoder, sequences: 1, on: model.backend)
    var conversation: [Int32] = []
    let isTalking = isatty(0) == 1 && !common.quiet
    while true {
      if isTalking { writeError("> ") }
      guard let line = readLine() else { break }
      if line.isEmpty { continue }
      conversation = format.turn(line, after: conversation)
      guard conversation.count <= model.positions else {
        throw UsageError("the conversation has \(conversation.count) tokens with this turn, expected at most \(model.positions)")
      }
      let answer = try model.generate([state.rest(of: conversation, in: 0)], state) { _, text, _ in writeOutput(text) }
      writeOutput("\n")
      conversation += answer[0].ids
    }
  }
}
