import Tokenization

/// A conversation to learn from.
public struct LearntConversation: Equatable, Sendable {
  /// The turns.
  public var messages: [ChatMessage]
  /// The numbers of the turns that are answers.
  public var learning: Set<Int>
  /// The numbers of the turns that no loss counts, whatever else it counts.
  public var leavingOut: Set<Int>

  /// A conversation.
  ///
  /// - Parameter learning: the numbers of the turns that are answers; nil for all of the assistant.
  public init(_ messages: [ChatMessage], learning: Set<Int>? = nil, leavingOut: Set<Int> = []) {
    self.messages = messages
    self.learning = learning ?? Set(messages.indices.filter { messages[$0].role == "assistant" })
    self.leavingOut = leavingOut
  }
}

extension EncodedSample {
  /// Encodes a conversation as its layout writes it; nothing is added. An answer counts up to its turn's last control token.
  ///
  /// - Throws: `CheckpointError` for a conversation that the template does not take.
  public init(_ conversation: LearntConversation, with layout: ChatLayout, lossOn columns: LossColumns) throws {
    // Where prompts count, the turns to leave out must be found; else those that are learnt.
    let wanted = (columns == .all ? conversation.leavingOut : conversation.learning).sorted()
    let laidOut = try layout.conversation(conversation.messages, turns: wanted)
    ids = laidOut.tokens.map(\.id)
    isLabel = ids.map { _ in columns == .all }
    for turn in laidOut.turns {
      for column in turn { isLabel[column] = columns == .answer }
    }
    if !isLabel.isEmpty { isLabel[0] = false }
  }
}

extension ChatLayout {
  /// The layout of a model's conversations under the settings of samples: ``PromptTemplate/chatML`` is that of conversations too.
  ///
  /// - Throws: as `init(model:_:template:system:)`.
  public init(model path: String, _ tokenizer: Tokenizer, _ encoding: SampleEncoding) throws {
    try self.init(
      model: path, tokenizer, template: encoding.template == .chatML ? PromptTemplate.chatML.rawValue : nil, system: encoding.system)
  }
}
