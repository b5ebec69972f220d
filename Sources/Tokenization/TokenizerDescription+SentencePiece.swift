import JSON

extension TokenizerDescription {
  /// How transformers turns a SentencePiece model into a tokenizer.
  struct SentencePieceSettings {
    /// Whether it is Gemma's: other names for the first tokens, no prefix, blanks that end words.
    var isGemma = false
    /// What the first three tokens are called; nil: as the model has them.
    var firstNames: [[UInt8]]?
    /// Whether a blank is put before the text.
    var addsPrefixSpace = true
    /// Whether it is put before every part between added tokens, and not only before the first.
    var isLegacy = true
  }

  /// The tokenizer that transformers' `LlamaTokenizerFast` and `GemmaTokenizerFast` make of a `tokenizer.model`: merges are derived from
  /// the scores, normalization and prefix come from the settings, not from the model (its `normalizer_spec` is not looked at).
  ///
  /// - Throws: `CheckpointError` naming the file and what is in it.
  init(_ sentencePiece: SentencePieceModel, file: String, _ settings: SentencePieceSettings) throws {
    self.init(source: file)
    var ids = TokenTable(capacity: sentencePiece.pieces.count)
    for (id, piece) in sentencePiece.pieces.enumerated() { _ = ids.insert(piece.text, id: Int32(id)) }
    vocabulary = sentencePiece.pieces.enumerated().map { Entry(text: $1.text, id: Int32($0), score: Double($1.score)) }
    for (id, name) in (settings.firstNames ?? []).enumerated() where id < vocabulary.count { vocabulary[id].text = name }
    for id in vocabulary.indices.prefix(3) { vocabulary[id].score = 0 }
    if settings.isGemma, let tab = ids.id(of: ByteToken.spelling(of: 0x09)) {
      // Gemma's models have no token for the tab but its byte.
      vocabulary[Int(tab)].text = [0x09]
      _ = ids.insert([0x09], id: tab)
    }
    switch sentencePiece.algorithm {
    case .bytePairs:
      merges = mergesFromScores(vocabulary, parts: ids)
      unknownToken = sentencePiece.unknownPiece
      fusesUnknown = true
    case .unigram:
      model = .unigram
      let place = settings.isGemma ? 3 : 0
      guard vocabulary.indices.contains(place) else { throw error("pieces", "\(vocabulary.count)", "an unknown token at \(place)") }
      unknownToken = vocabulary[place].text
    case .words, .characters:
      throw error("model_type", "\(sentencePiece.algorithm.rawValue)", "1 (unigram) or 2 (BPE); others are not built")
    }
    fallsBackToBytes = true
    let turns: Set = ["<start_of_turn>", "<end_of_turn>"]
    for (entry, piece) in zip(vocabulary, sentencePiece.pieces) where piece.kind == .control || piece.kind == .userDefined {
      let isTurn = settings.isGemma && turns.contains(String(decoding: piece.text, as: UTF8.self))
      addedTokens.append(AddedToken(id: entry.id, content: piece.text, isSpecial: piece.kind == .control || isTurn))
    }
    let blank = "\u{2581}"
    let blankToSpace = TokenDecoder.replace(Array(blank.utf8), [0x20])
    decoders = [blankToSpace, .byteFallback, .fuse]
    let isBlank = RegularExpression(" " as Unicode.Scalar)
    if settings.isGemma {
      normalizers = [.replace(isBlank, blank)]
      preTokenizers = [.split(isBlank, .mergedWithPrevious, isInverted: false)]
      return
    }
    if settings.addsPrefixSpace { decoders.append(.strip([0x20], start: 1, stop: 0)) }
    if settings.isLegacy {
      normalizers = (settings.addsPrefixSpace ? [.prepend(blank)] : []) + [.replace(isBlank, blank)]
    } else {
      preTokenizers = [.metaspace("\u{2581}", settings.addsPrefixSpace ? .first : .never, splits: false)]
    }
  }
}
