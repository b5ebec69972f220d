/// A unigram language model (Kudo 2018, arXiv:1804.10959): of all ways to write a word in tokens the one of the greatest sum of scores.
///
///     best(0) = 0,   best(end) = max over tokens that end there of best(start) + score;   of equal sums the earlier start
///
/// As `tokenizers` 0.20.3 runs it: where no token is the next character, that character may be unknown, for 10 less than the least score;
/// neighbors that are unknown are one, and then their bytes, if there is a token for each.
/// - Complexity: O(n · length of the longest token · log of their number).
struct UnigramModel: Sendable {
  private let entries: [TokenizerDescription.Entry]
  /// Places in `entries`, ordered by bytes.
  private let order: [Int32]
  /// Where the tokens that begin with each byte begin in `order`; one more than bytes.
  private let firsts: [Int]
  private let table: TokenTable
  private let unknown: Int32
  private let unknownScore: Double

  /// - Precondition: `unknown` is the id of an entry.
  init(_ entries: [TokenizerDescription.Entry], _ table: TokenTable, unknown: Int32) {
    self.entries = entries
    self.table = table
    self.unknown = unknown
    unknownScore = (entries.map(\.score).min() ?? 0) - 10
    let order = entries.indices.filter { !entries[$0].text.isEmpty }.sorted { entries[$0].text.lexicographicallyPrecedes(entries[$1].text) }
    self.order = order.map(Int32.init)
    var firsts = [Int](repeating: 0, count: 257)
    for place in order { firsts[Int(entries[place].text[0]) + 1] += 1 }
    for byte in 0..<256 { firsts[byte + 1] += firsts[byte] }
    self.firsts = firsts
  }

  /// A place in the word: the best way to it.
  private struct Place {
    var score = 0.0
    var start = -1
    var id: Int32 = 0
  }

  /// Hands on the tokens of a word: the id, nil for one that the vocabulary lacks, and its place.
  func forEachToken(of piece: Range<Int>, in bytes: UnsafeBufferPointer<UInt8>, _ body: (Int32?, Range<Int>) -> Void) {
    var places = [Place](repeating: Place(), count: piece.count + 1)
    func reach(_ end: Int, from start: Int, _ id: Int32, _ score: Double) {
      let total = places[start].score + score
      if places[end].start < 0 || total > places[end].score { places[end] = Place(score: total, start: start, id: id) }
    }
    var start = 0
    while start < piece.count {
      let length = UTF8Scalars.scalar(bytes, at: piece.lowerBound + start, end: piece.upperBound).length
      var hasCharacter = false
      forEachPrefix(of: UnsafeBufferPointer(rebasing: bytes[(piece.lowerBound + start)..<piece.upperBound])) { entry, count in
        // A token that ends inside of a character leads nowhere: no way goes on from there.
        reach(start + count, from: start, entry.id, entry.score)
        if count == length { hasCharacter = true }
      }
      if !hasCharacter { reach(start + length, from: start, unknown, unknownScore) }
      start += length
    }
    var tokens: [(id: Int32?, start: Int, end: Int)] = []
    var (end, isUnknown) = (piece.count, false)
    while end > 0 {
      let place = places[end]
      if place.id == unknown, isUnknown {
        tokens[tokens.count - 1].start = place.start
      } else {
        tokens.append((place.id == unknown ? nil : place.id, place.start, end))
      }
      isUnknown = place.id == unknown
      end = place.start
    }
    for token in tokens.reversed() {
      let range = (piece.lowerBound + token.start)..<(piece.lowerBound + token.end)
      // Characters that are unknown one by one may be a token together.
      body(token.id ?? table.id(of: UnsafeBufferPointer(rebasing: bytes[range])), range)
    }
  }

  /// Hands on the tokens that a text begins with, the shortest first.
  private func forEachPrefix(of text: UnsafeBufferPointer<UInt8>, _ body: (TokenizerDescription.Entry, Int) -> Void) {
    var (low, high) = (firsts[Int(text[0])], firsts[Int(text[0]) + 1])
    var count = 1
    while low < high {
      // All from low to high begin with the first `count` bytes; the shortest stands first.
      let entry = entries[Int(order[low])]
      if entry.text.count == count {
        body(entry, count)
        low += 1
      }
      guard low < high, count < text.count else { return }
      let byte = text[count]
      low = partition(low, high) { $0[count] >= byte }
      high = partition(low, high) { $0[count] > byte }
      count += 1
    }
  }

  /// The first place from which on a property holds.
  private func partition(_ low: Int, _ high: Int, _ holds: ([UInt8]) -> Bool) -> Int {
    var (low, high) = (low, high)
    while low < high {
      let middle = (low + high) / 2
      if holds(entries[Int(order[middle])].text) { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
