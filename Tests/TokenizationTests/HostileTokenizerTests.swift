import Checkpoints
import HostileCases
import Testing

@testable import Tokenization

/// `tokenizer.json` files made to break a reader (`Fixtures/hostile/tokenizer`), each with the error that it must give.
@Suite struct HostileTokenizerTests {
  @Test(arguments: HostileCases.names("tokenizer")) func tokenizer(name: String) {
    let difference = HostileCases.difference(name) { path in
      let tokenizer = try Tokenizer(contentsOf: path)
      #expect(tokenizer.decode(tokenizer.encode("the <end>")).count <= 9)
      return []
    }
    #expect(difference == nil)
  }

  @Test func canonicallyEqualTokensStayTwo() throws {
    let tokenizer = try Tokenizer(contentsOf: HostileCases.folder + "/tokenizer/canonically-equal-tokens.json")
    #expect(Set([101, 102].map { tokenizer.idToToken($0)?.unicodeScalars.count }) == [1, 2])
  }

  private func good() throws -> [UInt8] {
    let file = try MappedFile(path: HostileCases.folder + "/tokenizer/good.json")
    return try file.bytes(in: 0..<file.size)
  }

  private func open(_ bytes: [UInt8]) throws -> Tokenizer {
    try Tokenizer(TokenizerDescription(JSON(parsing: bytes, file: "t"), file: "t"))
  }

  @Test func aTokenizerIsReadAtItsWholeLengthOnly() throws {
    let bytes = try good()
    _ = try open(bytes)
    for length in bytes.indices {
      #expect(throws: CheckpointError.self, "\(length) bytes") { try open(Array(bytes[..<length])) }
    }
  }

  /// A bit turned over is an error, or another tokenizer that works: it never traps.
  @Test func aBitOfATokenizerNeverTraps() throws {
    let bytes = try good()
    var readable = 0
    for bit in 0..<(8 * bytes.count) {
      var damaged = bytes
      damaged[bit / 8] ^= 1 << (bit % 8)
      do {
        let tokenizer = try open(damaged)
        _ = tokenizer.decodeText(tokenizer.encode("the other 12 <end> \u{e9}", parsingControlTokens: bit % 2 == 0))
        readable += 1
      } catch is CheckpointError {}
    }
    // Tokens that no merge names may be renamed, and ids may move to free ones.
    #expect(readable > 0 && readable < bytes.count)
  }
}
