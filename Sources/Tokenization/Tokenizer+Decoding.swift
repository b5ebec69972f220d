extension Tokenizer {
  /// The bytes that the ids stand for, control tokens by their spelling. An id that has no token (a model's vocabulary may be padded
  /// beyond its tokenizer's) stands for nothing, as in `tokenizers`.
  ///
  /// An added token gives exactly its spelling. (`tokenizers` reads it in the byte alphabet, and so breaks one like "né".)
  /// - Complexity: O(bytes).
  public func decode(_ ids: some Sequence<Int32>) -> [UInt8] {
    var bytes: [UInt8] = []
    for id in ids where contents.indices.contains(Int(id)) { bytes += contents[Int(id)] ?? [] }
    return bytes
  }

  /// The text that the ids stand for; what is no UTF-8 becomes U+FFFD, one for each maximal part of a sequence.
  public func decodeText(_ ids: some Sequence<Int32>) -> String {
    String(decoding: decode(ids), as: UTF8.self)
  }

  /// The token as the vocabulary writes it ("Ġthe"), or the spelling of an added token; nil if no token has the id.
  public func idToToken(_ id: Int32) -> String? {
    guard spellings.indices.contains(Int(id)) else { return nil }
    return spellings[Int(id)].map { String(decoding: $0, as: UTF8.self) }
  }

  /// The id of an added token, by its spelling.
  public func controlToken(_ spelling: String) -> Int32? { addedIDs[Array(spelling.utf8)] }

  /// A decoder of ids that come one at a time.
  public func streamingDecoder() -> StreamingDecoder { StreamingDecoder(tokenizer: self) }
}

/// Turns ids into text as they come, and holds back the bytes of a character that is not whole yet.
///
/// The pieces, one after the other, are `decodeText` of all ids.
public struct StreamingDecoder: Sendable {
  private let tokenizer: Tokenizer
  private var held: [UInt8] = []

  init(tokenizer: Tokenizer) {
    self.tokenizer = tokenizer
  }

  /// The text that is certain after one more id.
  public mutating func text(after id: Int32) -> String {
    held += tokenizer.decode(CollectionOfOne(id))
    let whole = held.count - UTF8Scalars.incompleteSuffix(of: held)
    defer { held.removeFirst(whole) }
    return String(decoding: held[..<whole], as: UTF8.self)
  }

  /// What is left at the end: U+FFFD for a character that never became whole, or nothing.
  public mutating func finish() -> String {
    defer { held = [] }
    return String(decoding: held, as: UTF8.self)
  }
}
