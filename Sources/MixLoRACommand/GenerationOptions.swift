import ArgumentParser
import CPUBackend
import Checkpoints
import Decoders
import Generation
import Tokenization
import Training

/// What `generate` and `chat` have in common.
struct GenerationOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Model: a Hugging Face folder with tokenizer.json or a GGUF file.", valueName: "path"))
  var model: String
  @Option(help: ArgumentHelp("Adapter folder.", valueName: "folder"))
  var adapter: String?
  @Option(help: ArgumentHelp("The most new tokens of a text.", valueName: "n"))
  var maxTokens = 128
  @Option(help: "0 takes the likeliest token; above, tokens are drawn by softmax(logits / temperature).")
  var temperature = 0.0
  @Option(help: ArgumentHelp("Draw among the K likeliest tokens; 0: among all.", valueName: "k"))
  var topK = 0
  @Option(help: ArgumentHelp("Draw among the fewest likeliest tokens that have this probability together.", valueName: "p"))
  var topP = 1.0
  @Option(help: "Seed of the draws.")
  var seed: UInt64 = 0
  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("End a text before this text; may be given several times.", valueName: "text"))
  var stop: [String] = []

  func validate() throws {
    guard maxTokens >= 1 else { throw ValidationError("--max-tokens is \(maxTokens), expected at least 1.") }
    guard temperature >= 0, temperature.isFinite else { throw ValidationError("--temperature is \(temperature), expected a number ≥ 0.") }
    guard topK >= 0 else { throw ValidationError("--top-k is \(topK), expected at least 0.") }
    guard topP > 0, topP <= 1 else { throw ValidationError("--top-p is \(topP), expected a number in (0,1].") }
    if stop.contains("") { throw ValidationError("--stop is empty, expected a text.") }
  }

  var sampler: Sampler { Sampler(temperature: temperature, topK: topK, topP: topP, seed: seed) }
}

/// A model ready to generate.
struct LoadedModel {
  let tokenizer: Tokenizer
  let generator: Generator<CPUFloat>
  let decoder: Decoder<CPUFloat>
  let backend: CPUFloat
  /// The most tokens that a sequence may have.
  let positions: Int
  /// Positions of a model that does not say how many it has.
  static let usualPositions = 32_768
  /// Positions that a table is made for at most, whatever a file says.
  private static let mostPositions = 1 << 20

  /// Loads the model of `options`.
  ///
  /// - Parameters:
  ///   - endOfTurn: the token that ends an answer, in a conversation.
  ///   - longest: tokens of the longest sequence that may come; the model's own limit still holds.
  init(_ options: GenerationOptions, _ tokenizer: Tokenizer, endOfTurn: Int32?, longest: Int, threads: Int) throws {
    self.tokenizer = tokenizer
    backend = CPUFloat(threads: threads)
    let files = try ModelFolder(options.model)
    guard tokenizer.vocabularySize <= files.configuration.vocabulary else {
      throw CheckpointError(
        file: options.model, found: "a tokenizer with ids up to \(tokenizer.vocabularySize - 1)",
        expected: "ids below \(files.configuration.vocabulary), the model's vocabulary")
    }
    positions = min(longest, files.configuration.contextLength ?? Self.usualPositions, Self.mostPositions)
    decoder = try files.decoder(
      adapter: options.adapter.map { .folder($0) } ?? .none, on: backend)
    let ends = tokenizer.endTokens.union(endOfTurn.map { [$0] } ?? [])
    generator = Generator(
      tokenizer, options.sampler, .init(tokens: options.maxTokens, positions: positions, endTokens: ends, stops: options.stop), on: backend)
  }

  /// Continues `prompts`; logits that are not finite become exit code 4.
  func generate(
    _ prompts: [[Int32]], _ state: DecodingState<CPUFloat>, onText: (_ sequence: Int, _ text: String, _ hasEnded: Bool) -> Void
  ) throws -> [Generator<CPUFloat>.Result] {
    do { return try generator.generate(prompts, state, onText: onText) } catch let error as Generator<CPUFloat>.NonFiniteLogits {
      throw NumericalFailure(description: error.description)
    }
  }
}
