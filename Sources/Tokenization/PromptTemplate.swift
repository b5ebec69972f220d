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
      let content = Self.question(instruction: instruction, input: input)
      return "\(ChatML.begin)user\n\(content)\(ChatML.end)\n\(ChatML.begin)assistant\n"
    }
  }

  /// What a user says in ChatML: the instruction, and behind an empty line the input; an empty input counts as none.
  public static func question(instruction: String, input: String?) -> String {
    guard let input, !input.isEmpty else { return instruction }
    return "\(instruction)\n\n\(input)"
  }
}
