/// How tokens are chosen and when a text ends.
public struct GenerationSettings: Equatable, Sendable {
  /// How the next token is chosen.
  public var sampler: Sampler
  /// The most new tokens of a text.
  public var tokens: Int
  /// Texts that end a text.
  public var stops: [String]

  /// By default the likeliest tokens, at most 128.
  public init(sampler: Sampler = Sampler(), tokens: Int = 128, stops: [String] = []) {
    self.sampler = sampler
    self.tokens = tokens
    self.stops = stops
  }
}

/// A prompt that no text can follow.
public struct PromptError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The prompt, counted from 0; nil for a conversation.
  public let prompt: Int?
  /// What is wrong with it.
  public let problem: String

  init(prompt: Int?, _ problem: String) {
    self.prompt = prompt
    self.problem = problem
  }

  /// One sentence.
  public var description: String { (prompt.map { "prompt \($0 + 1)" } ?? "the conversation") + " " + problem }
}
