/// A name compared and hashed by its UTF-8 bytes.
///
/// Swift's `String` equality merges canonically equal strings ("é" in one scalar and "e" plus an accent). In a checkpoint these are
/// two names, and treating them as one would lose a tensor, so every table of names is keyed by this type.
/// (Comparing with an ASCII word of a format, such as "dtype", needs no care: its letters have no second canonical spelling.)
package struct ByteKey: Hashable, Comparable, Sendable {
  package let bytes: [UInt8]

  package init(_ string: String) {
    bytes = Array(string.utf8)
  }

  package init(bytes: [UInt8]) {
    self.bytes = bytes
  }

  package static func < (left: ByteKey, right: ByteKey) -> Bool {
    left.bytes.lexicographicallyPrecedes(right.bytes)
  }
}

extension String {
  /// Whether both strings are the same bytes.
  package func hasSameBytes(as other: String) -> Bool {
    utf8.elementsEqual(other.utf8)
  }
}
