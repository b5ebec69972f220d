import Checkpoints

extension TokenizerDescription {
  /// Reads the object `normalizer` of a `tokenizer.json`.
  mutating func readNormalizer(_ normalizer: JSONReader) throws {
    if try normalizer.type(oneOf: ["NFC", "Sequence"]) == "NFC" {
      normalizers.append(.form(.c))
    } else {
      for part in try normalizer.components("normalizers") { try readNormalizer(part) }
    }
    try normalizer.finish()
  }
}
