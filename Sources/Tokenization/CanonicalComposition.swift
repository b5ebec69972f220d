/// Normalization form C (Unicode Standard Annex 15) as `tokenizers` 0.20.3 computes it.
///
/// Its tables are those of Unicode 9.0: 98 combining marks encoded later have class 0 there, and U+11938 is not taken apart. The difference
/// from a newer version shows only in text that has such marks in an order other than the canonical one.
enum CanonicalComposition {
  /// What the normal form has in place of a part of the text that was not in it.
  struct Change {
    /// The bytes of the text.
    let range: Range<Int>
    /// Their normal form.
    let bytes: [UInt8]
  }

  /// Where the text differs from its normal form, in order; empty where it does not.
  ///
  /// The text is cut before each code point that is a starter and never composed with what stands before it; the pieces normalize
  /// by themselves, and most are one code point that stays as it is. Bytes that are no UTF-8 stay as they are.
  /// - Complexity: O(bytes), and O(n log n) in the length of a run of combining marks.
  static func changes(in bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> [Change] {
    let classes = UnicodeClasses.table
    var changes: [Change] = []
    var pieceStart = range.lowerBound
    var piece: [UInt32] = []
    var isUnstable = false
    func finish(at end: Int) {
      if isUnstable {
        let composed = compose(decompose(piece))
        if composed != piece {
          var result: [UInt8] = []
          for value in composed { UTF8Scalars.append(value, to: &result) }
          changes.append(Change(range: pieceStart..<end, bytes: result))
        }
      }
      piece.removeAll(keepingCapacity: true)
      isUnstable = false
      pieceStart = end
    }
    var offset = range.lowerBound
    while offset < range.upperBound {
      let (value, length) = UTF8Scalars.scalar(bytes, at: offset, end: range.upperBound)
      if let value {
        if value < 0x300 {
          finish(at: offset)
          piece.append(value)
        } else {
          let isStable = !classes[value].contains(.unstable)
          if isStable { finish(at: offset) }
          isUnstable = isUnstable || !isStable
          piece.append(value)
        }
        offset += length
      } else {
        finish(at: offset)
        offset += 1
        finish(at: offset)
      }
    }
    finish(at: range.upperBound)
    return changes
  }

  /// The normal form of a whole text.
  static func normalized(_ text: [UInt8]) -> [UInt8] {
    text.withUnsafeBufferPointer { bytes in
      var result: [UInt8] = []
      var copied = 0
      for change in changes(in: bytes, 0..<bytes.count) {
        result += bytes[copied..<change.range.lowerBound]
        result += change.bytes
        copied = change.range.upperBound
      }
      return result + bytes[copied...]
    }
  }

  // Hangul syllables are decomposed and composed by rule (The Unicode Standard, 3.12).
  private static let (syllables, leads, vowels, trails): (UInt32, UInt32, UInt32, UInt32) = (0xAC00, 0x1100, 0x1161, 0x11A7)
  private static let (leadCount, vowelCount, trailCount): (UInt32, UInt32, UInt32) = (19, 21, 28)

  /// The full canonical decomposition, marks in canonical order.
  private static func decompose(_ piece: [UInt32]) -> [UInt32] {
    var result: [(value: UInt32, order: UInt8)] = []
    var open: [UInt32] = []
    for value in piece {
      open.append(value)
      while let value = open.popLast() {
        if let (first, second) = CanonicalTables.shared.decompositions[value] {
          if let second { open.append(second) }
          open.append(first)
        } else if value &- syllables < leadCount * vowelCount * trailCount {
          let index = value - syllables
          let parts = [leads + index / (vowelCount * trailCount), vowels + index % (vowelCount * trailCount) / trailCount]
          result += (parts + (index % trailCount > 0 ? [trails + index % trailCount] : [])).map { ($0, 0) }
        } else {
          result.append((value, CanonicalTables.shared.combiningClasses[value] ?? 0))
        }
      }
    }
    // Runs of marks are sorted by class; equal classes keep their order.
    var start = 0
    while start < result.count {
      var end = start + 1
      if result[start].order > 0 {
        while end < result.count, result[end].order > 0 { end += 1 }
        let sorted = (start..<end).sorted { (result[$0].order, $0) < (result[$1].order, $1) }.map { result[$0] }
        result.replaceSubrange(start..<end, with: sorted)
      }
      start = end
    }
    return result.map(\.value)
  }

  /// Composes each starter with the marks that nothing separates from it.
  private static func compose(_ piece: [UInt32]) -> [UInt32] {
    var result: [UInt32] = []
    var starter: Int?
    var lastOrder: UInt8 = 0
    for value in piece {
      let order = CanonicalTables.shared.combiningClasses[value] ?? 0
      // A mark is separated from the starter by one of its own class or a greater one, a starter by anything.
      if let starter, starter == result.count - 1 || (lastOrder != 0 && lastOrder < order), let composed = pair(result[starter], value) {
        result[starter] = composed
        continue
      }
      if order == 0 { starter = result.count }
      lastOrder = order
      result.append(value)
    }
    return result
  }

  private static func pair(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if first &- leads < leadCount, second &- vowels < vowelCount {
      return syllables + ((first - leads) * vowelCount + second - vowels) * trailCount
    }
    if first &- syllables < leadCount * vowelCount * trailCount, (first - syllables) % trailCount == 0, second > trails,
      second < trails + trailCount
    {
      return first + second - trails
    }
    return CanonicalTables.shared.compositions[UInt64(first) << 32 | UInt64(second)]
  }
}

/// Canonical decompositions, compositions and combining classes, expanded at the first use.
private struct CanonicalTables: Sendable {
  static let shared = CanonicalTables()

  let combiningClasses: [UInt32: UInt8]
  let decompositions: [UInt32: (first: UInt32, second: UInt32?)]
  let compositions: [UInt64: UInt32]

  private init() {
    var combiningClasses: [UInt32: UInt8] = [:]
    var value: UInt32 = 0
    Base36.forEachRecord(in: CanonicalData.combiningClasses) { numbers, _ in
      value += numbers[0]
      combiningClasses[value] = UInt8(numbers[1])
    }
    var decompositions: [UInt32: (first: UInt32, second: UInt32?)] = [:]
    var compositions: [UInt64: UInt32] = [:]
    value = 0
    Base36.forEachRecord(in: CanonicalData.decompositions) { numbers, isExcluded in
      value += numbers[0]
      let second = numbers.count > 2 ? numbers[2] : nil
      decompositions[value] = (numbers[1], second)
      if let second, !isExcluded { compositions[UInt64(numbers[1]) << 32 | UInt64(second)] = value }
    }
    self.combiningClasses = combiningClasses
    self.decompositions = decompositions
    self.compositions = compositions
  }
}
