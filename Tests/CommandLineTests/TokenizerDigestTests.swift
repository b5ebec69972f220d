import Checkpoints
import Foundation
import Testing

/// The ids of 100 000 strings a tokenizer, against the digests that `Fixtures/tokenizers/make_digests.py` made with `tokenizers` 0.20.3.
///
/// With the path of a release program in MIXLORA_PROGRAM all strings are encoded, as `.ci/run` does; else the first thousand, by the
/// program beside the tests.
@Suite struct TokenizerDigestTests {
  private static let program = ProcessInfo.processInfo.environment["MIXLORA_PROGRAM"]
  private static let file = Result { try JSON(contentsOf: Scratch.tokenizer("digests.json")) }
  private static let texts = Result { try StringGenerator(try file.get()).strings(program == nil ? 1000 : 100_000) }
  private static let names = [
    "gpt2-prefix", "smollm", "llama3", "qwen2", "added", "llama2", "llama2-json", "gemma", "unigram", "unigram-plain",
  ]
  /// The kind of string that spells control tokens: every tenth string.
  private static let spelled = 6

  private func expected(_ json: JSON?) throws -> [UInt64] {
    try #require(json?.arrayValue).map { try #require($0.stringValue.flatMap { UInt64($0, radix: 16) }) }
  }

  @Test func theStringsAreThoseOfTheReference() throws {
    let digests = try Self.texts.get().enumerated().reduce(into: Digests()) { digests, text in
      for scalar in text.element.unicodeScalars { digests.add(scalar.value) }
      digests.endString()
    }
    let expected = try expected(Self.file.get()["strings"])
    #expect(expected.count == 100 && digests.values == Array(expected.prefix(digests.values.count)) && !digests.values.isEmpty)
  }

  @Test(arguments: names) func theIdsAreThoseOfTheReference(name: String) throws {
    let tokenizer = try #require(Self.file.get()["tokenizers"]?[name])
    let texts = try Self.texts.get()
    let spelled = stride(from: Self.spelled, to: texts.count, by: 10).map { texts[$0] }
    #expect(try Self.file.get()["tokenizers"]?.objectValue?.keys.sorted() == Self.names.sorted())
    try expect(name, texts, expected(tokenizer["text"]), [])
    // A tenth of the first thousand is no whole thousand.
    if Self.program != nil { try expect(name, spelled, expected(tokenizer["parsed"]), ["--parse-special"]) }
  }

  private func expect(_ name: String, _ texts: [String], _ expected: [UInt64], _ flags: [String]) throws {
    let input = String(decoding: try JSONEncoder().encode(texts), as: UTF8.self)
    let result = try Program.run(["tokenize", "--model", Scratch.tokenizer(name)] + flags, input: input, program: Self.program)
    try #require(result.code == 0, "\(result.error)")
    let digests = Digests(lists: result.output)
    #expect(digests.values.count == texts.count / 1000 && digests.strings == 0 && !digests.values.isEmpty)
    for (index, (ours, theirs)) in zip(digests.values, expected).enumerated() {
      #expect(ours == theirs, "\(name), \(flags): strings from \(1000 * index)")
    }
  }
}

/// FNV-1a over numbers and FFFFFFFF behind each string, one a thousand strings.
private struct Digests {
  var values: [UInt64] = []
  /// Strings since the last value.
  var strings = 0
  private var value: UInt64 = 0xCBF2_9CE4_8422_2325

  init() {}

  /// Of "[[1,2],[],[3]]" and a line end.
  init(lists: String) {
    var (number, hasDigits) = (UInt32(0), false)
    for byte in lists.utf8.dropFirst().dropLast(2) {
      if (0x30...0x39).contains(byte) {
        (number, hasDigits) = (10 * number + UInt32(byte - 0x30), true)
        continue
      }
      if hasDigits { add(number) }
      (number, hasDigits) = (0, false)
      if byte == UInt8(ascii: "]") { endString() }
    }
  }

  mutating func add(_ number: UInt32) { value = (value ^ UInt64(number)) &* 0x100_0000_01B3 }

  mutating func endString() {
    add(.max)
    strings += 1
    guard strings == 1000 else { return }
    values.append(value)
    (strings, value) = (0, 0xCBF2_9CE4_8422_2325)
  }
}

/// The strings of `make_digests.py`: string i is made of random numbers that depend on i alone.
private struct StringGenerator {
  /// What a string is put together from: a text, or any scalar of a range.
  private enum Piece {
    case text(String)
    case scalar(ClosedRange<UInt32>)
  }

  private struct Kind {
    let most: Int
    let picksOneList: Bool
    let lists: [[Piece]]
  }

  /// SplitMix64.
  private struct Numbers {
    var state: UInt64

    mutating func below(_ count: Int) -> Int {
      state &+= 0x9E37_79B9_7F4A_7C15
      var value = state
      value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
      value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
      return Int((value ^ value >> 31) % UInt64(count))
    }
  }

  private let kinds: [Kind]
  private let scalars: [UInt32]
  private let contexts = [("", ""), ("a", " "), (" ", "\u{301}")]

  init(_ json: JSON) throws {
    kinds = try #require(json["kinds"]?.arrayValue).map { kind in
      let lists = try #require(kind["lists"]?.arrayValue).map { list in
        try #require(list.arrayValue).map { piece in
          if let text = piece.stringValue { return Piece.text(text) }
          let ends = try #require(piece.arrayValue).map { UInt32(try #require($0.intValue)) }
          return .scalar(ends[0]...ends[1])
        }
      }
      return Kind(most: try #require(kind["most"]?.intValue), picksOneList: kind["one"] == true, lists: lists)
    }
    let planes: [UInt32] = Array(0..<0xD800) + Array(0xE000..<0x34000) + Array(0xE0000..<0xE0200)
    scalars = planes + Array(stride(from: 0x34000, to: 0xE0000, by: 257)) + Array(stride(from: 0xE0200, to: 0x110000, by: 257))
  }

  func strings(_ count: Int) throws -> [String] { (0..<count).map(string) }

  private func string(_ index: Int) -> String {
    func text(_ scalar: UInt32) -> String { Unicode.Scalar(scalar).map { String(Character($0)) } ?? "" }
    let place = index / 10
    guard index % 10 != 0 else {
      let blocks = (scalars.count + 63) / 64
      let (before, after) = contexts[place / blocks % contexts.count]
      let start = place % blocks * 64
      return scalars[start..<min(start + 64, scalars.count)].map { before + text($0) + after }.joined()
    }
    let kind = kinds[index % 10 - 1]
    var numbers = Numbers(state: UInt64(index))
    let only = kind.lists[numbers.below(kind.lists.count)]
    let parts = (0...numbers.below(kind.most)).map { _ in
      let pieces = kind.picksOneList ? only : kind.lists[numbers.below(kind.lists.count)]
      switch pieces[numbers.below(pieces.count)] {
      case .text(let text): return text
      case .scalar(let range): return text(range.lowerBound + UInt32(numbers.below(range.count)))
      }
    }
    return place % 50 == 0 ? String(repeating: parts[0], count: 100 + numbers.below(400)) : parts.joined()
  }
}
