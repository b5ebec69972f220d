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

/// How conversations are laid out, where it is not as the model's own template does.
public struct ChatSettings: Equatable, Sendable {
  /// `chatml` or a file with a template; nil for the model's own.
  public var template: String?
  /// The words of a system turn; nil for what the template puts there.
  public var system: String?

  /// By default as the model's template says.
  public init(template: String? = nil, system: String? = nil) {
    self.template = template
    self.system = system
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
