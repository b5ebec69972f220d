import Testing

@testable import Tokenization

@Suite struct PromptTemplateTests {
  @Test func moePEFTsTextIsExact() {
    #expect(
      PromptTemplate.moePEFT.prompt(instruction: "Add.", input: "1 2") == "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Output:\n")
    #expect(PromptTemplate.moePEFT.prompt(instruction: "Add.") == "### Instruction:\nAdd.\n\n### Output:\n")
    #expect(PromptTemplate.moePEFT.prompt(instruction: "Add.", input: "") == "### Instruction:\nAdd.\n\n### Output:\n")
  }

  @Test func alpacasTextIsExact() {
    #expect(
      PromptTemplate.alpaca.prompt(instruction: "Add.", input: "1 2")
        == "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
    )
    #expect(
      PromptTemplate.alpaca.prompt(instruction: "Add.")
        == "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Response:\n"
    )
  }

  @Test func chatMLMarksEveryTurn() {
    #expect(PromptTemplate.chatML.prompt(instruction: "Hi") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    #expect(PromptTemplate.chatML.prompt(instruction: "Add.", input: "1 2").contains("user\nAdd.\n\n1 2<|im_end|>\n"))
  }

  @Test func theNamesAreThoseOfTheConfiguration() {
    #expect(PromptTemplate.allCases.map(\.rawValue) == ["moe_peft", "alpaca", "chatml"])
  }
}
