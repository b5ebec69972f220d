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
  private let tokenizer: Tokenizer
  private let sampler: Sampler
  private let limits: GenerationLimits
  private let backend: B

  /// Generates under `limits`.
  public init(_ tokenizer: Tokenizer, _ sampler: Sampler, _ limits: GenerationLimits, on backend: B) {
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
  /// - Throws: `NonFiniteValue` for logits, what the device reports, and what `onText` throws: nothing more is then generated.
  public func generate(
    _ prompts: [[Int32]], _ state: DecodingState<B>,
    onText: (_ sequence: Int, _ text: String, _ hasEnded: Bool) throws -> Void = { _, _, _ in }
  ) throws -> [GeneratedText] {
    let run = Run(backend)
    var results = prompts.map { GeneratedText(promptTokens: $0.count) }
    var decoders = prompts.map { _ in tokenizer.streamingDecoder(stops: limits.stops) }
    var next = prompts
    while next.contains(where: { !$0.isEmpty }) {
      let logits = try state.logits(after: next, run)
      for s in prompts.indices {
        guard let row = logits[s] else { continue }
        // Draws are numbered by the place in the sequence, so that the turns of a conversation do not repeat them.
        guard let token = sampler.token(row, number: state.ids[s].count) else {
          throw NonFiniteValue("the logits of new token \(results[s].ids.count + 1)", at: "text \(s + 1)", "are not finite")
        }
        var piece = ""
        var stop: GeneratedText.Stop?
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
        try onText(s, piece, stop != nil)
      }
    }
    return results
  }
}
