import Checkpoints
import Decoders
import Tensors
import Tokenization

/// A model ready to talk: its files, its adapters, and its tokenizer.
///
///     let model = try LoadedModel(path, adapter: "out", on: backend)
///     print(try model.generate("The capital of France is"))
public struct LoadedModel<B: Backend> {
  /// The model.
  public let decoder: Decoder<B>
  /// Its tokenizer.
  public let tokenizer: Tokenizer
  /// What its files leave open or say in vain, and a user may want to know of: a sentence each.
  public let notes: [String]
  /// The most tokens that a sequence may have.
  public let positions: Int
  let backend: B
  private let path: String
  /// Rows of the embedding. A tokenizer may have more tokens, as long as none of them is needed.
  private let vocabulary: Int
  /// Positions of a model that does not say how many it has.
  private static var usualPositions: Int { 32_768 }
  /// Positions at most, whatever a file says: a table of angles grows up to them.
  private static var mostPositions: Int { 1 << 20 }

  /// Reads a model.
  ///
  /// - Parameters:
  ///   - path: a Hugging Face folder with its tokenizer, or a GGUF file.
  ///   - adapter: the folder of a MixLoRA or LoRA adapter.
  /// - Throws: `CheckpointError` for everything that is missing, wrong or not built yet.
  public init(_ path: String, adapter: String? = nil, on backend: B) throws {
    try self.init(path, adapters: adapter.map { [$0] } ?? [], on: backend)
  }

  /// Reads a model and several adapters over it, each of which then answers.
  ///
  /// - Throws: as with one adapter, and where one of several changes the base.
  public init(_ path: String, adapters: [String], on backend: B) throws {
    tokenizer = try Tokenizer(model: path)
    let files = try ModelFolder(path)
    notes = tokenizer.notes + files.configuration.notes(on: path)
    vocabulary = files.configuration.vocabulary
    positions = min(files.configuration.contextLength ?? Self.usualPositions, Self.mostPositions)
    decoder = try files.decoder(adapters: adapters.map { .folder($0) }, on: backend)
    self.path = path
    self.backend = backend
  }

  /// Continues a text.
  ///
  /// - Parameter settings: how tokens are chosen and when the text ends.
  /// - Throws: ``PromptError`` for a text of no token or too many, `NonFiniteValue` for logits, and what the device reports.
  public func generate(_ text: String, _ settings: GenerationSettings = GenerationSettings()) throws -> String {
    try generate([text], settings)[0].text
  }

  /// Continues several texts in one batch; each becomes what it would become alone, up to rounding. With several adapters all are
  /// continued under each, one adapter's after the other's.
  ///
  /// - Parameters:
  ///   - texts: taken as they are, behind a begin token where the tokenizer adds one; control tokens in them stay text.
  ///   - chat: how each is laid out as a user's turn of a conversation, whose answer comes out; nil if it is a text.
  ///   - onText: hears the text of each as it becomes certain, and that it has ended.
  /// - Throws: as `generate(_:_:)`; `CheckpointError` for a chat without a template that takes it, and for a token of a text that the
  ///   embedding does not have; what `onText` throws.
  public func generate(
    _ texts: [String], _ settings: GenerationSettings = GenerationSettings(), chat: ChatSettings? = nil,
    onText: (_ text: Int, _ piece: String, _ hasEnded: Bool) throws -> Void = { _, _, _ in }
  ) throws -> [GeneratedText] {
    let layout = try chat.map { try ChatLayout(model: path, tokenizer, template: $0.template, system: $0.system) }
    let prompts = try texts.map { text in
      try layout?.tokens([ChatMessage(role: "user", content: text)], addsGenerationPrompt: true) ?? tokens(of: text)
    }
    for (n, ids) in prompts.enumerated() {
      guard !ids.isEmpty else {
        throw PromptError(prompt: n, "is empty and the tokenizer adds no begin token; expected at least one token to go on from")
      }
      guard ids.count <= positions else {
        throw PromptError(prompt: n, "has \(ids.count) tokens, expected at most \(positions), the model's positions")
      }
      try requireKnown(ids)
    }
    let all = Array(repeatElement(prompts, count: max(1, decoder.adapters.count)).joined())
    return try generator(settings, layout).generate(
      all, DecodingState(decoder, sequences: prompts.count, on: backend), onText: onText)
  }

  /// The tokens of a text as `generate` reads it.
  public func tokens(of text: String) -> [Int32] { tokenizer.prompt(text) }

  private func generator(_ settings: GenerationSettings, _ layout: ChatLayout?) -> Generator<B> {
    let ends = tokenizer.endTokens.union(layout?.endOfTurn.map { [$0] } ?? [])
    let limits = GenerationLimits(tokens: settings.tokens, positions: positions, endTokens: ends, stops: settings.stops)
    return Generator(tokenizer, settings.sampler, limits, on: backend)
  }

  /// - Throws: `CheckpointError` for a token that the embedding does not have.
  private func requireKnown(_ ids: [Int32]) throws {
    guard let id = ids.first(where: { $0 >= vocabulary }) else { return }
    throw CheckpointError(
      file: path, found: "text with the tokenizer's token \(id)", expected: "tokens below \(vocabulary), the vocabulary of the model")
  }

  /// Begins a conversation.
  ///
  /// - Precondition: there is one adapter at most.
  /// - Throws: `CheckpointError` for a model without a chat template, and a template that is none.
  public func chat(_ settings: GenerationSettings = GenerationSettings(), _ chat: ChatSettings = ChatSettings()) throws -> Conversation<B> {
    guard decoder.adapters.count <= 1 else { trap("LoadedModel.chat: \(decoder.adapters.count) adapters, expected one at most") }
    let layout = try ChatLayout(model: path, tokenizer, template: chat.template, system: chat.system)
    return Conversation(
      layout, generator(settings, layout), DecodingState(decoder, sequences: 1, on: backend), positions: positions, check: requireKnown)
  }
}

extension Tokenizer {
  /// The tokens of a text that a model goes on from: the begin token first, where the tokenizer adds one.
  public func prompt(_ text: String) -> [Int32] {
    (addsBeginToken ? beginToken.map { [$0] } ?? [] : []) + encode(text)
  }
}
