/// A text on its way through normalizers and pre-tokenizers, which remembers where in the original each of its bytes comes from.
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

  /// Where in the original a range comes from. Of a passage that a step changed, every part comes from the whole passage.
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

  /// Appends bytes that stand for nothing of the original, before a part of another text.
  mutating func append(_ new: [UInt8], before range: Range<Int>, of other: WorkingText) {
    let place = other.origin(of: range).lowerBound
    append(new, from: place..<place)
  }

  /// Makes a text of what `body` appends for each piece; returns the new pieces.
  mutating func rewrite(
    _ pieces: [Range<Int>], _ body: (_ result: inout WorkingText, _ piece: Range<Int>, _ text: WorkingText) -> Void
  ) -> [Range<Int>] {
    var result = WorkingText()
    var moved: [Range<Int>] = []
    for piece in pieces {
      let start = result.bytes.count
      body(&result, piece, self)
      if result.bytes.count > start { moved.append(start..<result.bytes.count) }
    }
    self = result
    return moved
  }

  /// A part of the text with other bytes in some places, which `find` gives in order; nil where it gives none.
  func replacing(
    in range: Range<Int>,
    _ find: (_ bytes: UnsafeBufferPointer<UInt8>, _ change: (_ place: Range<Int>, _ bytes: [UInt8]) -> Void) -> Void
  ) -> WorkingText? {
    var result: WorkingText?
    var copied = range.lowerBound
    bytes.withUnsafeBufferPointer { bytes in
      find(bytes) { place, new in
        var text = result ?? WorkingText()
        result = nil  // so that the text is not copied
        text.append(copied..<place.lowerBound, of: self)
        text.append(new, from: place.isEmpty ? insertion(place.lowerBound, in: range) : origin(of: place))
        copied = place.upperBound
        result = text
      }
    }
    result?.append(copied..<range.upperBound, of: self)
    return result
  }

  /// The empty range of the original at a place of the text.
  private func insertion(_ place: Int, in range: Range<Int>) -> Range<Int> {
    let origin = place < range.upperBound ? origin(of: place..<(place + 1)).lowerBound : origin(of: range).upperBound
    return origin..<origin
  }

  /// Where bytes stand in a part, from left to right.
  func occurrences(of wanted: [UInt8], in range: Range<Int>) -> [Int] {
    range.filter {
      bytes[$0] == wanted[0] && $0 + wanted.count <= range.upperBound && bytes[$0..<($0 + wanted.count)].elementsEqual(wanted)
    }
  }
}
