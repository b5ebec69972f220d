/// The normalization table of a SentencePiece model (`precompiled_charsmap`): a trie of UTF-8 texts and what stands in place of each.
///
/// The bytes are, little endian: the size of the trie in bytes, a double array of 32-bit units (Darts), then texts that each end in a zero;
/// a unit that ends an entry tells where its text begins.
public struct CharacterMap: Equatable, Sendable {
  private let units: [UInt32]
  private let texts: [UInt8]
  /// The bytes it was read from.
  public let bytes: [UInt8]

  /// Reads a table; nil where the bytes are none.
  public init?(_ bytes: [UInt8]) {
    func word(_ index: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[4 * index + $1]) << UInt32(8 * $1) } }
    guard bytes.count >= 4 else { return nil }
    let size = Int(word(0))
    guard size % 4 == 0, size > 0, size <= bytes.count - 4 else { return nil }
    units = (1...(size / 4)).map(word)
    texts = Array(bytes[(4 + size)...])
    guard String(validating: texts, as: UTF8.self) != nil else { return nil }
    self.bytes = bytes
  }

  /// Finds what changes, as `tokenizers` 0.20.3 does: a character of several code points of up to five bytes as a whole, by the *shortest*
  /// entry that it begins with, else each code point by itself.
  func forEachChange(in bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, _ change: (Range<Int>, [UInt8]) -> Void) {
    var start = range.lowerBound
    while start < range.upperBound {
      var end = start
      while end < range.upperBound {
        let (value, length) = UTF8Scalars.scalar(bytes, at: end, end: range.upperBound)
        guard value != nil else { break }
        end += length
      }
      var offset = start
      for character in String(decoding: bytes[start..<end], as: UTF8.self) {
        let place = offset..<(offset + character.utf8.count)
        if place.count < 6, let new = text(for: bytes, place) {
          change(place, new)
        } else {
          for scalar in character.unicodeScalars {
            let part = offset..<(offset + scalar.utf8.count)
            if let new = text(for: bytes, part) { change(part, new) }
            offset = part.upperBound
          }
        }
        offset = place.upperBound
      }
      start = end + 1  // past a byte that is no UTF-8
    }
  }

  /// What stands in place of the shortest entry that some bytes begin with.
  private func text(for bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> [UInt8]? {
    func child(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & 0x200) >> 6) }
    var node = child(units[0])
    for byte in bytes[range] where byte != 0 {
      node ^= Int(byte)
      guard units.indices.contains(node), units[node] & 0x8000_00FF == UInt32(byte) else { return nil }
      let unit = units[node]
      node ^= child(unit)
      guard unit & 0x100 != 0 else { continue }
      guard units.indices.contains(node), case let start = Int(units[node] & 0x7FFF_FFFF), start <= texts.count else { return nil }
      return Array(texts[start...].prefix { $0 != 0 })
    }
    return nil
  }
}
