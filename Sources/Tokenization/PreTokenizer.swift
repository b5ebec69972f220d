/// A step that cuts pieces of text into smaller ones; byte pairs are never merged across a cut.
public enum PreTokenizer: Equatable, Sendable {
  /// Each digit (Nd, Nl, No of a newer Unicode) by itself: `Digits` with `individual_digits`.
  case individualDigits
  /// At the matches of a pattern: `Split`, isolated, or the pattern inside of `ByteLevel`.
  case split(SplitPattern)
  /// A blank before each piece that does not begin with one: `add_prefix_space` of `ByteLevel`, once for a piece that reaches it.
  case prefixSpace

  /// Cuts pieces, which are in order and not empty; the text is another one afterwards where blanks were put in.
  func cut(_ text: inout WorkingText, _ pieces: [Range<Int>]) -> [Range<Int>] {
    switch self {
    case .individualDigits:
      return Self.cut(text, pieces) { bytes, piece, emit in
        let classes = UnicodeClasses.table
        var start = piece.lowerBound
        var offset = start
        while offset < piece.upperBound {
          let (flags, length) = classes.at(offset, in: bytes, end: piece.upperBound)
          if flags.contains(.digit) {
            if start < offset { emit(start..<offset) }
            start = offset + length
            emit(offset..<start)
          }
          offset += length
        }
        if start < offset { emit(start..<offset) }
      }
    case .split(let pattern):
      return Self.cut(text, pieces) { bytes, piece, emit in
        let scanner = Scanner(bytes: bytes, end: piece.upperBound)
        var offset = piece.lowerBound
        while offset < piece.upperBound {
          let end = scanner.next(pattern, from: offset)
          emit(offset..<end)
          offset = end
        }
      }
    case .prefixSpace:
      let blank = UInt8(ascii: " ")
      guard pieces.contains(where: { text.bytes[$0.lowerBound] != blank }) else { return pieces }
      var result = WorkingText()
      var moved: [Range<Int>] = []
      for piece in pieces {
        let start = result.bytes.count
        if text.bytes[piece.lowerBound] != blank {
          let place = text.origin(of: piece).lowerBound
          result.append([blank], from: place..<place)
        }
        result.append(piece, of: text)
        moved.append(start..<result.bytes.count)
      }
      text = result
      return moved
    }
  }

  private static func cut(
    _ text: WorkingText, _ pieces: [Range<Int>],
    _ body: (_ bytes: UnsafeBufferPointer<UInt8>, _ piece: Range<Int>, _ emit: (Range<Int>) -> Void) -> Void
  ) -> [Range<Int>] {
    var result: [Range<Int>] = []
    text.bytes.withUnsafeBufferPointer { bytes in
      for piece in pieces { body(bytes, piece) { result.append($0) } }
    }
    return result
  }
}
