/// A step that cuts pieces of text into smaller ones; no token reaches across a cut.
public enum PreTokenizer: Equatable, Sendable {
  /// What becomes of the passages at which a piece is cut.
  public enum Behavior: String, CaseIterable, Equatable, Sendable {
    /// They are dropped.
    case removed = "Removed"
    /// Each is a piece.
    case isolated = "Isolated"
    /// Each belongs to the piece before it; of several in a row the first alone.
    case mergedWithPrevious = "MergedWithPrevious"
    /// Each belongs to the piece behind it; of several in a row the last alone.
    case mergedWithNext = "MergedWithNext"
    /// Those in a row are a piece together.
    case contiguous = "Contiguous"
  }

  /// Which pieces get the character that stands for a blank put before them.
  public enum PrefixScheme: String, CaseIterable, Equatable, Sendable {
    /// Every one.
    case always
    /// The one at the beginning of the text.
    case first
    /// None.
    case never
  }

  /// At the matches of an expression, or, inverted, at what is between them: `Split`.
  case split(RegularExpression, Behavior, isInverted: Bool)
  /// At digits (Nd, Nl, No of a newer Unicode), each by itself or those in a row together: `Digits`.
  case digits(individually: Bool)
  /// At punctuation, that of ASCII or of Unicode: `Punctuation`.
  case punctuation(Behavior)
  /// Into words and runs of other characters, without white space: `Whitespace`.
  case words
  /// At white space, which is dropped: `WhitespaceSplit`.
  case whitespace
  /// At a character, which is dropped: `CharDelimiterSplit`.
  case delimiter(Unicode.Scalar)
  /// A character for every blank and before pieces that do not begin with it; pieces are cut before each: `Metaspace`.
  case metaspace(Unicode.Scalar, PrefixScheme, splits: Bool)
  /// A blank before each piece that does not begin with one: `add_prefix_space` of `ByteLevel`.
  case prefixSpace
  /// Bytes written in the alphabet of byte-level tokenizers, where steps follow that see it so (Falcon): `ByteLevel`.
  case alphabet
  /// The way back from `alphabet`.
  case bytes

  /// Cuts pieces, which are in order and not empty; the text is another one afterwards where characters were put in.
  func cut(_ text: inout WorkingText, _ pieces: [Range<Int>]) -> [Range<Int>] {
    switch self {
    case .split(let expression, let behavior, let isInverted):
      var cutter = Cutter(behavior, isInverted: isInverted)
      text.bytes.withUnsafeBufferPointer { bytes in
        expression.forEachMatch(in: bytes, pieces) { piece, match in
          if let match { cutter.add(match, of: piece) } else { cutter.finish(piece) }
        }
      }
      return cutter.pieces
    case .digits(let individually): return cutAtClass(.digit, text, pieces, individually ? .isolated : .contiguous)
    case .punctuation(let behavior): return cutAtClass(.punctuation, text, pieces, behavior)
    case .whitespace: return cutAtClass(.space, text, pieces, .removed)
    case .words: return cutIntoWords(text, pieces)
    case .delimiter(let scalar):
      let delimiter = Array(String(scalar).utf8)
      var cutter = Cutter(.removed, isInverted: false)
      for piece in pieces {
        for start in text.occurrences(of: delimiter, in: piece) { cutter.add(start..<(start + delimiter.count), of: piece) }
        cutter.finish(piece)
      }
      return cutter.pieces
    case .metaspace(let scalar, let scheme, let splits):
      return cutAtMetaspace(Array(String(scalar).utf8), scheme, splits, &text, pieces)
    case .prefixSpace:
      let blank = UInt8(ascii: " ")
      guard pieces.contains(where: { text.bytes[$0.lowerBound] != blank }) else { return pieces }
      return text.rewrite(pieces) { result, piece, text in
        if text.bytes[piece.lowerBound] != blank { result.append([blank], before: piece, of: text) }
        result.append(piece, of: text)
      }
    case .alphabet:
      return text.rewrite(pieces) { result, piece, text in
        for offset in piece {
          result.append(ByteAlphabet.encode(text.bytes[offset...offset]), from: text.origin(of: offset..<(offset + 1)))
        }
      }
    case .bytes:
      return text.rewrite(pieces) { result, piece, text in
        text.bytes.withUnsafeBufferPointer { bytes in
          var offset = piece.lowerBound
          while offset < piece.upperBound {
            let length = UTF8Scalars.scalar(bytes, at: offset, end: piece.upperBound).length
            let range = offset..<(offset + length)
            result.append(ByteAlphabet.decode(Array(bytes[range])), from: text.origin(of: range))
            offset += length
          }
        }
      }
    }
  }

  private func cutAtClass(_ wanted: UnicodeClass, _ text: WorkingText, _ pieces: [Range<Int>], _ behavior: Behavior) -> [Range<Int>] {
    var cutter = Cutter(behavior, isInverted: false)
    text.bytes.withUnsafeBufferPointer { bytes in
      for piece in pieces {
        var offset = piece.lowerBound
        while offset < piece.upperBound {
          let (flags, length) = UnicodeClasses.table.at(offset, in: bytes, end: piece.upperBound)
          if flags.contains(wanted) { cutter.add(offset..<(offset + length), of: piece) }
          offset += length
        }
        cutter.finish(piece)
      }
    }
    return cutter.pieces
  }

  /// `\w+|[^\w\s]+`, with the newer Unicode of the other regular expressions of `tokenizers`.
  private func cutIntoWords(_ text: WorkingText, _ pieces: [Range<Int>]) -> [Range<Int>] {
    var result: [Range<Int>] = []
    text.bytes.withUnsafeBufferPointer { bytes in
      for piece in pieces {
        var start = piece.lowerBound
        var last: UnicodeClass = .space
        var offset = start
        while offset < piece.upperBound {
          let (flags, length) = UnicodeClasses.table.at(offset, in: bytes, end: piece.upperBound)
          let kind: UnicodeClass = flags.contains(.word) ? .word : flags.intersection(.space)
          if kind != last {
            if last != .space { result.append(start..<offset) }
            (start, last) = (offset, kind)
          }
          offset += length
        }
        if last != .space { result.append(start..<piece.upperBound) }
      }
    }
    return result
  }

  private func cutAtMetaspace(
    _ replacement: [UInt8], _ scheme: PrefixScheme, _ splits: Bool, _ text: inout WorkingText, _ pieces: [Range<Int>]
  ) -> [Range<Int>] {
    let blank = UInt8(ascii: " ")
    let moved = text.rewrite(pieces) { result, piece, text in
      let begins = text.bytes[piece.lowerBound] == blank || text.bytes[piece].starts(with: replacement)
      if !begins, scheme == .always || scheme == .first && text.origin(of: piece).lowerBound == 0 {
        result.append(replacement, before: piece, of: text)
      }
      var copied = piece.lowerBound
      for offset in piece where text.bytes[offset] == blank {
        result.append(copied..<offset, of: text)
        result.append(replacement, from: text.origin(of: offset..<(offset + 1)))
        copied = offset + 1
      }
      result.append(copied..<piece.upperBound, of: text)
    }
    guard splits else { return moved }
    var cutter = Cutter(.mergedWithNext, isInverted: false)
    for piece in moved {
      for start in text.occurrences(of: replacement, in: piece) { cutter.add(start..<(start + replacement.count), of: piece) }
      cutter.finish(piece)
    }
    return cutter.pieces
  }
}

/// Collects the pieces that come of the matches in a piece, by a behavior.
private struct Cutter {
  private(set) var pieces: [Range<Int>] = []
  private let behavior: PreTokenizer.Behavior
  private let isInverted: Bool
  /// Pieces before the one being cut.
  private var done = 0
  private var end = 0
  private var isBegun = false
  private var lastWasMatch = false
  private var hasEmpty = false

  init(_ behavior: PreTokenizer.Behavior, isInverted: Bool) {
    self.behavior = behavior
    self.isInverted = isInverted
  }

  /// The next match within a piece.
  mutating func add(_ match: Range<Int>, of piece: Range<Int>) {
    if !isBegun { (isBegun, end) = (true, piece.lowerBound) }
    if end < match.lowerBound { take(end..<match.lowerBound, isMatch: isInverted) }
    take(match, isMatch: !isInverted)
    end = match.upperBound
  }

  /// The end of a piece.
  mutating func finish(_ piece: Range<Int>) {
    let start = isBegun ? end : piece.lowerBound
    if start < piece.upperBound { take(start..<piece.upperBound, isMatch: isInverted) }
    if hasEmpty {
      pieces.replaceSubrange(done..., with: pieces[done...].filter { !$0.isEmpty })
      hasEmpty = false
    }
    (done, isBegun, lastWasMatch) = (pieces.count, false, false)
  }

  private mutating func take(_ range: Range<Int>, isMatch: Bool) {
    hasEmpty = hasEmpty || range.isEmpty
    let last = pieces.count > done ? pieces.count - 1 : nil
    switch behavior {
    case .isolated: pieces.append(range)
    case .removed: if !isMatch { pieces.append(range) }
    case .contiguous:
      if let last, isMatch == lastWasMatch {
        pieces[last] = pieces[last].lowerBound..<range.upperBound
      } else {
        pieces.append(range)
      }
    case .mergedWithPrevious:
      if let last, isMatch, !lastWasMatch {
        pieces[last] = pieces[last].lowerBound..<range.upperBound
      } else {
        pieces.append(range)
      }
    case .mergedWithNext:
      // A match waits for what follows it; another match does not take it.
      if let last, lastWasMatch, !isMatch {
        pieces[last] = pieces[last].lowerBound..<range.upperBound
      } else {
        pieces.append(range)
      }
    }
    lastWasMatch = isMatch
  }
}
