import Decoders
import Tensors
import Tokenization

/// A conversation with a model. What was said and its keys and values are kept, so that a turn costs its own tokens only.
public final class Conversation<B: Backend> {
  /// All tokens so far.
  public private(set) var ids: [Int32] = []
  private var messages: [ChatMessage] = []
  private let layout: ChatLayout
  private let generator: Generator<B>
  private let state: DecodingState<B>
  private let positions: Int
  private let check: ([Int32]) throws -> Void

  /// - Parameter check: throws for tokens that the model does not have.
  init(
    _ layout: ChatLayout, _ generator: Generator<B>, _ state: DecodingState<B>, positions: Int, check: @escaping ([Int32]) throws -> Void
  ) {
    self.layout = layout
    self.generator = generator
    self.state = state
    self.positions = positions
    self.check = check
  }

  /// Says a user's turn and gives the answer.
  ///
  /// - Parameter onText: hears the answer as it comes.
  /// - Throws: ``PromptError`` where the model has no positions left for the turn, `CheckpointError` where the template does not take it
  ///   and for a token that the embedding does not have, `NonFiniteValue` for logits, what the device reports, and what `onText`
  ///   throws.
  public func say(_ text: String, onText: (String) throws -> Void = { _ in }) throws -> GeneratedText {
    let said = messages + [ChatMessage(role: "user", content: text)]
    let turn = try layout.tokens(said, addsGenerationPrompt: true)
    guard !turn.isEmpty else { throw PromptError(prompt: nil, "is laid out as nothing, expected at least one token") }
    guard turn.count <= positions else {
      throw PromptError(prompt: nil, "has \(turn.count) tokens with this turn, expected at most \(positions)")
    }
    try check(turn)
    let answer = try generator.generate([state.rewind(0, toBecome: turn)], state) { _, piece, _ in try onText(piece) }[0]
    ids = turn + answer.ids
    messages = said + [ChatMessage(role: "assistant", content: answer.text)]
    return answer
  }
}
