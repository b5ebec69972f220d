import ArgumentParser
import Checkpoints
import Generation
import Platform
import Tensors

/// Continues texts.
struct GenerateCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate",
    abstract: "Let a model continue texts.",
    discussion: """
      A prompt is taken as it is, behind a begin token where the tokenizer adds one; control tokens in it stay text. With --chat \
      it is the user's turn of a conversation, which the model's own chat template lays out (ChatML where it has none), and the \
      answer is what comes out; control tokens in it are then parsed, as the template's are. Several prompts run in one batch, all of \
      them under each --adapter; each gives what it would give alone, up to rounding.

      A text ends at the tokenizer's end token or any eos_token_id of the model's files ("end"), before a --stop text ("text"), \
      or after --max-tokens or where the model has no more positions ("length"). A stop text is cut off wherever it begins and \
      ends; of the tokens that it stands in, ids keeps those that begin before it. The same prompt under the same seed gives the \
      same text.

      On a terminal text appears as it comes, else when it is whole. --json prints an object for each prompt, in order: prompt, \
      ids (new tokens, without the end token), text, stop, and of several adapters adapter.

      Examples:
        mixlora generate --model m --prompt 'The capital of France is'
        mixlora generate --model m --adapter run --chat --prompt 'What is a mixture of experts?'
        mixlora generate --model m --adapter run/one --adapter run/other --prompt 'Tell me'
        mixlora generate --model m --prompt 'Once' --prompt 'Twice' \\
          --temperature 0.8 --top-p 0.95 --stop '.' --json
      """)

  @OptionGroup var options: GenerationOptions
  @Option(help: ArgumentHelp("Adapter folder; may be given several times.", valueName: "folder"))
  var adapter: [String] = []
  @Option(
    parsing: .unconditionalSingleValue, help: ArgumentHelp("Text to continue; may be given several times.", valueName: "text"))
  var prompt: [String]
  @Flag(help: "Take each prompt as a user's turn.")
  var chat = false
  @Flag(help: "Print one JSON object for each prompt.")
  var json = false
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    if let name = options.template != nil ? "--template" : options.system != nil ? "--system" : nil, !chat {
      throw ValidationError("\(name) goes with --chat.")
    }
  }

  func run() throws { try compute() }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let model = try LoadedModel(options.model, adapters: adapter, on: backend)
    // Every prompt under every adapter, in the order of the results; a single adapter needs no name.
    let names: [String?] = adapter.count > 1 ? adapter : [nil]
    let texts = names.flatMap { name in prompt.map { (adapter: name, prompt: $0) } }
    writeNotes(model.notes)
    var output = TextOutput(streams: POSIX.isTerminal(.standardOutput) && !json, titles: texts.map { $0.adapter.map { $0 + ": " } ?? "" })
    let start = POSIX.seconds
    var firstToken: Double?
    let results = try model.generate(prompt, options.settings, chat: chat ? options.chat : nil) { s, text, hasEnded in
      firstToken = firstToken ?? POSIX.seconds
      if !json { try output.add(text, of: s, hasEnded: hasEnded) }
    }
    if !common.quiet, POSIX.isTerminal(.standardError) {
      let (read, written) = (results.reduce(0) { $0 + $1.promptTokens }, results.reduce(0) { $0 + $1.ids.count })
      let (begin, end) = (firstToken ?? start, POSIX.seconds)
      writeError("\(read) tokens read, \(fixed(Double(read) / max(begin - start, 1e-9), 1)) a second; ")
      writeError("\(written) written, \(fixed(Double(max(0, written - texts.count)) / max(end - begin, 1e-9), 1)) a second\n")
    }
    if json {
      for (text, result) in zip(texts, results) { print(line(text.adapter, text.prompt, result).serialized()) }
    }
  }

  private func line(_ adapter: String?, _ prompt: String, _ result: GeneratedText) -> JSON {
    var object = JSON.Object()
    if let adapter { object["adapter"] = .string(adapter) }
    object["prompt"] = .string(prompt)
    object["ids"] = .array(result.ids.map { JSON(Int($0)) })
    object["text"] = .string(result.text)
    object["stop"] = .string(result.stop.rawValue)
    return .object(object)
  }
}

/// Writes texts that grow at the same time one after the other, a line break behind each.
struct TextOutput {
  /// Whether the first text that has not ended appears piece by piece, or each when it is whole.
  let streams: Bool
  private var waiting: [String]
  private var hasEnded: [Bool]
  private var current = 0

  /// Texts that begin with these titles.
  init(streams: Bool, titles: [String]) {
    self.streams = streams
    waiting = titles
    hasEnded = titles.map { _ in false }
  }

  /// A piece of text `s`.
  mutating func add(_ text: String, of s: Int, hasEnded isLast: Bool) throws {
    waiting[s] += text
    hasEnded[s] = isLast
    while current < waiting.count, streams || hasEnded[current] {
      try writeOutput(waiting[current] + (hasEnded[current] ? "\n" : ""))
      waiting[current] = ""
      guard hasEnded[current] else { return }
      current += 1
    }
  }
}

/// Writes to standard output at once.
///
/// - Throws: `OutputError` if it does not arrive: who writes later would not hear of it, for the C library has let the text go.
func writeOutput(_ text: String) throws {
  print(text, terminator: "")
  try flushOutput()
}
