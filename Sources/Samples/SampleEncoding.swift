import Checkpoints
import Tokenization

/// How texts become samples of tokens, and which of their columns a loss counts.
public struct SampleEncoding: Equatable, Sendable {
  /// Tokens that a sample may have; 0: as many as the model has positions.
  public var length = 512
  /// What becomes of a sample that has more.
  public var tooLong = TooLong.cut
  /// Prompt of instruction records.
  public var template = PromptTemplate.moePEFT
  /// The columns that the loss counts.
  public var lossOn = EncodedSample.LossColumns.answer
  /// Whether an end token follows each sample.
  public var addsEndToken = true
  /// The words of the system turn of conversations, instead of their own.
  public var system: String?

  /// What becomes of a sample of more tokens than it may have.
  public enum TooLong: String, Sendable, CaseIterable {
    /// It keeps its first tokens; with none left that counts it is dropped.
    case cut
    /// It is left out.
    case drop
    /// It is an error.
    case error
  }

  /// The settings that training has by default.
  public init() {}

  /// Refuses what no sample can be.
  ///
  /// - Throws: ``SettingsError`` naming the setting.
  public func check() throws {
    guard length >= 2 || length == 0 else {
      throw SettingsError("\(setting: "length") is \(length), expected at least 2, or 0 for the positions of the model.")
    }
  }

  /// The samples as tokens: too long ones as ``tooLong`` says, those without a token that counts left out.
  ///
  /// - Parameters:
  ///   - chat: the layout of conversations, asked for once there is one.
  ///   - vocabulary: how many tokens the model knows: an id beyond them would reach outside its embedding.
  ///   - positions: how many positions the model has, where a length of 0 asks for as many; nil: any number.
  ///   - file: where the texts come from, for messages.
  ///   - note: hears what was done to samples that a user may want to know of.
  /// - Throws: `CheckpointError` for a token that the model does not have, for a sample that is too long and must not be, and where
  ///   nothing is left.
  public func samples(
    _ texts: [TextSample], with encoder: some TextEncoder, chat: @autoclosure () throws -> ChatLayout? = nil, vocabulary: Int,
    positions: Int? = nil, from file: String,
    note: (SettingsText) -> Void = { _ in }
  ) throws -> EncodedSamples {
    let length = length == 0 ? positions ?? .max : length
    var layout: ChatLayout?
    func encoded(_ text: TextSample) throws -> EncodedSample {
      guard let conversation = text.conversation else {
        return EncodedSample(text, with: encoder, lossOn: lossOn, addsEndToken: addsEndToken)
      }
      guard let chat = try layout ?? chat() else {
        throw CheckpointError(file: text.name.isEmpty ? file : text.name, found: "a conversation", expected: "a text: nothing lays it out")
      }
      layout = chat
      do { return try EncodedSample(conversation, with: chat, lossOn: lossOn) } catch let error as CheckpointError {
        throw CheckpointError(
          file: text.name.isEmpty ? file : text.name, found: "a conversation that \(error.file) does not take, \(error.found)",
          expected: error.expected)
      }
    }
    var (result, tooLongOnes, uncounted) = (EncodedSamples(), 0, 0)
    for text in texts {
      var sample = try encoded(text)
      let isTooLong = sample.ids.count > length
      if isTooLong {
        switch tooLong {
        case .cut: sample.cut(to: length)
        case .drop:
          tooLongOnes += 1
          continue
        case .error:
          throw CheckpointError(
            file: text.name.isEmpty ? file : text.name, found: "a sample of \(sample.ids.count) tokens", expected: "at most \(length)")
        }
      }
      guard sample.isLabel.contains(true) else {
        uncounted += 1
        continue
      }
      if let id = sample.ids.first(where: { $0 >= vocabulary }) {
        throw CheckpointError(
          file: text.name.isEmpty ? file : text.name, found: "text with the tokenizer's token \(id)",
          expected: "tokens below \(vocabulary), the vocabulary of the model")
      }
      if isTooLong { result.cut += 1 }
      result.samples.append(sample)
    }
    result.dropped = tooLongOnes + uncounted
    let isOpen = addsEndToken && encoder.endToken == nil && texts.contains { !$0.endsItself }
    for text in notes(of: file, texts.count, length, cut: result.cut, tooLong: tooLongOnes, uncounted: uncounted, isOpen: isOpen) {
      note(text)
    }
    guard !result.samples.isEmpty else {
      throw CheckpointError(
        file: file, found: "no sample with a token that counts among \(texts.count)",
        expected: "at least one\(tooLongOnes > 0 ? "; \(tooLongOnes) have more than \(length) tokens" : "")")
    }
    return result
  }

  private func notes(of file: String, _ count: Int, _ length: Int, cut: Int, tooLong: Int, uncounted: Int, isOpen: Bool) -> [SettingsText] {
    var notes: [SettingsText] = []
    // A length of 0 is no number of tokens.
    let (more, first): (SettingsText, SettingsText) =
      self.length == 0
      ? ("more tokens than the \(length) positions of the model", length == .max ? "" : " among the \(length) positions of the model")
      : ("more than \(setting: "length") \(length) tokens", " among the first \(setting: "length") \(length)")
    if cut > 0 { notes.append("\(cut) of \(count) samples of \(file) have \(more) and were cut to the first \(length)") }
    if tooLong > 0 { notes.append("\(tooLong) of \(count) samples of \(file) have \(more) and were dropped") }
    if uncounted > 0 {
      notes.append("\(uncounted) of \(count) samples of \(file) have no token that counts\(first) and were dropped")
    }
    if isOpen {
      notes.append(
        "no end token is known: samples end without one, so the model does not learn where an answer ends; name eos_token in tokenizer_config.json, or give \(setting: "no-end-token") if that is meant"
      )
    }
    return notes
  }
}

/// Texts as samples, and what became of those that are none.
public struct EncodedSamples: Equatable, Sendable {
  /// The samples that are left, in the order of the texts.
  public var samples: [EncodedSample] = []
  /// How many of them had more tokens than a sample may have and kept the first ones alone.
  public var cut = 0
  /// How many texts are no sample: too long, or without a token that counts.
  public var dropped = 0

  /// None.
  public init() {}
}
