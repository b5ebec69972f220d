import Layers

/// A sample as tokens.
public struct EncodedSample: Equatable, Sendable {
  /// Token ids.
  public var ids: [Int32]
  /// For each column whether its token counts as a label; the first never does.
  public var isLabel: [Bool]
  /// Tokens at the end that were left out because the sample was too long.
  public var cutTokens = 0

  /// Which columns a loss counts.
  public enum LossColumns: String, Sendable, CaseIterable {
    /// The answers and the end token.
    case answer
    /// Every column but the first.
    case all
  }

  /// Encodes a sample as one text: a begin token where the tokenizer adds one, the text, the end token.
  public init(_ sample: TextSample, with encoder: some TextEncoder, lossOn columns: LossColumns, addsEndToken: Bool) {
    ids = encoder.leadingToken.map { [$0] } ?? []
    isLabel = ids.map { _ in false }
    var start = 0
    for token in encoder.tokens(of: sample.text) {
      ids.append(token.id)
      isLabel.append(columns == .all || sample.isAnswer(start..<token.end))
      start = token.end
    }
    if addsEndToken, !sample.endsItself, let end = encoder.endToken {
      ids.append(end)
      isLabel.append(true)
    }
    if !isLabel.isEmpty { isLabel[0] = false }
  }

  /// Keeps the first `length` tokens, as MoE-PEFT and mlx-lm cut.
  mutating func cut(to length: Int) {
    let kept = min(ids.count, max(0, length))
    cutTokens += ids.count - kept
    (ids, isLabel) = (Array(ids[..<kept]), Array(isLabel[..<kept]))
  }
}

extension EncodedSample {
  /// A number that tells lists of samples apart, in their order: FNV-1a over all tokens and whether they count.
  ///
  /// - Complexity: O(tokens).
  public static func digest(_ samples: [EncodedSample]) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    func add(_ value: Int) { hash = (hash ^ UInt64(truncatingIfNeeded: value)) &* 0x100_0000_01b3 }
    for sample in samples {
      add(sample.ids.count)
      for (id, isLabel) in zip(sample.ids, sample.isLabel) { add(2 * Int(id) + (isLabel ? 1 : 0)) }
    }
    return hash
  }
}

extension EncodedSample {
  /// The sample as the engine takes it: row t predicts the token of column t + 1 where that counts.
  public var sequence: PackedSequence {
    PackedSequence(ids: ids, labels: ids.indices.map { $0 + 1 < ids.count && isLabel[$0 + 1] ? ids[$0 + 1] : nil })
  }
}
