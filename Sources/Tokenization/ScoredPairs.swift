/// Pairs that are merged because their text is a token, the greatest score first, of equal ones the leftmost: how llama.cpp runs
/// SentencePiece's BPE.
///
/// Unlike merges by rank it asks for the text alone: characters that are no tokens may become part of one.
struct ScoredPairs: Sendable {
  private let table: TokenTable
  /// Id → place of its score among all different scores, the greatest first.
  private let ranks: [UInt32]
  /// Bytes of the longest token: no longer pair is looked up.
  private let longest: Int

  /// The tokens by their scores; one that is no number counts least.
  init(_ table: TokenTable, _ entries: [TokenizerDescription.Entry]) {
    self.table = table
    let scores = entries.map { $0.score.isNaN ? -Double.infinity : $0.score }
    let places = Dictionary(Set(scores).sorted(by: >).enumerated().map { ($1, UInt32($0)) }) { first, _ in first }
    var ranks = [UInt32](repeating: 0, count: Int(entries.map(\.id).max() ?? -1) + 1)
    for (entry, score) in zip(entries, scores) { ranks[Int(entry.id)] = places[score] ?? 0 }
    self.ranks = ranks
    longest = entries.map(\.text.count).max() ?? 0
  }

  /// The rule for the words of a text.
  struct Rule: MergeRule {
    let pairs: ScoredPairs
    let bytes: UnsafeBufferPointer<UInt8>

    func merge(_ left: BytePairMerger.Symbol, _ right: BytePairMerger.Symbol) -> (rank: UInt32, result: Int32)? {
      let range = left.start..<(right.start + right.length)
      guard range.count <= pairs.longest, let id = pairs.table.id(of: UnsafeBufferPointer(rebasing: bytes[range])) else { return nil }
      return (pairs.ranks[Int(id)], id)
    }

    /// Another pair at the same place has an entry of its own, and one of the same rank the same entry.
    func holds(_ rank: UInt32, for current: (rank: UInt32, result: Int32)) -> Bool { rank == current.rank }
  }
}
