import Checkpoints
import Samples
import TestModels
import Testing
import Tokenization

/// Conversations as tokens, and which of them are learnt.
@Suite struct SampleTests {
  private func layout(_ template: String = ChatML.template, system: String? = nil) throws -> ChatLayout {
    try ChatLayout(ChatTemplate(template, file: "template"), TalkingModel.tokenizer(), system: system)
  }

  private func messages(_ turns: (String, String)...) -> [ChatMessage] { turns.map { ChatMessage(role: $0, content: $1) } }

  /// All tokens as text, and those that count.
  private func spelled(_ sample: EncodedSample) throws -> (text: String, counted: String) {
    let tokenizer = try TalkingModel.tokenizer()
    let counted = zip(sample.ids, sample.isLabel).map { $1 ? $0 : Int32(60) }  // a line break stands for what does not
    return (tokenizer.decodeText(sample.ids), tokenizer.decodeText(counted).split(separator: "\n").joined(separator: "|"))
  }

  @Test func ofChatMLTheAssistantsWordsAndTheirEndsAreLearnt() throws {
    let conversation = LearntConversation(messages(("user", "Hi"), ("assistant", "Yes"), ("user", "So"), ("assistant", "No")))
    let (text, counted) = try spelled(EncodedSample(conversation, with: layout(), lossOn: .answer))
    #expect(
      text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nSo<|im_end|>\n"
        + "<|im_start|>assistant\nNo<|im_end|>\n")
    #expect(counted == "Yes<|im_end|>|No<|im_end|>")
    let some = LearntConversation(conversation.messages, learning: [3], leavingOut: [1])
    #expect(try spelled(EncodedSample(some, with: layout(), lossOn: .answer)).counted == "No<|im_end|>")
  }

  @Test func theSystemTurnThatWasAskedForStandsInstead() throws {
    let chat = try layout(system: "Be kind.")
    let added = try chat.text(messages(("user", "Hi")), addsGenerationPrompt: true)
    #expect(added == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    #expect(try chat.text(messages(("system", "No."), ("user", "Hi")), addsGenerationPrompt: true) == added)
    let conversation = LearntConversation(messages(("user", "Hi"), ("assistant", "Yes")))
    #expect(try spelled(EncodedSample(conversation, with: chat, lossOn: .answer)).counted == "Yes<|im_end|>")
  }

  @Test func generationBlocksDecideWhereATemplateHasThem() throws {
    let template = """
      {% for m in messages %}{{ '<|im_start|>' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}.{% endgeneration %}\
      {% else %}{{ m.content }}{% endif %}{{ '<|im_end|>' }}{% endfor %}
      """
    let conversation = LearntConversation(messages(("user", "Hi"), ("assistant", "Yes"), ("user", "So"), ("assistant", "No")))
    #expect(try spelled(EncodedSample(conversation, with: layout(template), lossOn: .answer)).counted == "Yes.|No.")
    let some = LearntConversation(conversation.messages, learning: [1])
    #expect(try spelled(EncodedSample(some, with: layout(template), lossOn: .answer)).counted == "Yes.")
  }

  /// Templates of models that think: the prompt opens a thought, and earlier turns lose theirs.
  @Test func turnsAreFoundWhereTheTemplateWritesEarlierOnesOtherwise() throws {
    let template = """
      {% for m in messages %}{% set words = m.content %}{% if m.role == 'assistant' and not loop.last %}\
      {% set words = m.content.split('T')[-1] %}{% endif %}\
      {{ '<|im_start|>' + m.role + ' ' + words + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant why{% endif %}
      """
    let conversation = LearntConversation(messages(("user", "Hi"), ("assistant", "aTYes"), ("user", "So"), ("assistant", "bTNo")))
    let (_, counted) = try spelled(EncodedSample(conversation, with: layout(template), lossOn: .answer))
    #expect(counted == "Yes<|im_end|>|bTNo<|im_end|>")
    // The system's words go to the last turn of the user, so that what stands before the first answer changes.
    let moved = """
      {% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' }}{% if loop.index0 >= messages | length - 2 %}S {% endif %}\
      {{ m.content }}{{ '<|im_end|>' }}{% else %}{{ m.content }}{{ '<|im_end|>' }}{% endif %}{% endfor %}
      """
    #expect(try spelled(EncodedSample(conversation, with: layout(moved), lossOn: .answer)).counted == "aTYes<|im_end|>|bTNo<|im_end|>")
  }

  @Test func aTurnThatATemplateDoesNotShowIsAnError() throws {
    let hidden = "{% for m in messages %}{% if not loop.last %}{{ loop.index }}{{ messages | length }}{% endif %}{% endfor %}<|im_end|>"
    let conversation = LearntConversation(messages(("assistant", "a"), ("user", "b")))
    let error = try #require(throws: CheckpointError.self) {
      try EncodedSample(conversation, with: layout(hidden), lossOn: .answer)
    }
    #expect(error.found.contains("message 1"))
    #expect(throws: CheckpointError.self) { try layout("{{ raise_exception('no') }}").text([], addsGenerationPrompt: false) }
  }

  // MARK: Published reports, with the tokens of transformers 4.46.3

  private func reported(_ name: String, _ turns: [ChatMessage]) throws -> EncodedSample {
    let folder = Fixture.path("reports/" + name)
    let chat = try ChatLayout(model: folder, Tokenizer(model: folder))
    return try EncodedSample(LearntConversation(turns), with: chat, lossOn: .answer)
  }

  @Test func aModelsOwnTemplateIsFollowedAndNotChatML() throws {
    let name = "chatml-written-as-plain-text"
    let sample = try reported(name, messages(("user", "hi"), ("assistant", "hello")))
    #expect(sample.ids == [0, 2, 89, 87, 261, 3, 203, 203, 76, 77, 4, 2, 296, 77, 272, 291, 88, 3, 203, 203, 262, 263, 83, 4])
    // The template has no generation prompt: a model that answers begins its turn itself, so it learns that.
    #expect(zip(sample.ids, sample.isLabel).filter(\.1).map(\.0) == [2, 296, 77, 272, 291, 88, 3, 203, 203, 262, 263, 83, 4])
    let folder = Fixture.path("reports/" + name)
    let tokenizer = try Tokenizer(model: folder)
    #expect(try ChatLayout(model: folder, tokenizer).endOfTurn == 4)
    #expect(throws: CheckpointError.self) { try ChatLayout(model: folder, tokenizer, template: "chatml") }
  }

  /// Whether a begin token stands before a text is what tokenizer_config.json says, whatever template tokenizer.json has.
  @Test func theSettingsOfATokenizerSayWhetherItBeginsTexts() throws {
    for (name, ids) in [
      ("add-bos-token-of-tokenizer-config", [0, 263, 264, 80, 274] as [Int32]),
      ("no-add-bos-token-of-tokenizer-config", [263, 264, 80, 274]),
    ] {
      let tokenizer = try Tokenizer(model: Fixture.path("reports/" + name))
      let sample = EncodedSample(
        TextSample(text: Array("the boat".utf8), answers: [0..<8]), with: tokenizer, lossOn: .answer, addsEndToken: true)
      #expect(sample.ids == ids + [1], "\(name)")
      #expect(tokenizer.addsBeginToken == (ids.count == 5))
    }
  }

  @Test func aTokenizerOfSentencePiecesKindIsRead() throws {
    let tokenizer = try Tokenizer(model: Fixture.path("reports/sentencepiece-style-tokenizer"))
    let sample = EncodedSample(TextSample(prompt: "a b", answer: " c"), with: tokenizer, lossOn: .answer, addsEndToken: true)
    #expect(sample.ids == [1, 296, 319, 293, 273, 2])
    #expect(zip(sample.ids, sample.isLabel).filter(\.1).map(\.0).last == 2)
  }

  @Test func theSystemTurnOfATemplateStandsWhereAConversationHasNone() throws {
    let sample = try reported("default-system-turn-of-chat-template", messages(("user", "hi"), ("assistant", "hello")))
    #expect(
      sample.ids == [
        1, 85, 91, 270, 299, 201, 68, 71, 223, 77, 266, 70, 2, 201, 1, 87, 85, 259, 201, 74, 75, 2, 201, 1, 294, 75, 270, 289, 86, 201, 260,
        261, 81, 2, 201,
      ])
    #expect(zip(sample.ids, sample.isLabel).filter(\.1).map(\.0) == [260, 261, 81, 2])
  }
}
