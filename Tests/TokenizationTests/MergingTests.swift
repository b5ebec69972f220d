import Testing

@testable import Tokenization

/// The merger against the definition: as long as there is a pair with a rank, merge the one of the lowest, the leftmost of equals.
@Suite struct MergingTests {
  private func naive(_ word: [Int32], _ merges: [(Int32, Int32)], results: [Int32]) -> [Int32] {
    var word = word
    while true {
      let ranks = zip(word, word.dropFirst()).map { pair in merges.firstIndex { $0 == pair } ?? Int.max }
      guard let rank = ranks.min(), rank < Int.max, let place = ranks.firstIndex(of: rank) else { return word }
      word.replaceSubrange(place...(place + 1), with: [results[rank]])
    }
  }

  @Test func theQueueMergesAsTheDefinitionDoes() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<300 {
      // Every merge makes a token of its own, so that an entry of the queue can only be stale or right.
      var merges: [(Int32, Int32)] = []
      var table = MergeTable(capacity: 40)
      for rank in 0..<40 {
        let pair = (Int32.random(in: 0..<Int32(3 + rank), using: &random), Int32.random(in: 0..<Int32(3 + rank), using: &random))
        guard !merges.contains(where: { $0 == pair }), table.append(pair.0, pair.1, result: Int32(3 + merges.count)) else { continue }
        merges.append(pair)
      }
      let word = (0..<Int.random(in: 0...60, using: &random)).map { _ in Int32.random(in: 0..<3, using: &random) }
      var merger = BytePairMerger()
      merger.removeAll()
      for (index, id) in word.enumerated() { merger.add(id, start: index, length: 1) }
      merger.merge(by: table)
      let tokens = merger.symbols.filter { $0.length > 0 }
      #expect(tokens.map(\.id) == naive(word, merges, results: merges.indices.map { Int32(3 + $0) }))
      #expect(tokens.map(\.length).reduce(0, +) == word.count)
    }
  }

  @Test func aTableFindsWhatWasPutInAndNothingElse() {
    var table = TokenTable()
    for id in 0..<Int32(5000) {
      let isNew = table.insert(Array("token \(id)".utf8), id: id)
      #expect(isNew)
    }
    let isNew = table.insert(Array("token 7".utf8), id: 9)
    #expect(!isNew)
    #expect(table.count == 5000)
    for id in 0..<Int32(5000) { #expect(table.id(of: Array("token \(id)".utf8)) == id) }
    #expect(table.id(of: Array("token 5000".utf8)) == nil)
    #expect(table.id(of: []) == nil)
    // Canonically equal strings are two tokens.
    let areTwo = [table.insert(Array("\u{e9}".utf8), id: 1), table.insert(Array("e\u{301}".utf8), id: 2)]
    #expect(areTwo == [true, true])
  }
}
