/// A text on its way through normalizer and pre-tokenizers, which remembers where in the original each of its bytes comes from.
struct WorkingText {
  private(set) var bytes: [UInt8] = []
  /// For each byte the range of the original text that it stands for; nil where the text is the original.
  private var origins: [Range<Int>]? = []

  /// The original itself.
  init(original: [UInt8]) {
    bytes = original
    origins = nil
  }

  /// An empty text, to be put together.
  init() {}

  /// Where in the original a range comes from. Of a passage that the normalizer changed, every part comes from the whole passage.
  func origin(of range: Range<Int>) -> Range<Int> {
    guard let origins, !range.isEmpty else { return range }
    return origins[range.lowerBound].lowerBound..<origins[range.upperBound - 1].upperBound
  }

  /// Appends a part of another text.
  mutating func append(_ range: Range<Int>, of other: WorkingText) {
    bytes += other.bytes[range]
    if let known = other.origins {
      origins?.append(contentsOf: known[range])
    } else {
      origins?.append(contentsOf: range.lazy.map { $0..<($0 + 1) })
    }
  }

  /// Appends bytes that stand for a range of the original.
  mutating func append(_ new: [UInt8], from range: Range<Int>) {
    bytes += new
    origins?.append(contentsOf: repeatElement(range, count: new.count))
  }

  /// The normal form of a part; nil where it is in it.
  func composed(_ range: Range<Int>) -> WorkingText? {
    let changes = bytes.withUnsafeBufferPointer { CanonicalComposition.changes(in: $0, range) }
    guard !changes.isEmpty else { return nil }
    var result = WorkingText()
    var copied = range.lowerBound
    for change in changes {
      result.append(copied..<change.range.lowerBound, of: self)
      result.append(change.bytes, from: origin(of: change.range))
      copied = change.range.upperBound
    }
    result.append(copied..<range.upperBound, of: self)
    return result
  }
}
