/// When a text ends.
public struct GenerationLimits: Sendable {
  /// The most new tokens.
  public var tokens: Int
  /// Positions of the model: the most tokens of a sequence that may be read; one more may be written behind them.
  public var positions: Int
  /// Tokens that end a text; they are no part of it.
  public var endTokens: Set<Int32>
  /// Texts that end a text; it is cut before the first.
  public var stops: [String]

  /// The given limits.
  public init(tokens: Int, positions: Int, endTokens: Set<Int32> = [], stops: [String] = []) {
    self.tokens = tokens
    self.positions = positions
    self.endTokens = endTokens
    self.stops = stops
  }
}

/// A text that came out.
public struct GeneratedText: Equatable, Sendable {
  /// Why a text ended.
  public enum Stop: String, Sendable {
    /// The model gave an end token.
    case end
    /// There was no room for more: tokens or positions were used up.
    case length
    /// A stop text came.
    case text
  }

  /// Tokens that were read before the first new one.
  public var promptTokens = 0
  /// The new tokens, without an end token. Of those that a stop text stands in, the ones that begin before it.
  public var ids: [Int32] = []
  /// Their text, cut before a stop text.
  public var text = ""
  /// Why it ended.
  public var stop = Stop.length
}
