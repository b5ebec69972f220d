/// Turns ids into text as they come. It holds back the bytes of a character that is not whole yet, what the decoder may still change
/// (bytes in a row, of which one that is no UTF-8 spoils all), and what may be the beginning of a stop text.
///
/// The pieces, one after the other, are `decodeText` of all ids, or what comes before the first stop text, which may begin and end
/// within tokens.
public struct StreamingDecoder: Sendable {
  /// Once a stop text has come, the number of tokens that begin before it.
  public private(set) var tokensBeforeStop: Int?
  private let tokenizer: Tokenizer
  private var chain: DecodingChain
  private let stops: [[UInt8]]
  private var held: [UInt8] = []
  /// Where each token begins in the bytes of all, and where the bytes that are held begin.
  private var starts: [Int] = []
  private var released = 0

  init(tokenizer: Tokenizer, stops: [String]) {
    self.tokenizer = tokenizer
    chain = tokenizer.chain
    self.stops = stops.map { Array($0.utf8) }.filter { !$0.isEmpty }
  }

  /// The text that is certain after one more id; nothing once a stop text has come.
  public mutating func text(after id: Int32) -> String {
    guard tokensBeforeStop == nil else { return "" }
    starts.append(released + held.count + chain.heldCount)
    held += tokenizer.bytes(of: id, &chain)
    if let stop = firstStop() { return end(at: stop) }
    let whole = held.count - max(UTF8Scalars.incompleteSuffix(of: held), beginningOfStop())
    defer {
      held.removeFirst(whole)
      released += whole
    }
    return String(decoding: held[..<whole], as: UTF8.self)
  }

  /// What is left at the end: what was no stop text after all, U+FFFD for a character that never became whole, or nothing.
  public mutating func finish() -> String {
    guard tokensBeforeStop == nil else { return "" }
    held += chain.finish()
    if let stop = firstStop() { return end(at: stop) }
    defer { held = [] }
    return String(decoding: held, as: UTF8.self)
  }

  /// Ends the text before a stop text in the bytes that are held.
  private mutating func end(at stop: Int) -> String {
    tokensBeforeStop = starts.prefix { $0 < released + stop }.count
    defer { held = [] }
    return String(decoding: held[..<stop], as: UTF8.self)
  }

  /// Where the first stop text begins in the bytes that are held. What was released has no beginning of one.
  private func firstStop() -> Int? {
    held.indices.first { i in stops.contains { held[i...].starts(with: $0) } }
  }

  /// The length of the longest end of `held` that a stop text begins with.
  private func beginningOfStop() -> Int {
    let longest = stops.map { $0.count - 1 }.max() ?? 0
    return stride(from: min(longest, held.count), to: 0, by: -1).first { length in
      stops.contains { $0.count > length && $0.starts(with: held.suffix(length)) }
    } ?? 0
  }
}
