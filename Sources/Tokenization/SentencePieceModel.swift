import Checkpoints

/// What a `tokenizer.model` says, SentencePiece's `ModelProto`, read as data.
struct SentencePieceModel {
  /// A piece of the vocabulary; its place is its id.
  struct Piece: Equatable {
    var text: [UInt8] = []
    var score: Float = 0
    var kind = Kind.normal
  }

  /// What a piece is.
  enum Kind: Int {
    case normal = 1
    case unknown, control, userDefined, unused, byte
  }

  /// How the pieces were trained.
  enum Algorithm: Int {
    case unigram = 1
    case bytePairs, words, characters
  }

  private(set) var pieces: [Piece] = []
  private(set) var algorithm = Algorithm.unigram
  /// The text of the unknown token.
  private(set) var unknownPiece = Array("<unk>".utf8)
  private let file: String
  /// Far more pieces than any vocabulary has.
  private static let limit = 1 << 22
  private static let mostBytes = 1 << 28

  /// Reads a file.
  ///
  /// - Throws: `CheckpointError` naming the byte or the piece.
  init(contentsOf path: String) throws {
    let file = try MappedFile(path: path)
    guard file.size <= Self.mostBytes else {
      throw CheckpointError(file: path, found: "\(file.size) bytes", expected: "at most \(Self.mostBytes) of a SentencePiece model")
    }
    try self.init(file.bytes(in: 0..<file.size), file: path)
  }

  /// Reads the bytes of a file.
  ///
  /// - Throws: `CheckpointError` naming the byte or the piece.
  init(_ bytes: [UInt8], file: String) throws {
    self.file = file
    // message ModelProto { repeated SentencePiece pieces = 1; TrainerSpec trainer_spec = 2; NormalizerSpec normalizer_spec = 3; … }
    var message = ProtobufReader(bytes, of: file)
    while let (number, value) = try message.next() {
      guard case .bytes(let range) = value else { continue }
      switch number {
      case 1:
        guard pieces.count < Self.limit else { throw error("pieces", "more than \(Self.limit)", "fewer") }
        try readPiece(ProtobufReader(bytes, in: range, of: file), bytes)
      case 2: try readTrainer(ProtobufReader(bytes, in: range, of: file), bytes)
      default: break
      }
    }
    guard !pieces.isEmpty else { throw error("pieces", "none", "the pieces of a SentencePiece model") }
  }

  // message SentencePiece { string piece = 1; float score = 2; Type type = 3 [default NORMAL]; }
  private mutating func readPiece(_ message: ProtobufReader, _ bytes: [UInt8]) throws {
    var message = message
    var piece = Piece()
    let key = "pieces[\(pieces.count)]"
    while let (number, value) = try message.next() {
      switch (number, value) {
      case (1, .bytes(let range)): piece.text = Array(bytes[range])
      case (2, .fixed(let bits)): piece.score = Float(bitPattern: UInt32(truncatingIfNeeded: bits))
      case (3, .varint(let code)):
        guard let kind = Int(exactly: code).flatMap(Kind.init) else { throw error(key, "type \(code)", "1 to 6") }
        piece.kind = kind
      case (1...3, _): throw error(key, "field \(number) of another type", "a piece: text, score and type")
      default: break
      }
    }
    guard !piece.text.isEmpty, piece.text.count <= 1024, firstInvalidUTF8(in: piece.text) == nil else {
      throw error(key, "\(shown(piece.text)) of \(piece.text.count) bytes", "1 to 1024 bytes of UTF-8")
    }
    guard !piece.score.isNaN else { throw error(key, "a score that is no number", "a number") }
    pieces.append(piece)
  }

  // message TrainerSpec { ModelType model_type = 3 [default UNIGRAM]; string unk_piece = 45; … }
  private mutating func readTrainer(_ message: ProtobufReader, _ bytes: [UInt8]) throws {
    var message = message
    while let (number, value) = try message.next() {
      switch (number, value) {
      case (3, .varint(let code)):
        guard let kind = Int(exactly: code).flatMap(Algorithm.init) else { throw error("model_type", "\(code)", "1 to 4") }
        algorithm = kind
      case (45, .bytes(let range)): unknownPiece = Array(bytes[range])
      default: break
      }
    }
  }

  private func error(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .key(key), found: found, expected: expected)
  }
}

/// The merges that scores stand for: of every token all ways to cut it into two tokens; the greatest score first, then the longest left
/// part, then the longest right one, as transformers orders them.
///
/// - Parameters:
///   - entries: the tokens with their scores.
///   - ids: the tokens that may be parts.
/// - Complexity: O(n log n) for n cuts, and the sum of the squared lengths of all tokens.
func mergesFromScores(_ entries: [TokenizerDescription.Entry], parts ids: TokenTable) -> [TokenizerDescription.Merge] {
  struct Cut {
    let entry: Int
    let length: Int
    let (leftID, rightID): (Int32, Int32)
    /// In characters.
    let (left, right): (Int, Int)
  }
  var cuts: [Cut] = []
  for (index, entry) in entries.enumerated() {
    let characters = entry.text.count { $0 & 0xC0 != 0x80 }
    var found: [Cut] = []
    var left = 0
    entry.text.withUnsafeBufferPointer { text in
      for place in text.indices where text[place] & 0xC0 != 0x80 {
        defer { left += 1 }
        guard place > 0, let leftID = ids.id(of: UnsafeBufferPointer(rebasing: text[..<place])),
          let rightID = ids.id(of: UnsafeBufferPointer(rebasing: text[place...]))
        else { continue }
        found.append(Cut(entry: index, length: place, leftID: leftID, rightID: rightID, left: left, right: characters - left))
      }
    }
    cuts += found.sorted { ($0.leftID, $0.rightID) < ($1.leftID, $1.rightID) }
  }
  let order = cuts.indices.sorted { one, other in
    let (a, b) = (cuts[one], cuts[other])
    let (score, otherScore) = (entries[a.entry].score, entries[b.entry].score)
    return score != otherScore
      ? score > otherScore : a.left != b.left ? a.left > b.left : a.right != b.right ? a.right > b.right : one < other
  }
  return order.map { place in
    let (text, length) = (entries[cuts[place].entry].text, cuts[place].length)
    return TokenizerDescription.Merge(left: Array(text[..<length]), right: Array(text[length...]))
  }
}
