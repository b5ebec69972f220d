import Checkpoints
import Tokenization

/// How texts become samples of tokens, and which of their columns a loss counts.
public struct SampleEncoding: Equatable, Sendable {
  /// Tokens that a sample may have; a longer prompt is cut from the left.
  public var length = 512
  /// Prompt of instruction records.
  public var template = PromptTemplate.moePEFT
  /// The columns that the loss counts.
  public var lossOn = EncodedSample.LossColumns.answer
  /// Whether an end token follows each sample.
  public var addsEndToken = true

  /// The settings that training has by default.
  public init() {}

  /// Refuses what no sample can be.
  ///
  /// - Throws: ``SettingsError`` naming the setting.
  public func check() throws {
    guard length >= 2 else { throw SettingsError("\(setting: "length") is \(length), expected at least 2.") }
  }

  /// The samples as tokens, those without a column that counts left out.
  ///
  /// - Parameters:
  ///   - vocabulary: how many tokens the model knows: an id beyond them would reach outside its embedding.
  ///   - file: where the texts come from, for messages.
  ///   - note: hears what was done to samples that a user may want to know of.
  /// - Throws: `CheckpointError` for a token that the model does not have, and where nothing is left.
  public func samples(
    _ texts: [TextSample], with encoder: some TextEncoder, vocabulary: Int, from file: String, note: (SettingsText) -> Void = { _ in }
  ) throws -> [EncodedSample] {
    let encoded = texts.map { EncodedSample($0, with: encoder, lossOn: lossOn, length: length, addsEndToken: addsEndToken) }
    if let id = encoded.lazy.flatMap(\.ids).first(where: { $0 >= vocabulary }) {
      throw CheckpointError(
        file: file, found: "text with the tokenizer's token \(id)", expected: "tokens below \(vocabulary), the vocabulary of the model")
    }
    let cut = encoded.count { $0.droppedTokens > 0 }
    if cut > 0 {
      note("\(cut) of \(encoded.count) prompts were longer than \(setting: "length") \(length) allows and were cut from the left")
    }
    let counted = encoded.filter { $0.isLabel.contains(true) }
    guard !counted.isEmpty else {
      throw CheckpointError(file: file, found: "no sample with a column that counts", expected: "at least one")
    }
    return counted
  }
}
