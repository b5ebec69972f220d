import ArgumentParser
import Checkpoints
import Platform
import Tokenization
import Training

/// Turns strings into token ids, or back.
struct TokenizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize",
    abstract: "Turn a JSON array of strings into token ids, or back.",
    discussion: """
      Reads standard input and writes one line: for a JSON array of strings an array of arrays of ids, with --decode the \
      reverse. No begin or end token is added. Text that spells a control token stays text unless --parse-special is given; \
      --decode writes control tokens as their spelling, and U+FFFD for what is no UTF-8.

      With --chat it reads a JSON array of conversations, each an array of messages with role and content, and lays them out by \
      the model's own chat template (ChatML where it has none); control tokens are parsed. --render writes the texts instead.

      Examples:
        echo '["Hello world", "2 + 2 ="]' | mixlora tokenize --model SmolLM2-135M
        echo '["<|im_start|>user"]' | mixlora tokenize --model SmolLM2-135M --parse-special
        echo '[[19556, 905]]' | mixlora tokenize --model SmolLM2-135M --decode
        echo '[[{"role": "user", "content": "Hi"}]]' | mixlora tokenize --model SmolLM2-135M-Instruct --chat --render
      """)

  @Option(help: ArgumentHelp("Hugging Face folder with tokenizer.json or tokenizer.model, or a GGUF file.", valueName: "path"))
  var model: String

  @Flag(help: "Let text that spells a control token become that token.")
  var parseSpecial = false

  @Flag(help: "Turn arrays of ids into strings.")
  var decode = false

  @Flag(help: "Lay out conversations by the model's chat template.")
  var chat = false

  @Flag(help: "With --chat: let the beginning of an answer follow each conversation.")
  var generationPrompt = false

  @Flag(help: "With --chat: write the texts instead of their ids.")
  var render = false

  @Option(help: ArgumentHelp("With --chat: chatml or a file of Jinja instead of the model's own template.", valueName: "name"))
  var template: String?

  @Option(help: ArgumentHelp("With --chat: words of the system turn.", valueName: "text"))
  var system: String?

  @OptionGroup var common: CommonOptions

  private static let input = "standard input"

  func validate() throws {
    if chat, let name = decode ? "--decode" : parseSpecial ? "--parse-special" : nil {
      throw ValidationError("\(name) does not go with --chat.")
    }
    let name =
      generationPrompt ? "--generation-prompt" : render ? "--render" : template != nil ? "--template" : system != nil ? "--system" : nil
    if let name, !chat { throw ValidationError("\(name) goes with --chat.") }
    if decode, parseSpecial { throw ValidationError("--parse-special is about text; --decode reads ids.") }
  }

  func run() throws {
    let tokenizer = try Tokenizer(model: model)
    writeNotes(tokenizer.notes)
    let expected = chat ? "a JSON array of arrays of messages" : decode ? "a JSON array of arrays of ids" : "a JSON array of strings"
    let json = try JSON(parsing: try readStandardInput(), file: Self.input)
    guard let elements = json.arrayValue else { throw CheckpointError(file: Self.input, found: json.summary, expected: expected) }
    if chat { return print(JSON.array(try laidOut(elements, tokenizer, expected)).serialized()) }
    let results: [JSON] = try elements.enumerated().map { index, element in
      func failure(_ found: String, _ expected: String) -> CheckpointError {
        CheckpointError(file: Self.input, place: .key("[\(index)]"), found: found, expected: expected)
      }
      guard decode else {
        guard let text = element.stringValue else { throw failure(element.summary, expected) }
        return .array(tokenizer.encode(text, parsingControlTokens: parseSpecial).map { JSON(Int($0)) })
      }
      guard let values = element.arrayValue else { throw failure(element.summary, expected) }
      let ids = try values.map { value in
        guard let id = value.intValue.flatMap(Int32.init(exactly:)), tokenizer.idToToken(id) != nil else {
          throw failure(value.summary, "the id of a token, below \(tokenizer.vocabularySize)")
        }
        return id
      }
      return JSON(tokenizer.decodeText(ids))
    }
    print(JSON.array(results).serialized())
  }

  /// Conversations as ids or texts.
  private func laidOut(_ conversations: [JSON], _ tokenizer: Tokenizer, _ expected: String) throws -> [JSON] {
    let layout = try ChatLayout(model: model, tokenizer, template: template, system: system)
    return try conversations.enumerated().map { index, conversation in
      guard let messages = conversation.arrayValue, messages.allSatisfy({ $0.objectValue != nil }) else {
        throw CheckpointError(file: Self.input, place: .key("[\(index)]"), found: conversation.excerpt, expected: expected)
      }
      let turns = messages.map { ChatMessage($0) }
      if render { return JSON(try layout.text(turns, addsGenerationPrompt: generationPrompt)) }
      return .array(try layout.tokens(turns, addsGenerationPrompt: generationPrompt).map { JSON(Int($0)) })
    }
  }

  /// All bytes of standard input.
  private func readStandardInput() throws -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count: Int
      do { count = try buffer.withUnsafeMutableBytes { try FileDescriptor.standardInput.read(into: $0) } } catch let error as Errno {
        throw CheckpointError(file: Self.input, call: "read", code: error, expected: "a JSON array")
      }
      guard count > 0 else { return bytes }
      bytes += buffer[..<count]
      guard bytes.count <= JSON.Limits().bytes else {
        throw CheckpointError(file: Self.input, found: "more bytes", expected: "at most \(JSON.Limits().bytes)")
      }
    }
  }
}
