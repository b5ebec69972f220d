import Checkpoints

/// Conversations as tokens: a template's text, in which control tokens are parsed and to which nothing is added.
public struct ChatLayout: Sendable {
  /// A conversation and what of it is generated.
  public struct Conversation: Equatable, Sendable {
    /// The tokens with the bytes of the text that they stand for.
    public var tokens: [Tokenizer.Token]
    /// The tokens of each turn that was asked for, up to its last control token.
    public var turns: [Range<Int>]
  }

  /// The template.
  public let template: ChatTemplate
  private let tokenizer: Tokenizer
  private let system: String?

  /// The layout of a model's conversations.
  ///
  /// - Parameters:
  ///   - path: the model: its own template counts; without one ChatML, if the tokenizer has its control tokens.
  ///   - name: `chatml` or a file, instead of the model's own template.
  ///   - system: the words of the system turn, instead of those of a conversation.
  /// - Throws: `CheckpointError` for a template that is none, and where there is none.
  public init(model path: String, _ tokenizer: Tokenizer, template name: String? = nil, system: String? = nil) throws {
    self.tokenizer = tokenizer
    self.system = system
    if name != "chatml" {
      if let name {
        template = try ChatTemplate(named: name, model: path)
        return
      }
      if let own = try ChatTemplate(model: path) {
        template = own
        return
      }
    }
    for token in [ChatML.begin, ChatML.end] where tokenizer.controlToken(token) == nil {
      throw CheckpointError(
        file: path, found: name == nil ? "no chat template, and a tokenizer without \(token)" : "a tokenizer without \(token)",
        expected: name == nil
          ? "chat_template in tokenizer_config.json, a chat_template.jinja, or the control tokens of ChatML"
          : "\(ChatML.begin) and \(ChatML.end), the control tokens of ChatML")
    }
    template = try ChatTemplate(named: "chatml", model: path)
  }

  /// The layout of a template.
  ///
  /// - Parameter system: the words of the system turn, instead of those of a conversation.
  public init(_ template: ChatTemplate, _ tokenizer: Tokenizer, system: String? = nil) {
    (self.template, self.tokenizer, self.system) = (template, tokenizer, system)
  }

  /// The turns with the system turn that was asked for.
  private func complete(_ messages: [ChatMessage]) -> [ChatMessage] {
    guard let system else { return messages }
    if messages.first?.role == "system" { return [messages[0].saying(system)] + messages.dropFirst() }
    return [ChatMessage(role: "system", content: system)] + messages
  }

  /// A conversation as text.
  ///
  /// - Throws: `CheckpointError` for one that the template does not take.
  public func text(_ messages: [ChatMessage], addsGenerationPrompt: Bool) throws -> String {
    try template.text(complete(messages), addsGenerationPrompt: addsGenerationPrompt).text
  }

  /// A conversation as tokens.
  ///
  /// - Throws: `CheckpointError` for one that the template does not take.
  public func tokens(_ messages: [ChatMessage], addsGenerationPrompt: Bool) throws -> [Int32] {
    tokenizer.encode(try text(messages, addsGenerationPrompt: addsGenerationPrompt), parsingControlTokens: true)
  }

  /// The control token that ends an answer; nil if there is none or nobody can tell.
  public var endOfTurn: Int32? {
    let messages = [ChatMessage(role: "user", content: "Hi"), ChatMessage(role: "assistant", content: "Hello")]
    guard let laidOut = try? conversation(messages, turns: [1]), let turn = laidOut.turns.first, let last = turn.last else { return nil }
    let id = laidOut.tokens[last].id
    return tokenizer.isControl(id) ? id : nil
  }

  // MARK: Turns

  /// A conversation as tokens, and those of the turns of the given numbers: from the end of the generation prompt to the last control
  /// token, or what the template itself marks as generated.
  ///
  /// - Throws: `CheckpointError` for a conversation that the template does not take, and for a turn that is not to be found in it.
  public func conversation(_ messages: [ChatMessage], turns: [Int]) throws -> Conversation {
    let all = complete(messages)
    let shift = all.count - messages.count
    let (text, generations) = try template.text(all)
    let tokens = tokenizer.encodeWithOffsets(text, parsingControlTokens: true)
    if !generations.isEmpty {
      let marked = generations.map { bytes in
        Self.range(tokens) { $0.range.lowerBound < bytes.upperBound && $0.range.upperBound > bytes.lowerBound }
      }
      let speakers = messages.indices.filter { messages[$0].role == "assistant" }
      if turns == speakers { return Conversation(tokens: tokens, turns: marked) }
      guard speakers.count == marked.count else {
        throw CheckpointError(
          file: template.file, found: "\(marked.count) generated parts of \(speakers.count) turns of the assistant",
          expected: "one of each where not all of them are learnt")
      }
      return Conversation(tokens: tokens, turns: turns.compactMap { turn in speakers.firstIndex(of: turn).map { marked[$0] } })
    }
    let bytes = Array(text.utf8)
    let isControl = controls(tokens)
    let ranges = try turns.map { turn in
      let place = try self.place(of: turn + shift, in: all, bytes)
      let words = Self.range(tokens) { $0.range.upperBound > place.start && $0.range.upperBound <= place.end ?? bytes.count }
      if place.end == nil {
        // The turn's end is the first control token behind its words.
        let end = words.first { tokens[$0].range.lowerBound >= place.wordsEnd && isControl[$0] }
        return words.lowerBound..<(end.map { $0 + 1 } ?? words.upperBound)
      }
      return words.lowerBound..<(words.last { isControl[$0] }.map { $0 + 1 } ?? words.upperBound)
    }
    return Conversation(tokens: tokens, turns: ranges)
  }

  private static func range(_ tokens: [Tokenizer.Token], _ isWanted: (Tokenizer.Token) -> Bool) -> Range<Int> {
    guard let first = tokens.firstIndex(where: isWanted), let last = tokens.lastIndex(where: isWanted) else { return 0..<0 }
    return first..<(last + 1)
  }

  private func controls(_ tokens: [Tokenizer.Token]) -> [Bool] {
    var known: [Int32: Bool] = [:]
    return tokens.map { token in
      if let known = known[token.id] { return known }
      let isControl = tokenizer.isControl(token.id)
      known[token.id] = isControl
      return isControl
    }
  }

  /// Where a turn stands in the text of its conversation: from the end of the generation prompt to where the conversation would end
  /// with it. Where a template writes earlier turns otherwise once others follow, the place of the words is looked for instead.
  private func place(of turn: Int, in messages: [ChatMessage], _ text: [UInt8]) throws -> (start: Int, end: Int?, wordsEnd: Int) {
    func bytes(_ messages: ArraySlice<ChatMessage>, _ addsGenerationPrompt: Bool) -> [UInt8]? {
      (try? template.text(Array(messages), addsGenerationPrompt: addsGenerationPrompt)).map { Array($0.text.utf8) }
    }
    func begins(_ part: [UInt8]?) -> Int? { part.flatMap { text.starts(with: $0) ? $0.count : nil } }
    let end = turn == messages.count - 1 ? text.count : begins(bytes(messages[...turn], false))
    let prompt = bytes(messages[..<turn], true)
    var start = begins(prompt)
    if start == nil, let prompt, let history = begins(bytes(messages[..<turn], false)), prompt.count > history {
      // The generation prompt says more than the turn does (an opened thought): what they share is the prompt.
      start = zip(prompt, text).prefix { $0 == $1 }.count
    }
    if let start, let end { return (start, end, end) }
    guard let words = words(of: turn, in: messages, text) else {
      throw CheckpointError(
        file: template.file, found: "a template that does not show message \(turn + 1) as it is",
        expected: "one that does, so that its tokens can be told from the others, or {% generation %} blocks")
    }
    return (start ?? words.lowerBound, end, words.upperBound)
  }

  /// The bytes of a turn's words: what changes when it says something else.
  private func words(of turn: Int, in messages: [ChatMessage], _ text: [UInt8]) -> Range<Int>? {
    let marker = "qzMARKERzq"
    var changed = messages
    changed[turn] = messages[turn].saying(marker)
    guard let other = (try? template.text(changed)).map({ Array($0.text.utf8) }) else { return nil }
    let mark = Array(marker.utf8)
    guard let place = other.indices.first(where: { other[$0...].starts(with: mark) }), text.starts(with: other[..<place]) else {
      return nil
    }
    let rest = other[(place + mark.count)...]
    guard text.count >= place + rest.count, text.suffix(rest.count).elementsEqual(rest) else { return nil }
    return place..<(text.count - rest.count)
  }
}

extension Tokenizer {
  /// Whether a token is a control token: one that text becomes only where control tokens are parsed.
  public func isControl(_ id: Int32) -> Bool {
    guard let spelling = idToToken(id), controlToken(spelling) == id else { return false }
    return encode(spelling) != [id]
  }
}
