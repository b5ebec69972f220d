/// The regular expressions by which the known tokenizers cut a text, run by hand.
///
/// A text of the hub names its expression; only these are known, matched as exact strings, and each has a scanner that finds the same
/// pieces in one pass over the bytes with the pinned tables of `UnicodeClasses`.
public enum SplitPattern: String, CaseIterable, Sendable {
  /// GPT-2's, also built into the pre-tokenizer ByteLevel.
  case gpt2 = #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
  /// Llama-3's: contractions in any case, up to three digits, line ends by themselves.
  case llama3 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  /// Qwen2's: Llama-3's with single digits.
  case qwen2 = #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
}

/// Finds the next match of a pattern. Every pattern matches at every offset, so the matches tile the text.
struct Scanner {
  let bytes: UnsafeBufferPointer<UInt8>
  let end: Int
  let classes = UnicodeClasses.table

  private static let apostrophe = UInt8(ascii: "'")
  private static let blank = UInt8(ascii: " ")

  /// The offset after the match that begins at `offset < end`.
  @inline(__always)
  func next(_ pattern: SplitPattern, from offset: Int) -> Int {
    switch pattern {
    case .gpt2: gpt2(from: offset)
    case .llama3: llama3(from: offset, digits: 3)
    case .qwen2: llama3(from: offset, digits: 1)
    }
  }

  private func gpt2(from offset: Int) -> Int {
    // 's|'t|'re|'ve|'m|'ll|'d
    if bytes[offset] == Self.apostrophe, let end = contraction(at: offset, inAnyCase: false) { return end }
    // ` ?\p{L}+`, ` ?\p{N}+`, ` ?[^\s\p{L}\p{N}]+`
    let first = classes.at(offset, in: bytes, end: end)
    if !first.flags.contains(.space) { return run(of: kind(first.flags), from: offset + first.length) }
    if bytes[offset] == Self.blank, offset + 1 < end {
      let second = classes.at(offset + 1, in: bytes, end: end)
      if !second.flags.contains(.space) { return run(of: kind(second.flags), from: offset + 1 + second.length) }
    }
    return spaces(from: offset + first.length).withoutLast
  }

  private func llama3(from offset: Int, digits: Int) -> Int {
    // (?i:'s|'t|'re|'ve|'m|'ll|'d)
    if bytes[offset] == Self.apostrophe, let end = contraction(at: offset, inAnyCase: true) { return end }
    let first = classes.at(offset, in: bytes, end: end)
    let after = offset + first.length
    let isLineEnd = bytes[offset] == 0x0A || bytes[offset] == 0x0D
    // [^\r\n\p{L}\p{N}]?\p{L}+
    if first.flags.contains(.letter) { return run(of: .letter, from: after) }
    let second = after < end ? classes.at(after, in: bytes, end: end) : nil
    if !isLineEnd, !first.flags.contains(.number), let second, second.flags.contains(.letter) {
      return run(of: .letter, from: after + second.length)
    }
    // \p{N}{1,3}
    if first.flags.contains(.number) {
      var stop = after
      for _ in 1..<digits where stop < end {
        let next = classes.at(stop, in: bytes, end: end)
        guard next.flags.contains(.number) else { break }
        stop += next.length
      }
      return stop
    }
    // ` ?[^\s\p{L}\p{N}]+[\r\n]*`
    if !first.flags.contains(.space) { return lineEnds(from: run(of: [], from: after)) }
    if bytes[offset] == Self.blank, let second, kind(second.flags) == [] {
      return lineEnds(from: run(of: [], from: after + second.length))
    }
    // `\s*[\r\n]+` reaches to the last line end of the white space; `\s+(?!\S)`, `\s+`
    let white = spaces(from: after)
    var stop = white.end
    while stop > offset {
      if bytes[stop - 1] == 0x0A || bytes[stop - 1] == 0x0D { return stop }
      stop -= 1
    }
    return white.withoutLast
  }

  /// Letter, number, white space, or none of them.
  @inline(__always)
  private func kind(_ flags: UnicodeClass) -> UnicodeClass { flags.intersection([.letter, .number, .space]) }

  /// The end of the run of one kind that reaches `offset`.
  @inline(__always)
  private func run(of wanted: UnicodeClass, from offset: Int) -> Int {
    var offset = offset
    while offset < end {
      let next = classes.at(offset, in: bytes, end: end)
      guard kind(next.flags) == wanted else { break }
      offset += next.length
    }
    return offset
  }

  private func lineEnds(from offset: Int) -> Int {
    var offset = offset
    while offset < end, bytes[offset] == 0x0A || bytes[offset] == 0x0D { offset += 1 }
    return offset
  }

  /// The white space whose first scalar ends at `offset`: where it ends, and where `\s+(?!\S)|\s+` does, which leaves the last of
  /// several scalars to what follows.
  private func spaces(from offset: Int) -> (end: Int, withoutLast: Int) {
    var stop = offset
    var last = offset
    var isSingle = true
    while stop < end {
      let next = classes.at(stop, in: bytes, end: end)
      guard next.flags.contains(.space) else { break }
      last = stop
      isSingle = false
      stop += next.length
    }
    return (stop, stop == end || isSingle ? stop : last)
  }

  /// The end of a contraction that begins with the apostrophe at `offset`; in any case, the long s is an s too.
  private func contraction(at offset: Int, inAnyCase: Bool) -> Int? {
    func letter(_ index: Int) -> UInt8? {
      guard offset + index < end else { return nil }
      let byte = bytes[offset + index]
      return inAnyCase && byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
    }
    switch letter(1) {
    case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return offset + 2
    case UInt8(ascii: "r"), UInt8(ascii: "v"): return letter(2) == UInt8(ascii: "e") ? offset + 3 : nil
    case UInt8(ascii: "l"): return letter(2) == UInt8(ascii: "l") ? offset + 3 : nil
    case 0xC5: return inAnyCase && letter(2) == 0xBF ? offset + 3 : nil
    default: return nil
    }
  }
}
