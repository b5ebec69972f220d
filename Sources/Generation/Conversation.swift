import Decoders
import Tensors

/// A conversation with a model. What was said and its keys and values are kept, so that a turn costs its own tokens only.
public final class Conversation<B: Backend> {
  /// All tokens so far.
  public private(set) var ids: [Int32] = []
  private let format: ChatFormat
  private let generator: Generator<B>
  private let state: DecodingState<B>
  private let positions: Int
  private let check: ([Int32]) throws -> Void

  /// - Parameter check: throws for tokens that the model does not have.
  init(
    _ format: ChatFormat, _ generator: Generator<B>, _ state: DecodingState<B>, positions: Int, check: @escaping ([Int32]) throws -> Void
  ) {
    self.format = format
    self.generator = generator
    self.state = state
    self.positions = positions
    self.check = check
  }

  /// Says a user's turn and gives the answer.
  ///
  /// - Parameter onText: hears the answer as it comes.
  /// - Throws: ``PromptError`` where the model has no positions left for the turn, `CheckpointError` for a token that the embedding does
  ///   not have, `NonFiniteValue` for logits, and what the device reports.
  public func say(_ text: String, onText: (String) -> Void = { _ in }) throws -> GeneratedText {
    let turn = format.turn(text, after: ids)
    guard turn.count <= positions else {
      throw PromptError(prompt: nil, "has \(turn.count) tokens with this turn, expected at most \(positions)")
    }
    try check(turn)
    let answer = try generator.generate([state.rewind(0, toBecome: turn)], state) { _, piece, _ in onText(piece) }[0]
    ids = turn + answer.ids
    return answer
  }
}
