import Checkpoints

extension TokenizerDescription {
  /// Reads the object `pre_tokenizer` of a `tokenizer.json`.
  mutating func readPreTokenizer(_ step: JSONReader, isLast: Bool = true) throws {
    switch try step.type(oneOf: ["Sequence", "Digits", "Split", "ByteLevel"]) {
    case "Sequence":
      let parts = try step.components("pretokenizers")
      guard !parts.isEmpty else { throw step.error("pretokenizers", "no steps", "ByteLevel, perhaps after others") }
      for (index, part) in parts.enumerated() {
        let part = part
        try readPreTokenizer(part, isLast: isLast && index == parts.count - 1)
      }
    case "Digits":
      guard !isLast else { throw step.error("type", "\"Digits\" at the end", "ByteLevel as the last step") }
      guard try step.bool("individual_digits", default: false) else {
        throw step.error("individual_digits", "false", "true; other values are not built yet")
      }
      preTokenizers.append(.individualDigits)
    case "Split":
      guard !isLast else { throw step.error("type", "\"Split\" at the end", "ByteLevel as the last step") }
      preTokenizers.append(.split(try Self.pattern(step)))
      try step.require("behavior", ["Isolated"], "\"Isolated\"")
      _ = try step.required("behavior", "\"Isolated\"")
      try step.require("invert", [false], "false")
    default:
      // What follows would see the alphabet in place of the bytes.
      guard isLast else { throw step.error("type", "\"ByteLevel\" before other steps", "it as the last step") }
      if try step.bool("add_prefix_space", default: true) { preTokenizers.append(.prefixSpace) }
      if try step.bool("use_regex", default: true) { preTokenizers.append(.split(.gpt2)) }
      _ = try step.bool("trim_offsets", default: true)  // about offsets without their white space; ours are of the whole token
    }
    try step.finish()
  }

  private static func pattern(_ step: JSONReader) throws -> SplitPattern {
    guard let pattern = try step.component("pattern") else { throw step.error("pattern", "nothing", "{\"Regex\": …}") }
    guard let text = try pattern.bytes("Regex") else { throw step.error("pattern", "no Regex", "{\"Regex\": …}; others are not built yet") }
    try pattern.finish()
    guard let known = SplitPattern.allCases.first(where: { $0.rawValue.utf8.elementsEqual(text) }) else {
      throw pattern.error(
        "Regex", quoted(String(decoding: text, as: UTF8.self)), "GPT-2's, Llama-3's or Qwen2's expression; others are not built yet")
    }
    return known
  }
}
