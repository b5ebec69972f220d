import Checkpoints

extension TokenizerDescription {
  /// Reads the object `pre_tokenizer` of a `tokenizer.json`.
  ///
  /// `ByteLevel` at the end leaves bytes as they are and sets `isByteLevel`: a model that knows it is handed the bytes of each piece. Where
  /// steps follow (Falcon), they see the alphabet, and its bytes come back behind the last of them.
  /// - Throws: `CheckpointError` naming a kind that is not known, or a pattern.
  mutating func readPreTokenizer(_ step: JSONReader) throws {
    try readStep(step)
    guard let place = preTokenizers.firstIndex(of: .alphabet) else { return }
    if place == preTokenizers.count - 1 { preTokenizers.removeLast() } else { preTokenizers.append(.bytes) }
    isByteLevel = true
  }

  private mutating func readStep(_ step: JSONReader) throws {
    let kinds = [
      "Sequence", "Split", "ByteLevel", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "Metaspace", "CharDelimiterSplit",
    ]
    let kind = try step.type(oneOf: kinds)
    if preTokenizers.contains(.alphabet), ["ByteLevel", "Metaspace"].contains(kind) {
      throw step.error("type", "\"\(kind)\" behind \"ByteLevel\"", "steps there that put nothing in")
    }
    switch kind {
    case "Sequence":
      for part in try step.components("pretokenizers") { try readStep(part) }
    case "Split":
      preTokenizers.append(
        .split(
          try Self.pattern(step), try behavior(step, default: nil), isInverted: try step.bool("invert", default: false)))
    case "ByteLevel":
      if try step.bool("add_prefix_space", default: true) { preTokenizers.append(.prefixSpace) }
      if try step.bool("use_regex", default: true) { preTokenizers.append(.split(.gpt2, .isolated, isInverted: false)) }
      _ = try step.bool("trim_offsets", default: true)  // about offsets without their white space; ours are of the whole token
      preTokenizers.append(.alphabet)
    case "Digits": preTokenizers.append(.digits(individually: try step.bool("individual_digits", default: false)))
    case "Punctuation": preTokenizers.append(.punctuation(try behavior(step, default: .isolated)))
    case "Whitespace": preTokenizers.append(.words)
    case "WhitespaceSplit": preTokenizers.append(.whitespace)
    case "CharDelimiterSplit": preTokenizers.append(.delimiter(try character(step, "delimiter")))
    default: preTokenizers.append(try metaspace(step))
    }
    try step.finish()
  }

  private func behavior(_ step: JSONReader, default fallback: PreTokenizer.Behavior?) throws -> PreTokenizer.Behavior {
    let names = PreTokenizer.Behavior.allCases.map(\.rawValue)
    let name = try step.string("behavior", default: fallback?.rawValue, oneOf: names)
    return PreTokenizer.Behavior(rawValue: name) ?? .isolated
  }

  private func character(_ step: JSONReader, _ key: String) throws -> Unicode.Scalar {
    let text = try step.string(key)
    guard text.unicodeScalars.count == 1, let scalar = text.unicodeScalars.first else {
      throw step.error(key, quoted(text), "one character")
    }
    return scalar
  }

  private func metaspace(_ step: JSONReader) throws -> PreTokenizer {
    let replacement = try character(step, "replacement")
    _ = step.value("str_rep")  // the replacement again, as a string
    let names = PreTokenizer.PrefixScheme.allCases.map(\.rawValue)
    let scheme = PreTokenizer.PrefixScheme(rawValue: try step.string("prepend_scheme", default: "always", oneOf: names)) ?? .always
    // Older files say it this way.
    if try !step.bool("add_prefix_space", default: true), scheme != .never {
      throw step.error("add_prefix_space", "false", "\"prepend_scheme\": \"never\" with it, as tokenizers asks")
    }
    return .metaspace(replacement, scheme, splits: try step.bool("split", default: true))
  }
}

extension TokenizerDescription {
  /// The object `pre_tokenizer` of a `tokenizer.json`; null without steps.
  ///
  /// `ByteLevel` stands at its place among the steps: it writes bytes in its alphabet, and does what `add_prefix_space` and `use_regex` say
  /// where those steps stand before it.
  var preTokenizer: JSON {
    var parts: [JSON] = []
    var steps = (preTokenizers.filter { $0 != .bytes } + (isByteLevel && !preTokenizers.contains(.alphabet) ? [.alphabet] : []))[...]
    while let step = steps.popFirst() {
      guard step == .prefixSpace || step == .alphabet else {
        parts.append(step.json)
        continue
      }
      let cuts = step == .prefixSpace && steps.first == .split(.gpt2, .isolated, isInverted: false)
      if cuts { steps.removeFirst() }
      if steps.first == .alphabet { steps.removeFirst() }
      parts.append([
        "type": "ByteLevel", "add_prefix_space": JSON(step == .prefixSpace), "trim_offsets": true, "use_regex": JSON(cuts),
      ])
    }
    return parts.isEmpty ? .null : ["type": "Sequence", "pretokenizers": .array(parts)]
  }
}

extension PreTokenizer {
  /// The step as `tokenizer.json` has it; null for a part of `ByteLevel`.
  fileprivate var json: JSON {
    switch self {
    case .split(let expression, let behavior, let isInverted):
      return ["type": "Split", "pattern": expression.json, "behavior": JSON(behavior.rawValue), "invert": JSON(isInverted)]
    case .digits(let individually): return ["type": "Digits", "individual_digits": JSON(individually)]
    case .punctuation(let behavior): return ["type": "Punctuation", "behavior": JSON(behavior.rawValue)]
    case .words: return ["type": "Whitespace"]
    case .whitespace: return ["type": "WhitespaceSplit"]
    case .delimiter(let scalar): return ["type": "CharDelimiterSplit", "delimiter": JSON(String(scalar))]
    case .metaspace(let scalar, let scheme, let splits):
      return [
        "type": "Metaspace", "replacement": JSON(String(scalar)), "prepend_scheme": JSON(scheme.rawValue), "split": JSON(splits),
      ]
    case .prefixSpace, .alphabet, .bytes: return .null
    }
  }
}
