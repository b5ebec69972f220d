/// What the tokenizers ask about a code point, by the tables of `Tables/make_tables.py`.
struct UnicodeClass: OptionSet {
  let rawValue: UInt8

  /// \p{L}, Unicode 14.0.
  static let letter = UnicodeClass(rawValue: 1)
  /// \p{N}, Unicode 14.0.
  static let number = UnicodeClass(rawValue: 2)
  /// \s, which is White_Space.
  static let space = UnicodeClass(rawValue: 4)
  /// What the pre-tokenizer Digits splits: 40 code points more than `number`.
  static let digit = UnicodeClass(rawValue: 8)
  /// \w around a single-word added token.
  static let word = UnicodeClass(rawValue: 16)
  /// Not starter and composed at once: what NFC must look at (not Yes in NFC_Quick_Check, or of a combining class other than 0).
  static let unstable = UnicodeClass(rawValue: 32)
  /// What the normalizer StripAccents takes away: marks of an older Unicode.
  static let accent = UnicodeClass(rawValue: 64)
  /// What the pre-tokenizer Punctuation splits: that of ASCII, and that of an older Unicode.
  static let punctuation = UnicodeClass(rawValue: 128)
}

/// The classes of all code points, expanded at the first use to two levels: 256 code points a page, equal pages once.
struct UnicodeClasses: Sendable {
  static let table = UnicodeClasses()

  private let pageOfHigh: [UInt16]
  private let pages: [UInt8]

  private init() {
    var flat: [UInt8] = []
    flat.reserveCapacity(0x110000)
    Base36.forEachRecord(in: UnicodeClassData.runs) { numbers, _ in
      flat.append(contentsOf: repeatElement(UInt8(numbers[0]), count: Int(numbers[1])))
    }
    precondition(flat.count == 0x110000, "the table of classes has \(flat.count) code points")
    var pageOfHigh: [UInt16] = []
    var pages: [UInt8] = []
    var known: [[UInt8]: UInt16] = [:]
    for start in stride(from: 0, to: flat.count, by: 256) {
      let page = Array(flat[start..<(start + 256)])
      if let index = known[page] {
        pageOfHigh.append(index)
      } else {
        let index = UInt16(pages.count / 256)
        known[page] = index
        pageOfHigh.append(index)
        pages += page
      }
    }
    self.pageOfHigh = pageOfHigh
    self.pages = pages
  }

  /// The class of a code point below 0x110000.
  @inline(__always)
  subscript(value: UInt32) -> UnicodeClass {
    UnicodeClass(rawValue: pages[Int(pageOfHigh[Int(value >> 8)]) << 8 | Int(value & 0xFF)])
  }

  /// The class of the scalar at an offset and its length in bytes; a byte that begins no well-formed sequence is of no class.
  @inline(__always)
  func at(_ offset: Int, in bytes: UnsafeBufferPointer<UInt8>, end: Int) -> (flags: UnicodeClass, length: Int) {
    let (value, length) = UTF8Scalars.scalar(bytes, at: offset, end: end)
    return (value.map { self[$0] } ?? [], length)
  }

  /// The class of the scalar that ends before an offset; of no class where none does.
  func before(_ offset: Int, in bytes: UnsafeBufferPointer<UInt8>, start: Int) -> (flags: UnicodeClass, length: Int) {
    for length in 1...4 where offset - length >= start {
      guard bytes[offset - length] & 0xC0 != 0x80 else { continue }
      let (flags, found) = at(offset - length, in: bytes, end: offset)
      return found == length ? (flags, length) : ([], 1)
    }
    return ([], 1)
  }
}

/// The text form of the tables: records that end in a space, of numbers in base 36 with points between them.
enum Base36 {
  /// Hands on each record's numbers, and whether a point stands after the last one.
  static func forEachRecord(in text: StaticString, _ body: (_ numbers: [UInt32], _ endsInPoint: Bool) -> Void) {
    text.withUTF8Buffer { bytes in
      var numbers: [UInt32] = []
      var number: UInt32?
      for byte in bytes {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): number = (number ?? 0) * 36 + UInt32(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "."):
          if let number { numbers.append(number) }
          number = nil
        case UInt8(ascii: " "):
          if let number { numbers.append(number) }
          body(numbers, number == nil)
          numbers.removeAll(keepingCapacity: true)
          number = nil
        default: number = (number ?? 0) * 36 + UInt32(byte - UInt8(ascii: "a")) + 10
        }
      }
    }
  }
}
