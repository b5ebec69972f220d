/// A normalization form of Unicode Standard Annex 15, as `tokenizers` 0.20.3 computes it.
///
/// Its tables are those of Unicode 9.0: 98 combining marks encoded later have class 0 there, and U+11938 is not taken apart. The difference
/// from a newer version shows only in text that has such marks in an order other than the canonical one, and in newer compatibility forms.
public enum NormalizationForm: String, CaseIterable, Equatable, Sendable {
  /// Composed by canonical equivalence.
  case c = "NFC"
  /// Decomposed by canonical equivalence.
  case d = "NFD"
  /// Composed by compatibility.
  case kc = "NFKC"
  /// Decomposed by compatibility.
  case kd = "NFKD"

  /// What the normal form has in place of a part of the text that was not in it.
  struct Change {
    /// The bytes of the text.
    let range: Range<Int>
    /// Their normal form.
    let bytes: [UInt8]
  }

  private var composes: Bool { self == .c || self == .kc }
  private var isCompatible: Bool { self == .kc || self == .kd }

  /// Where the text differs from its normal form, in order; empty where it does not.
  ///
  /// The text is cut before each code point that is a starter and never composed with what stands before it; the pieces normalize
  /// by themselves, and most are one code point that stays as it is. Bytes that are no UTF-8 stay as they are.
  /// - Complexity: O(bytes), and O(n log n) in the length of a run of combining marks.
  func changes(in bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> [Change] {
    var changes: [Change] = []
    var pieceStart = range.lowerBound
    var piece: [UInt32] = []
    var isUnstable = false
    func finish(at end: Int) {
      if isUnstable {
        let decomposed = decompose(piece)
        let normal = composes ? compose(decomposed) : decomposed
        if normal != piece {
          var result: [UInt8] = []
          for value in normal { UTF8Scalars.append(value, to: &result) }
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
        if value < 0x80 || self == .c && value < 0x300 {
          finish(at: offset)
        } else {
          if isStart(value) { finish(at: offset) }
          isUnstable = isUnstable || self != .c || isUnstableComposed(value)
        }
        piece.append(value)
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

  /// Whether NFC must look at a code point: it is not a starter, or composed with what stands before it, or not itself in its normal form.
  private func isUnstableComposed(_ value: UInt32) -> Bool { UnicodeClasses.table[value].contains(.unstable) }

  /// Whether nothing before a code point changes with it.
  private func isStart(_ value: UInt32) -> Bool {
    if isUnstableComposed(value) { return false }
    guard isCompatible, let parts = NormalizationTables.shared.compatible[value], let first = parts.first else { return true }
    return isStart(first)
  }

  /// The normal form of a whole text.
  func normalized(_ text: [UInt8]) -> [UInt8] {
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

  /// The full decomposition, marks in canonical order.
  private func decompose(_ piece: [UInt32]) -> [UInt32] {
    var result: [(value: UInt32, order: UInt8)] = []
    var open: [UInt32] = []
    for value in piece {
      open.append(value)
      while let value = open.popLast() {
        if isCompatible, let parts = NormalizationTables.shared.compatible[value] {
          open += parts.reversed()
        } else if let (first, second) = NormalizationTables.shared.decompositions[value] {
          if let second { open.append(second) }
          open.append(first)
        } else if value &- Self.syllables < Self.leadCount * Self.vowelCount * Self.trailCount {
          let index = value - Self.syllables
          let parts = [
            Self.leads + index / (Self.vowelCount * Self.trailCount),
            Self.vowels + index % (Self.vowelCount * Self.trailCount) / Self.trailCount,
          ]
          result += (parts + (index % Self.trailCount > 0 ? [Self.trails + index % Self.trailCount] : [])).map { ($0, 0) }
        } else {
          result.append((value, NormalizationTables.shared.combiningClasses[value] ?? 0))
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
  private func compose(_ piece: [UInt32]) -> [UInt32] {
    var result: [UInt32] = []
    var starter: Int?
    var lastOrder: UInt8 = 0
    for value in piece {
      let order = NormalizationTables.shared.combiningClasses[value] ?? 0
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

  private func pair(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if first &- Self.leads < Self.leadCount, second &- Self.vowels < Self.vowelCount {
      return Self.syllables + ((first - Self.leads) * Self.vowelCount + second - Self.vowels) * Self.trailCount
    }
    if first &- Self.syllables < Self.leadCount * Self.vowelCount * Self.trailCount, (first - Self.syllables) % Self.trailCount == 0,
      second > Self.trails,
      second < Self.trails + Self.trailCount
    {
      return first + second - Self.trails
    }
    return NormalizationTables.shared.compositions[UInt64(first) << 32 | UInt64(second)]
  }
}

/// Decompositions, compositions and combining classes, expanded at the first use.
private struct NormalizationTables: Sendable {
  static let shared = NormalizationTables()

  let combiningClasses: [UInt32: UInt8]
  let decompositions: [UInt32: (first: UInt32, second: UInt32?)]
  let compositions: [UInt64: UInt32]
  let compatible: [UInt32: [UInt32]]

  private init() {
    var combiningClasses: [UInt32: UInt8] = [:]
    var value: UInt32 = 0
    Base36.forEachRecord(in: NormalizationData.combiningClasses) { numbers, _ in
      value += numbers[0]
      combiningClasses[value] = UInt8(numbers[1])
    }
    var decompositions: [UInt32: (first: UInt32, second: UInt32?)] = [:]
    var compositions: [UInt64: UInt32] = [:]
    value = 0
    Base36.forEachRecord(in: NormalizationData.decompositions) { numbers, isExcluded in
      value += numbers[0]
      let second = numbers.count > 2 ? numbers[2] : nil
      decompositions[value] = (numbers[1], second)
      if let second, !isExcluded { compositions[UInt64(numbers[1]) << 32 | UInt64(second)] = value }
    }
    var compatible: [UInt32: [UInt32]] = [:]
    value = 0
    Base36.forEachRecord(in: NormalizationData.compatible) { numbers, _ in
      value += numbers[0]
      compatible[value] = Array(numbers[1...])
    }
    self.compatible = compatible
    self.combiningClasses = combiningClasses
    self.decompositions = decompositions
    self.compositions = compositions
  }
}
