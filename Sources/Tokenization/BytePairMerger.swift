/// What two neighbors are worth.
protocol MergeRule {
  /// The rank of a pair, the lowest of which is merged first, and the token that it makes; nil for a pair that is not merged.
  func merge(_ left: BytePairMerger.Symbol, _ right: BytePairMerger.Symbol) -> (rank: UInt32, result: Int32)?
  /// Whether an entry of the queue still holds for what its pair has become.
  func holds(_ rank: UInt32, for current: (rank: UInt32, result: Int32)) -> Bool
}

/// Merges the symbols of one word by rank: the pair of the lowest rank first, of equal ones the leftmost.
///
/// Sennrich et al. 2016 (arXiv:1508.07909) with a queue instead of a search for every merge. Symbols form a list; a pair that arises is
/// queued, and an entry whose symbols have changed since is passed over when its turn comes.
/// - Complexity: O(n log n) for n symbols.
struct BytePairMerger {
  /// A part of the word: `next` and `previous` are indices, −1 at the ends, `length` 0 once it has been merged away. The id is −1 for a
  /// character that is no token and may become part of one.
  struct Symbol {
    var id: Int32
    var start: Int
    var length: Int
    var previous: Int32
    var next: Int32
  }

  /// The symbols of the word, set by `add`; after `merge` those of length > 0 are the tokens.
  private(set) var symbols: [Symbol] = []
  /// A binary heap of rank << 32 | index of the left symbol.
  private var queue: [UInt64] = []

  /// Begins a word.
  mutating func removeAll() {
    symbols.removeAll(keepingCapacity: true)
    queue.removeAll(keepingCapacity: true)
  }

  /// Appends a symbol to the word.
  @inline(__always)
  mutating func add(_ id: Int32, start: Int, length: Int) {
    let index = Int32(symbols.count)
    if index > 0 { symbols[Int(index) - 1].next = index }
    symbols.append(Symbol(id: id, start: start, length: length, previous: index - 1, next: -1))
  }

  /// Makes all merges.
  mutating func merge(by rule: some MergeRule) {
    guard symbols.count > 1 else { return }
    for index in 0..<(symbols.count - 1) {
      if let (rank, _) = rule.merge(symbols[index], symbols[index + 1]) { push(rank, index) }
    }
    while let (rank, index) = pop() {
      let left = symbols[index]
      guard left.length > 0, left.next >= 0 else { continue }
      let right = symbols[Int(left.next)]
      guard let current = rule.merge(left, right), rule.holds(rank, for: current) else { continue }
      symbols[Int(left.next)].length = 0
      symbols[index].id = current.result
      symbols[index].length += right.length
      symbols[index].next = right.next
      if right.next >= 0 {
        symbols[Int(right.next)].previous = Int32(index)
        if let (rank, _) = rule.merge(symbols[index], symbols[Int(right.next)]) { push(rank, index) }
      }
      if left.previous >= 0, let (rank, _) = rule.merge(symbols[Int(left.previous)], symbols[index]) { push(rank, Int(left.previous)) }
    }
  }

  private mutating func push(_ rank: UInt32, _ index: Int) {
    let entry = UInt64(rank) << 32 | UInt64(index)
    queue.append(entry)
    var child = queue.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard queue[parent] > entry else { break }
      queue[child] = queue[parent]
      child = parent
    }
    queue[child] = entry
  }

  private mutating func pop() -> (rank: UInt32, index: Int)? {
    guard let first = queue.first, let last = queue.popLast() else { return nil }
    if !queue.isEmpty {
      var parent = 0
      while 2 * parent + 1 < queue.count {
        var child = 2 * parent + 1
        if child + 1 < queue.count, queue[child + 1] < queue[child] { child += 1 }
        guard queue[child] < last else { break }
        queue[parent] = queue[child]
        parent = child
      }
      queue[parent] = last
    }
    return (UInt32(truncatingIfNeeded: first >> 32), Int(first & 0xFFFF_FFFF))
  }
}
