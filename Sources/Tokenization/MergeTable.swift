/// Pair of token ids → rank of its merge: an open hash table of two arrays. The rank leads to the merged token.
struct MergeTable: Sendable {
  /// The token that the merge of each rank makes.
  private(set) var results: [Int32] = []
  private var keys: [UInt64]
  private var ranks: [UInt32]
  private let shift: UInt64
  /// Odd and drawn for each process, so that no file can make its pairs collide.
  private let multiplier = UInt64.random(in: .min ... .max) | 1
  private static let free = UInt64.max

  /// Reserves space for so many merges, which is also the most that may be added.
  init(capacity: Int) {
    var bits: UInt64 = 2
    while 1 << bits < 2 * capacity { bits += 1 }
    shift = 64 - bits
    keys = [UInt64](repeating: Self.free, count: 1 << bits)
    ranks = [UInt32](repeating: 0, count: 1 << bits)
    results.reserveCapacity(capacity)
  }

  /// Adds the merge of the next rank; returns false, and changes nothing, if the pair has one.
  mutating func append(_ left: Int32, _ right: Int32, result: Int32) -> Bool {
    precondition(2 * results.count < keys.count, "more merges than were reserved")
    let slot = slot(of: Self.key(left, right))
    guard keys[slot] == Self.free else { return false }
    keys[slot] = Self.key(left, right)
    ranks[slot] = UInt32(results.count)
    results.append(result)
    return true
  }

  /// The rank of a pair; nil if nothing merges it.
  @inline(__always)
  func rank(_ left: Int32, _ right: Int32) -> UInt32? {
    let slot = slot(of: Self.key(left, right))
    return keys[slot] == Self.free ? nil : ranks[slot]
  }

  @inline(__always)
  private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  @inline(__always)
  private func slot(of key: UInt64) -> Int {
    let mixed = (key ^ (key >> 29)) &* multiplier
    var slot = Int(truncatingIfNeeded: ((mixed ^ (mixed >> 32)) &* multiplier) >> shift)
    while keys[slot] != Self.free, keys[slot] != key { slot = (slot + 1) & (keys.count - 1) }
    return slot
  }
}

extension MergeTable: MergeRule {
  @inline(__always)
  func merge(_ left: BytePairMerger.Symbol, _ right: BytePairMerger.Symbol) -> (rank: UInt32, result: Int32)? {
    rank(left.id, right.id).map { ($0, results[Int($0)]) }
  }

  /// As in `tokenizers`: where the pair has become another that makes the same token, the earlier rank stands.
  func holds(_ rank: UInt32, for current: (rank: UInt32, result: Int32)) -> Bool { results[Int(rank)] == current.result }
}
