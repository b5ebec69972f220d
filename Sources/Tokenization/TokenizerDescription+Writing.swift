import JSON

extension TokenizerDescription {
  /// The `tokenizer.json` of this tokenizer, as `tokenizers` reads it: the way back from `init(_:file:)`.
  ///
  /// What `ByteLevel` does by itself is a step of its own before one that does nothing but write bytes in its alphabet. Pairs that are
  /// merged by their scores become merges in the order of the scores, as transformers writes them; where several scores are equal, the ids
  /// may be others than those of llama.cpp.
  public func json() -> JSON {
    let byteLevel: JSON = ["type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false]
    return [
      "version": "1.0", "truncation": nil, "padding": nil,
      "added_tokens": .array(
        addedTokens.sorted { $0.id < $1.id }.map {
          [
            "id": JSON(Int($0.id)), "content": JSON(Self.text($0.content)), "single_word": JSON($0.isSingleWord),
            "lstrip": JSON($0.stripsLeft), "rstrip": JSON($0.stripsRight), "normalized": JSON($0.isNormalized),
            "special": JSON($0.isSpecial),
          ]
        }),
      "normalizer": normalizers.isEmpty ? nil : ["type": "Sequence", "normalizers": .array(normalizers.map(\.json))],
      "pre_tokenizer": preTokenizer,
      "post_processor": template ?? (isByteLevel ? byteLevel : nil),
      "decoder": decoders == [.blanks] ? nil : ["type": "Sequence", "decoders": .array(decoders.map { $0.json(byteLevel) })],
      "model": modelJSON,
    ]
  }

  private var modelJSON: JSON {
    if model == .unigram {
      return [
        "type": "Unigram", "unk_id": JSON(vocabulary.firstIndex { $0.text == unknownToken } ?? 0),
        "vocab": .array(vocabulary.map { [JSON(Self.text($0.text)), JSON($0.score)] }), "byte_fallback": JSON(fallsBackToBytes),
      ]
    }
    var merges = merges
    if model == .scoredPairs {
      var ids = TokenTable(capacity: vocabulary.count)
      for entry in vocabulary { _ = ids.insert(entry.text, id: entry.id) }
      merges = mergesFromScores(vocabulary, parts: ids)
    }
    return [
      "type": "BPE", "dropout": nil, "unk_token": unknownToken.map { JSON(Self.text($0)) } ?? nil, "continuing_subword_prefix": nil,
      "end_of_word_suffix": nil, "fuse_unk": JSON(fusesUnknown), "byte_fallback": JSON(fallsBackToBytes),
      "ignore_merges": JSON(ignoresMerges), "vocab": .object(words),
      "merges": .array(merges.map { JSON("\(Self.text($0.left)) \(Self.text($0.right))") }),
    ]
  }

  /// How a token is spelled; nil without such a token.
  public func spelling(of id: Int32?) -> String? {
    guard let id else { return nil }
    return (addedTokens.first { $0.id == id }?.content ?? vocabulary.first { $0.id == id }?.text).map(Self.text)
  }

  /// The vocabulary with the added tokens, by id: `tokenizers` numbers an added token itself unless it is in here.
  private var words: JSON.Object {
    let all = vocabulary + addedTokens.map { Entry(text: $0.content, id: $0.id) }
    var words = JSON.Object()
    for entry in all.sorted(by: { $0.id < $1.id }) { words[Self.text(entry.text)] = JSON(Int(entry.id)) }
    return words
  }

  private var template: JSON? {
    var special = JSON.Object()
    func token(_ isAdded: Bool, _ id: Int32?, _ type: Int) -> [JSON] {
      guard isAdded, let id, let name = spelling(of: id) else { return [] }
      special[name] = ["id": JSON(name), "ids": [JSON(Int(id))], "tokens": [JSON(name)]]
      return [["SpecialToken": ["id": JSON(name), "type_id": JSON(type)]]]
    }
    func around(_ name: String, _ type: Int) -> [JSON] {
      token(addsBeginToken, beginToken, type) + [["Sequence": ["id": JSON(name), "type_id": JSON(type)]]]
        + token(addsEndToken, endToken, type)
    }
    let (single, second) = (around("A", 0), around("B", 1))
    guard single.count > 1 else { return nil }
    return ["type": "TemplateProcessing", "single": .array(single), "pair": .array(single + second), "special_tokens": .object(special)]
  }

  private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}

extension TokenDecoder {
  fileprivate func json(_ byteLevel: JSON) -> JSON {
    func text(_ bytes: [UInt8]) -> JSON { JSON(String(decoding: bytes, as: UTF8.self)) }
    return switch self {
    case .byteLevel: byteLevel
    case .replace(let old, let new): ["type": "Replace", "pattern": ["String": text(old)], "content": text(new)]
    case .byteFallback, .byteTokens: ["type": "ByteFallback"]
    case .fuse, .blanks: ["type": "Fuse"]
    case .strip(let character, let start, let stop):
      ["type": "Strip", "content": text(character), "start": JSON(start), "stop": JSON(stop)]
    case .metaspace(let character, let dropsFirst):
      ["type": "Metaspace", "replacement": text(character), "prepend_scheme": dropsFirst ? "always" : "never", "split": true]
    }
  }
}
