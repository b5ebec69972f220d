import JSON

/// The tokens of a description by id and by text, held against each other.
struct Vocabulary {
  /// The tokens of the vocabulary, by their text.
  private(set) var table: TokenTable
  /// Id → the token as the vocabulary writes it.
  private(set) var spellings: [[UInt8]?]
  private(set) var addedIDs: [[UInt8]: Int32] = [:]

  /// Collects the tokens.
  ///
  /// - Throws: `CheckpointError` where ids or texts stand twice.
  init(_ description: TokenizerDescription) throws {
    let ids = description.vocabulary.map(\.id) + description.addedTokens.map(\.id)
    // A table from id to token is as long as the greatest id, which a short file must not claim to be huge.
    let limit = min(TokenizerDescription.limit, (1 << 16) + 2 * ids.count)
    if let id = ids.first(where: { $0 < 0 || $0 >= limit }) {
      throw description.error("vocab", "id \(id) among \(ids.count) tokens", "ids from 0 to \(limit - 1), with fewer holes")
    }
    spellings = [[UInt8]?](repeating: nil, count: Int(ids.max() ?? -1) + 1)
    table = TokenTable(capacity: description.vocabulary.count)
    for entry in description.vocabulary { try add(entry, of: description) }
    for token in description.addedTokens { try add(token, of: description) }
  }

  private mutating func add(_ entry: TokenizerDescription.Entry, of description: TokenizerDescription) throws {
    guard table.insert(entry.text, id: entry.id) else { throw description.error("vocab", "\(shown(entry.text)) twice", "each token once") }
    if let other = spellings[Int(entry.id)] {
      throw description.error(
        "vocab", "id \(entry.id) of \(shown(other)) and of \(shown(entry.text))", "an id of its own for each token")
    }
    spellings[Int(entry.id)] = entry.text
  }

  private mutating func add(_ token: AddedToken, of description: TokenizerDescription) throws {
    func failure(_ found: String, _ expected: String) -> CheckpointError { description.error("added_tokens", found, expected) }
    guard !token.content.isEmpty, token.content.count <= 1024 else {
      throw failure("\(token.content.count) bytes of content of id \(token.id)", "1 to 1024 bytes")
    }
    guard addedIDs.updateValue(token.id, forKey: token.content) == nil else {
      throw failure("\(shown(token.content)) twice", "each token once")
    }
    if let other = spellings[Int(token.id)], other != token.content {
      throw failure("id \(token.id) of \(shown(other)) for \(shown(token.content))", "an id of its own for each token")
    }
    if let id = table.id(of: token.content), id != token.id {
      throw failure("id \(token.id) for \(shown(token.content))", "\(id), its id in the vocabulary")
    }
    spellings[Int(token.id)] = token.content
  }
}

extension TokenizerDescription {
  /// An error about what the file says under a key.
  func error(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: source, place: .key(key), found: found, expected: expected)
  }
}

/// A token's text as messages show it.
func shown(_ text: [UInt8]) -> String { quoted(String(decoding: text, as: UTF8.self)) }
