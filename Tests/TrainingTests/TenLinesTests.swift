import MixLoRA
import Testing

/// The lines that README promises: one import, nothing named but model, data and folder.
@Suite struct TenLinesTests {
  @Test func aFewLinesTrainAnAdapterAndGenerateWithIt() throws {
    let place = try TrainingCase()
    let run = try TrainingRun(.mixlora(rank: 8, experts: 8), model: place.model, data: place.data, steps: 3)
    try run.run()
    try run.save(to: place.out)
    let text = try LoadedModel(place.model, adapter: place.out).generate("What is one?")
    #expect(run.metrics.count == 3 && !text.isEmpty)
  }

  @Test func severalPromptsAndAConversation() throws {
    let place = try TrainingCase()
    let model = try LoadedModel(place.model, threads: 1)
    let settings = GenerationSettings(tokens: 5)
    let texts = try model.generate(["So", "Is it"], settings)
    let alone = try model.generate("So", settings)
    #expect(texts.count == 2 && texts[0].text == alone)
    let conversation = try model.chat(settings)
    let first = try conversation.say("Hello")
    let answers = try model.generate(["Hello"], settings, chat: ChatSettings())
    #expect([first] == answers)
    let said = conversation.ids.count
    _ = try conversation.say("So")
    #expect(conversation.ids.count > said)
    #expect(throws: PromptError.self) { try model.generate("") }
    #expect(throws: PromptError.self) { try model.generate(String(repeating: "a", count: 65)) }
  }

  /// A token beyond the embedding hurts nobody until a text has it.
  @Test func aTokenBeyondTheEmbeddingIsRefusedWhereItIsNeeded() throws {
    let place = try TrainingCase()
    try AtomicFile.write(
      #"{"tokenizer_class":"PreTrainedTokenizerFast","pad_token":"<pad>","bos_token":"<begin>"}"#,
      to: place.model + "/tokenizer_config.json")
    let model = try LoadedModel(place.model, threads: 1)
    #expect(try !model.generate("So", GenerationSettings(tokens: 2)).isEmpty)
    try AtomicFile.write(#"{"tokenizer_class":"LlamaTokenizer","bos_token":"<begin>"}"#, to: place.model + "/tokenizer_config.json")
    let beginning = try LoadedModel(place.model, threads: 1)
    #expect(throws: CheckpointError.self) { try beginning.generate("So", GenerationSettings(tokens: 2)) }
    #expect(throws: CheckpointError.self) { try beginning.chat(GenerationSettings(tokens: 2)).say("<begin>") }
  }
}
