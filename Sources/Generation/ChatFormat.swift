import Checkpoints
import Tokenization

/// A conversation in ``ChatML`` as tokens: the control tokens by their ids, what is said as text that cannot spell them.
///
///     <|im_start|>role⏎content<|im_end|>⏎      each turn
///     <|im_start|>assistant⏎                   the beginning of an answer, which ends with <|im_end|>
public struct ChatFormat: Sendable {
  /// The token that ends a turn.
  public let endOfTurn: Int32
  private let beginOfTurn: Int32
  private let tokenizer: Tokenizer

  /// The format for a tokenizer that has its control tokens.
  ///
  /// - Throws: `CheckpointError` naming `model` and the token that is missing.
  public init(_ tokenizer: Tokenizer, model: String) throws {
    func token(_ spelling: String) throws -> Int32 {
      guard let id = tokenizer.controlToken(spelling) else {
        throw CheckpointError(
          file: model, found: "a tokenizer without the control token \(spelling)",
          expected: "\(ChatML.begin) and \(ChatML.end): conversations are written in ChatML, others are not built yet")
      }
      return id
    }
    beginOfTurn = try token(ChatML.begin)
    endOfTurn = try token(ChatML.end)
    self.tokenizer = tokenizer
  }

  /// The tokens of a user's turn and of the beginning of the answer, behind `conversation`: what was said so far, or nothing.
  ///
  /// An answer that lacks its end of turn is given one.
  public func turn(_ content: String, after conversation: [Int32] = []) -> [Int32] {
    var ids = conversation
    if ids.isEmpty {
      if tokenizer.addsBeginToken, let begin = tokenizer.beginToken { ids.append(begin) }
    } else {
      if ids.last != endOfTurn { ids.append(endOfTurn) }
      ids += text(ChatML.separator)
    }
    ids.append(beginOfTurn)
    ids += text(ChatML.heading("user") + content)
    ids.append(endOfTurn)
    ids += text(ChatML.separator)
    ids.append(beginOfTurn)
    return ids + text(ChatML.heading("assistant"))
  }

  private func text(_ text: String) -> [Int32] { tokenizer.encode(text) }
}
