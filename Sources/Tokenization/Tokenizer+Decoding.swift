extension Tokenizer {
  /// The bytes that the ids stand for, control tokens by their spelling. An id that has no token (a model's vocabulary may be padded
  /// beyond its tokenizer's) stands for nothing, as in `tokenizers`.
  ///
  /// An added token of a byte-level tokenizer gives exactly its spelling. (`tokenizers` reads it in the byte alphabet, and so breaks one
  /// like "né".)
  /// - Complexity: O(bytes).
  public func decode(_ ids: some Sequence<Int32>) -> [UInt8] {
    var chain = chain
    var result: [UInt8] = []
    for id in ids { result += bytes(of: id, &chain) }
    return result + chain.finish()
  }

  /// The text that the ids stand for; what is no UTF-8 becomes U+FFFD, one for each maximal part of a sequence, or one for each byte
  /// where the tokenizer has tokens for bytes.
  public func decodeText(_ ids: some Sequence<Int32>) -> String {
    String(decoding: decode(ids), as: UTF8.self)
  }

  /// The bytes that are certain after one more id.
  func bytes(of id: Int32, _ chain: inout DecodingChain) -> [UInt8] {
    guard spellings.indices.contains(Int(id)), let token = spellings[Int(id)] else { return [] }
    return chain.bytes(after: token, isAdded: addedIDs[token] == id)
  }

  /// The token as the vocabulary writes it ("Ġthe"), or the spelling of an added token; nil if no token has the id.
  public func idToToken(_ id: Int32) -> String? {
    guard spellings.indices.contains(Int(id)) else { return nil }
    return spellings[Int(id)].map { String(decoding: $0, as: UTF8.self) }
  }

  /// The id of an added token, by its spelling.
  public func controlToken(_ spelling: String) -> Int32? { addedIDs[Array(spelling.utf8)] }

  /// A decoder of ids that come one at a time; the text ends before the first of `stops`.
  public func streamingDecoder(stops: [String] = []) -> StreamingDecoder { StreamingDecoder(tokenizer: self, stops: stops) }
}
