import ArgumentParser
import Generation

/// What `generate` and `chat` have in common.
struct GenerationOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Model: a Hugging Face folder with tokenizer.json or a GGUF file.", valueName: "path"))
  var model: String
  @Option(
    help: ArgumentHelp("Chat template instead of the model's own: chatml, or a file of Jinja.", valueName: "name"))
  var template: String?
  @Option(help: ArgumentHelp("Words of the system turn of a conversation.", valueName: "text"))
  var system: String?
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

  var chat: ChatSettings { ChatSettings(template: template, system: system) }

  var settings: GenerationSettings {
    GenerationSettings(
      sampler: Sampler(temperature: temperature, topK: topK, topP: topP, seed: seed), tokens: maxTokens, stops: stop)
  }
}
