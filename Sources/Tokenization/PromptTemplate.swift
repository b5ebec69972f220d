/// How an instruction becomes the text before an answer.
///
/// The texts of `moe_peft` and `alpaca` are those of MoE-PEFT's prompter to the byte; what follows is the answer itself.
public enum PromptTemplate: String, CaseIterable, Sendable {
  /// MoE-PEFT's own.
  case moePEFT = "moe_peft"
  /// Alpaca-LoRA's.
  case alpaca
  /// ChatML: a user's turn, and the beginning of the assistant's.
  case chatML = "chatml"

  /// The prompt for an instruction; an empty input counts as none.
  public func prompt(instruction: String, input: String? = nil) -> String {
    let input = input.flatMap { $0.isEmpty ? nil : $0 }
    switch self {
    case .moePEFT:
      return "### Instruction:\n\(instruction)\n\n" + (input.map { "### Input:\n\($0)\n\n" } ?? "") + "### Output:\n"
    case .alpaca:
      let opening =
        input == nil
        ? "Below is an instruction that describes a task. "
        : "Below is an instruction that describes a task, paired with an input that provides further context. "
      return opening + "Write a response that appropriately completes the request.\n\n### Instruction:\n\(instruction)\n\n"
        + (input.map { "### Input:\n\($0)\n\n" } ?? "") + "### Response:\n"
    case .chatML:
      let content = input.map { "\(instruction)\n\n\($0)" } ?? instruction
      return ChatMessage.chatML([ChatMessage(role: "user", content: content)], beginsAnswer: true)
    }
  }
}

/// One turn of a conversation.
public struct ChatMessage: Equatable, Sendable {
  /// Who speaks: "system", "user" or "assistant".
  public var role: String
  /// What is said.
  public var content: String

  /// A turn.
  public init(role: String, content: String) {
    self.role = role
    self.content = content
  }
  /// A conversation in ChatML: `<|im_start|>role⏎content<|im_end|>⏎` for each turn.
  ///
  /// - Parameters:
  ///   - system: what the system says where the first turn is not its own; SmolLM2's template puts its own words there.
  ///   - beginsAnswer: whether the beginning of the assistant's turn follows.
  public static func chatML(_ messages: [ChatMessage], system: String? = nil, beginsAnswer: Bool = false) -> String {
    var text = ""
    if let system, messages.first?.role != "system" { text += chatML([ChatMessage(role: "system", content: system)]) }
    for message in messages { text += "<|im_start|>\(message.role)\n\(message.content)<|im_end|>\n" }
    return text + (beginsAnswer ? "<|im_start|>assistant\n" : "")
  }
}
