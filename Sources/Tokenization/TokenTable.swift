/// Token id → bytes, and bytes → token id: an open hash table over one array of all bytes, keyed by bytes and never by `String`,
/// whose equality merges canonically equal tokens.
struct TokenTable: Sendable {
  /// The bytes of all tokens, one after the other; token i is `bytes[starts[i]..<starts[i + 1]]`.
  private var bytes: [UInt8] = []
  private var starts: [Int] = [0]
  private var ids: [Int32] = []
  /// Index of a token plus 1, or 0; a power of two long.
  private var slots: [Int32] = [0, 0]

  /// How many tokens there are.
  var count: Int { ids.count }

  /// Reserves space for so many tokens.
  init(capacity: Int = 0) {
    ids.reserveCapacity(capacity)
    starts.reserveCapacity(capacity + 1)
    var size = 2
    while size < 2 * capacity { size *= 2 }
    slots = [Int32](repeating: 0, count: size)
  }

  /// Adds a token; returns false, and changes nothing, if its bytes are there already.
  mutating func insert(_ token: some Collection<UInt8>, id: Int32) -> Bool {
    if 2 * (ids.count + 1) > slots.count { grow() }
    let start = bytes.count
    bytes += token
    let slot = bytes.withUnsafeBufferPointer { find(UnsafeBufferPointer(rebasing: $0[start...])) }
    guard slots[slot] == 0 else {
      bytes.removeSubrange(start...)
      return false
    }
    ids.append(id)
    starts.append(bytes.count)
    slots[slot] = Int32(ids.count)
    return true
  }

  /// The id of a token.
  func id(of token: UnsafeBufferPointer<UInt8>) -> Int32? {
    let entry = slots[find(token)]
    return entry == 0 ? nil : ids[Int(entry) - 1]
  }

  /// The id of a token.
  func id(of token: [UInt8]) -> Int32? { token.withUnsafeBufferPointer { id(of: $0) } }

  /// The slot of a token, or the free one where it belongs.
  private func find(_ token: UnsafeBufferPointer<UInt8>) -> Int {
    var hasher = Hasher()  // seeded anew for each process, so that no file can make its tokens collide
    hasher.combine(bytes: UnsafeRawBufferPointer(token))
    var slot = hasher.finalize() & (slots.count - 1)
    while slots[slot] != 0 {
      let index = Int(slots[slot]) - 1
      let range = starts[index]..<starts[index + 1]
      if range.count == token.count, bytes[range].elementsEqual(token) { break }
      slot = (slot + 1) & (slots.count - 1)
    }
    return slot
  }

  private mutating func grow() {
    slots = [Int32](repeating: 0, count: 2 * slots.count)
    for index in ids.indices {
      let slot = bytes.withUnsafeBufferPointer { find(UnsafeBufferPointer(rebasing: $0[starts[index]..<starts[index + 1]])) }
      slots[slot] = Int32(index + 1)
    }
  }
}
