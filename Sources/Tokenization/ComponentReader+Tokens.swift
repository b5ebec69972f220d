import Checkpoints

extension ComponentReader {
  /// A token id that must be there.
  mutating func id(_ key: String) throws -> Int32 {
    let value = try required(key, "a token id")
    guard let id = value.intValue, (0..<TokenizerDescription.limit).contains(id) else {
      throw error(key, value.summary, "a token id from 0 to \(TokenizerDescription.limit - 1)")
    }
    return Int32(id)
  }

  /// Throws if there is a key that was not asked for: of a tokenizer it may change every id.
  func finish() throws { try finish("no such key; it may change the tokens and is not understood") }
}
