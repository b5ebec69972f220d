import Testing

@testable import Tokenization

@Suite struct RegularExpressionTests {
  private func matches(_ pattern: String, _ text: [UInt8]) throws -> [Range<Int>] {
    let expression = try RegularExpression(pattern)
    var found: [Range<Int>] = []
    text.withUnsafeBufferPointer { expression.forEachMatch(in: $0, [text.indices]) { _, match in match.map { found.append($0) } } }
    return found
  }

  /// Expressions that take exponential or quadratic time by going back alone: on twenty thousand characters they would take minutes to ages.
  @Test(
    arguments: [
      "(?:a+)+b", "(?:a|a)*b", "(?:a|aa)+b", "(?:a*b)?c", "a+b", "a++b", "a*?b", "(?:aa)*b", "(?:a?a)+?b", "(?=a+b)a", "(?=a*$)ab",
      "(?=(?:a|aa)*$)ab", "(?=a*?$)ab", "(?!a+b)b",
      "(?=(?:a|aa)+b)a", "(?:a{1,3})+b", "a+a+a+b", "(?<=a)a+b", "(?:(?:a+)+)+b",
    ]) func noExpressionHangs(pattern: String) throws
  {
    let text = [UInt8](repeating: UInt8(ascii: "a"), count: 20_000)
    let clock = ContinuousClock()
    let time = try clock.measure {
      let found = try matches(pattern, text)
      #expect(found == [])
    }
    #expect(time < .seconds(20))
  }

  /// What is remembered after many steps changes no match: a text is long enough for it, its parts are not.
  @Test(
    arguments: [
      "(?:a+)+b|a", "(?:a|ab)+?c|b", "(?:a|aa)+$", "(?=(?:a|b)+c)a|c", "(?:a*b)+?c", "a+?b|ab?", "(?:a{1,2}b)+c|a", "(?=[ab]*c)[ab]",
      "(?:ab?)+c|.",
      #"(?:\w+ ?)*c|\w"#, "a*b?c|ab", "(?:a+|b+)*c|(?<=b)a|b",
    ]) func theMemoryChangesNothing(pattern: String) throws
  {
    var random: UInt64 = 42
    func next(_ bound: UInt64) -> UInt64 {
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return (random >> 33) % bound
    }
    for _ in 0..<25 {
      let block = (0..<(1 + Int(next(9)))).map { _ in Array("aaabbc".utf8)[Int(next(6))] }
      // A line end stands between blocks, which no match passes; an endless tail of work comes first.
      let short = try matches(pattern, block)
      let tail = [UInt8](repeating: UInt8(ascii: "a"), count: 3000) + [UInt8(ascii: "\n")]
      let long = try matches(pattern, tail + block)
      #expect(
        long.filter { $0.lowerBound >= tail.count }.map { $0.lowerBound - tail.count..<$0.upperBound - tail.count } == short, "\(block)")
    }
  }

  @Test func aLongExpressionIsRefusedAtOnce() {
    for pattern in [
      String(repeating: "(?:", count: 70) + "a" + String(repeating: ")", count: 70), "(?:(?:a{900}b){900}c){900}",
      String(repeating: "a?", count: 3000),
      String(repeating: "[", count: 100), String(repeating: "a", count: 70_000), "(?:a|b){1000}", String(repeating: "(?=", count: 100),
    ] {
      #expect(throws: PatternError.self) { try RegularExpression(pattern) }
    }
  }

  @Test func everyPublishedExpressionIsKnown() {
    for name in [
      "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "dbrx", "falcon", "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5",
      "gpt-4o",
      "tekken", "tiny_aya", "kimi-k2", "jais-2", "bailingmoe", "seed-coder", "exaone-moe", "minicpm5", "bloom", "viking", "superbpe",
      "laguna", "",
    ] {
      #expect(PublishedPreTokenizer(named: name) != nil, "\(name)")
    }
    #expect(["nothing", "sarvam-moe"].allSatisfy { PublishedPreTokenizer(named: $0) == nil })
  }

  /// A byte that is no UTF-8 is as U+FFFD is.
  @Test func brokenBytesAreCharacters() throws {
    #expect(try matches("[^a]", [0x61, 0xFF, 0xC3, 0x61, 0xE4, 0xB8]) == [1..<2, 2..<3, 4..<5, 5..<6])
    #expect(try matches(#"[^a]+(?=\x{FFFD})"#, [0xFF, 0xC3, 0xC3, 0xA9, 0xFF]) == [0..<4])
    #expect(try matches(#"\p{So}*?b"#, [0xFF, 0xFF, 0x62]) == [0..<3])
    #expect(try matches(#"(?<=\x{FFFD})b"#, [0xFF, 0x62]) == [1..<2])
  }
}
