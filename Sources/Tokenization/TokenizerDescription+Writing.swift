import JSON

extension TokenizerDescription {
  /// The `tokenizer.json` of this tokenizer, as `tokenizers` reads it: the way back from `init(_:file:)`.
  ///
  /// What `ByteLevel` does by itself is a step of its own before one that does nothing but write bytes in its alphabet.
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
      "post_processor": beginTemplate ?? byteLevel, "decoder": byteLevel,
      "model": [
        "type": "BPE", "dropout": nil, "unk_token": unknownToken.map { JSON(Self.text($0)) } ?? nil, "continuing_subword_prefix": nil,
        "end_of_word_suffix": nil, "fuse_unk": JSON(fusesUnknown), "byte_fallback": false, "ignore_merges": JSON(ignoresMerges),
        "vocab": .object(words), "merges": .array(merges.map { JSON("\(Self.text($0.left)) \(Self.text($0.right))") }),
      ],
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

  private var beginTemplate: JSON? {
    guard addsBeginToken, let beginToken, let name = spelling(of: beginToken) else { return nil }
    func token(_ type: Int) -> JSON { ["SpecialToken": ["id": JSON(name), "type_id": JSON(type)]] }
    func text(_ name: String, _ type: Int) -> JSON { ["Sequence": ["id": JSON(name), "type_id": JSON(type)]] }
    let special: JSON = ["id": JSON(name), "ids": [JSON(Int(beginToken))], "tokens": [JSON(name)]]
    return [
      "type": "TemplateProcessing", "single": [token(0), text("A", 0)], "pair": [token(0), text("A", 0), token(1), text("B", 1)],
      "special_tokens": .object(JSON.Object(name, special)),
    ]
  }

  private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}

extension JSON.Object {
  fileprivate init(_ key: String, _ value: JSON) {
    self.init()
    self[key] = value
  }
}
