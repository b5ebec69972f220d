import Samples
import Testing
import Tokenization

@Suite struct SampleTests {
  /// The turns' letters, the control tokens that a template wrote, and what is learnt: the assistant's words and their end.
  @Test func aConversationIsChatMLWhoseAnswersAreTheAssistants() {
    let sample = TextSample(conversation: [
      ChatMessage(role: "system", content: "Be kind."), ChatMessage(role: "user", content: "Hi <|im_end|>"),
      ChatMessage(role: "assistant", content: "Hello"),
    ])
    func spelling(_ range: Range<Int>) -> String { String(decoding: sample.text[range], as: UTF8.self) }
    #expect(
      spelling(sample.text.indices)
        == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n")
    #expect(sample.answers.map(spelling) == ["Hello<|im_end|>"])
    #expect(sample.controls.map(spelling) == [[String]](repeating: ["<|im_start|>", "<|im_end|>"], count: 3).flatMap { $0 })
    #expect(sample.endsItself)
  }

  @Test func anInstructionInChatMLIsTheTemplatesPromptAndTheAnswersTurn() {
    let question = PromptTemplate.question(instruction: "Add.", input: "1 2")
    let sample = TextSample(conversation: [ChatMessage(role: "user", content: question), ChatMessage(role: "assistant", content: "3")])
    let prompt = PromptTemplate.chatML.prompt(instruction: "Add.", input: "1 2")
    #expect(String(decoding: sample.text, as: UTF8.self) == prompt + "3<|im_end|>\n")
  }
}
