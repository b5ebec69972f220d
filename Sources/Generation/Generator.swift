import Decoders
import Layers
import Tensors
import Tokenization

/// Lets a model continue texts, several in one batch, until each has its end.
///
///     logits of all prompts in one packed pass, then a row a text and step:
///     token = sampler(logits)      ends the text, or is its next token and the next row
///
/// A text that has ended rests while the others go on; none depends on another but by the rounding of products over more rows.
public struct Generator<B: Backend> {
  /// When a text ends.
  public struct Limits: Sendable {
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

  /// Why a text ended.
  public enum Stop: String, Sendable {
    /// The model gave an end token.
    case end
    /// There was no room for more: tokens or positions were used up.
    case length
    /// A stop text came.
    case text
  }

  /// A text that came out.
  public struct Result: Equatable, Sendable {
    /// The new tokens, without an end token. Of those that a stop text stands in, the ones that begin before it.
    public var ids: [Int32] = []
    /// Their text, cut before a stop text.
    public var text = ""
    /// Why it ended.
    public var stop = Stop.length
  }

  /// A row of logits that has a value which is not finite.
  public struct NonFiniteLogits: Error, CustomStringConvertible {
    /// The text, counted from 0.
    public let sequence: Int
    /// The token, counted from 0.
    public let token: Int
    /// Says what was found where.
    public var description: String { "text \(sequence + 1): the logits of new token \(token + 1) are not finite" }
  }

  private let tokenizer: Tokenizer
  private let sampler: Sampler
  private let limits: Limits
  private let backend: B

  /// Generates under `limits`.
  public init(_ tokenizer: Tokenizer, _ sampler: Sampler, _ limits: Limits, on backend: B) {
    self.tokenizer = tokenizer
    self.sampler = sampler
    self.limits = limits
    self.backend = backend
  }

  /// Continues the sequences of `state` by `prompts` and what the model says.
  ///
  /// - Parameters:
  ///   - prompts: the tokens that follow those in `state`, at least one a sequence.
  ///   - onText: hears the text of each sequence as it becomes certain, and that it has ended.
  /// - Throws: `NonFiniteLogits`, or what the device reports.
  public func generate(
    _ prompts: [[Int32]], _ state: DecodingState<B>, onText: (_ sequence: Int, _ text: String, _ hasEnded: Bool) -> Void = { _, _, _ in }
  ) throws -> [Result] {
    let run = Run(backend)
    var results = [Result](repeating: Result(), count: prompts.count)
    var decoders = prompts.map { _ in tokenizer.streamingDecoder(stops: limits.stops) }
    var next = prompts
    while next.contains(where: { !$0.isEmpty }) {
      let logits = try state.logits(after: next, run)
      for s in prompts.indices {
        guard let row = logits[s] else { continue }
        // Draws are numbered by the place in the sequence, so that the turns of a conversation do not repeat them.
        guard let token = sampler.token(row, number: state.ids[s].count) else {
          throw NonFiniteLogits(sequence: s, token: results[s].ids.count)
        }
        var piece = ""
        var stop: Stop?
        if limits.endTokens.contains(token) {
          stop = .end
        } else {
          results[s].ids.append(token)
          piece = decoders[s].text(after: token)
          if let kept = decoders[s].tokensBeforeStop {
            stop = .text
            results[s].ids.removeSubrange(kept...)
          } else if results[s].ids.count == limits.tokens || state.ids[s].count == limits.positions {
            stop = .length
          }
        }
        if let stop {
          piece += decoders[s].finish()
          results[s].stop = stop
        }
        results[s].text += piece
        next[s] = stop == nil ? [token] : []
        onText(s, piece, stop != nil)
      }
    }
    return results
  }
}
