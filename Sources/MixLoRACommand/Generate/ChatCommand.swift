import ArgumentParser
import Generation
import Platform
import Tensors

/// A conversation with a model.
struct ChatCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "chat",
    abstract: "Talk with a model.",
    discussion: """
      Each line of standard input is a turn, and the answer appears as it comes. Turns are laid out by the model's own \
      chat template, or in ChatML where it has none. The conversation and its keys and \
      values are kept, so that a turn costs its own tokens only. The end of the input ends the conversation (control-D), and so \
      does a turn that the model has no positions left for.

      Examples:
        mixlora chat --model m --adapter run --temperature 0.7 --top-p 0.9
        printf 'Hello!\\nWhat did I just say?\\n' | mixlora chat --model m
      """)

  @OptionGroup var options: GenerationOptions
  @Option(help: ArgumentHelp("Adapter folder.", valueName: "folder"))
  var adapter: String?
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func run() throws { try compute() }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let model = try LoadedModel(options.model, adapter: adapter, on: backend)
    writeNotes(model.notes)
    let conversation = try model.chat(options.settings, options.chat)
    let isTalking = POSIX.isTerminal(.standardInput) && !common.quiet
    while true {
      if isTalking { writeError("> ") }
      guard let line = readLine() else { break }
      if line.isEmpty { continue }
      _ = try conversation.say(line, onText: writeOutput)
      try writeOutput("\n")
    }
  }
}
