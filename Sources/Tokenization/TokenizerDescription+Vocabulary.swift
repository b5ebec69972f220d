import Checkpoints

extension TokenizerDescription {
  /// The tokenizer that transformers makes of `vocab.json` and `merges.txt`, the files of byte-level BPE without a `tokenizer.json`.
  ///
  /// - Parameters:
  ///   - file: `vocab.json`: an object of token: id.
  ///   - mergesFile: `merges.txt`: a merge a line, the first one made first.
  ///   - kind: the Python class that reads them, which says how texts are cut.
  ///   - addsPrefixSpace: whether a blank is put before a text that has none.
  /// - Throws: `CheckpointError` naming the file and what is in it.
  init(vocabulary file: String, merges mergesFile: String, _ kind: TokenizerClass.BytePairs, addsPrefixSpace: Bool) throws {
    self.init(source: file)
    isByteLevel = true
    vocabulary = try Self.entries(JSON(contentsOf: file)) { CheckpointError(file: file, found: $0, expected: $1) }
    merges = try Self.merges(linesOf: mergesFile, kind)
    switch kind {
    case .gpt2, .codeGen: preTokenizers = (addsPrefixSpace ? [.prefixSpace] : []) + [.split(.gpt2, .isolated, isInverted: false)]
    case .qwen2:
      normalizers = [.form(.c)]
      preTokenizers = [.split(.published(RegularExpression.Published.llama(numbers: #"\p{N}"#)), .isolated, isInverted: false)]
    }
    (decoders, sparesAddedTokens) = ([.byteLevel], true)
  }

  /// An object of token: id.
  static func entries(_ json: JSON, _ error: (_ found: String, _ expected: String) -> CheckpointError) throws -> [Entry] {
    guard let members = json.objectValue?.members else { throw error(json.summary, "an object of token: id") }
    return try members.map { member in
      guard let id = member.value.intValue, (0..<limit).contains(id) else {
        throw error("\(member.value.summary) for \(quoted(member.key))", "an id from 0 to \(limit - 1)")
      }
      return Entry(text: Array(member.key.utf8), id: Int32(id))
    }
  }

  /// The lines of `merges.txt`: GPT-2's class passes over the first one whatever it is, Qwen2's where it says the version.
  private static func merges(linesOf file: String, _ kind: TokenizerClass.BytePairs) throws -> [Merge] {
    let mapped = try MappedFile(path: file)
    let lines = try mapped.bytes(in: 0..<mapped.size).split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    var merges: [Merge] = []
    merges.reserveCapacity(lines.count)
    for (number, line) in lines.enumerated() {
      let text = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
      if text.isEmpty || number == 0 && (kind != .qwen2 || text.starts(with: "#version:".utf8)) { continue }
      guard firstInvalidUTF8(in: Array(text)) == nil, let merge = merge(Array(text)) else {
        throw CheckpointError(
          file: file, found: "\(quoted(String(decoding: text, as: UTF8.self))) in line \(number + 1)",
          expected: "two tokens with a blank between them")
      }
      merges.append(merge)
    }
    return merges
  }
}
