/// A step that changes a text before it is cut into pieces.
public enum Normalizer: Equatable, Sendable {
  /// A normalization form of Unicode: `NFC`, `NFD`, `NFKC`, `NFKD`.
  case form(NormalizationForm)
  /// A text put before one that is not empty: `Prepend`.
  case prepend(String)
  /// Another text for every match: `Replace`.
  case replace(RegularExpression, String)
  /// White space taken away at the ends: `Strip`.
  case strip(left: Bool, right: Bool)
  /// Each character's small form by itself: `Lowercase`.
  case lowercase
  /// Combining marks taken away: `StripAccents`.
  case stripAccents
  /// The table of a SentencePiece model: `Precompiled`.
  case characterMap(CharacterMap)

  /// A part of a text after this step; nil where the step leaves it as it is.
  func applied(to range: Range<Int>, of text: WorkingText) -> WorkingText? {
    switch self {
    case .form(let form):
      return text.replacing(in: range) { bytes, change in
        for item in form.changes(in: bytes, range) { change(item.range, item.bytes) }
      }
    case .prepend(let prefix):
      guard !range.isEmpty, !prefix.utf8.isEmpty else { return nil }
      var result = WorkingText()
      result.append(Array(prefix.utf8), before: range, of: text)
      result.append(range, of: text)
      return result
    case .replace(let expression, let replacement):
      let replacement = Array(replacement.utf8)
      guard !range.isEmpty else { return nil }
      return text.replacing(in: range) { bytes, change in
        expression.forEachMatch(in: bytes, [range]) { _, match in
          if let match { change(match, replacement) }
        }
      }
    case .strip(let left, let right):
      return text.replacing(in: range) { bytes, change in
        let classes = UnicodeClasses.table
        var (start, end) = (range.lowerBound, range.upperBound)
        while left, start < end, case let first = classes.at(start, in: bytes, end: end), first.flags.contains(.space) {
          start += first.length
        }
        while right, start < end, case let last = classes.before(end, in: bytes, start: start), last.flags.contains(.space) {
          end -= last.length
        }
        if start > range.lowerBound { change(range.lowerBound..<start, []) }
        if end < range.upperBound { change(end..<range.upperBound, []) }
      }
    case .lowercase:
      return text.replacing(in: range) { bytes, change in
        Self.forEachScalar(bytes, range) { value, place in
          if value >= 0x41, value <= 0x5A {
            change(place, [UInt8(value) | 0x20])
          } else if value >= 0x80, let small = Lowercase.table[value] {
            change(place, small)
          }
        }
      }
    case .stripAccents:
      return text.replacing(in: range) { bytes, change in
        Self.forEachScalar(bytes, range) { value, place in
          if UnicodeClasses.table[value].contains(.accent) { change(place, []) }
        }
      }
    case .characterMap(let map):
      return text.replacing(in: range) { bytes, change in map.forEachChange(in: bytes, range, change) }
    }
  }

  private static func forEachScalar(_ bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, _ body: (UInt32, Range<Int>) -> Void) {
    var offset = range.lowerBound
    while offset < range.upperBound {
      let (value, length) = UTF8Scalars.scalar(bytes, at: offset, end: range.upperBound)
      if let value { body(value, offset..<(offset + length)) }
      offset += length
    }
  }
}

extension [Normalizer] {
  /// A part of a text after all steps; nil where they leave it as it is.
  func applied(to range: Range<Int>, of text: WorkingText) -> WorkingText? {
    var result: WorkingText?
    for step in self {
      if let next = step.applied(to: result.map { 0..<$0.bytes.count } ?? range, of: result ?? text) { result = next }
    }
    return result
  }

  /// A whole text after all steps.
  func applied(to text: [UInt8]) -> [UInt8] { applied(to: 0..<text.count, of: WorkingText(original: text))?.bytes ?? text }
}

/// The small forms of all letters beyond ASCII, expanded at the first use.
private enum Lowercase {
  static let table: [UInt32: [UInt8]] = {
    var table: [UInt32: [UInt8]] = [:]
    var value: UInt32 = 0
    Base36.forEachRecord(in: LowercaseData.letters) { numbers, _ in
      value += numbers[0]
      var small: [UInt8] = []
      for part in numbers[1...] { UTF8Scalars.append(part, to: &small) }
      table[value] = small
    }
    return table
  }()
}
