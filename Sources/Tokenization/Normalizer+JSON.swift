import Checkpoints

extension TokenizerDescription {
  /// Reads the object `normalizer` of a `tokenizer.json`.
  ///
  /// - Throws: `CheckpointError` naming a kind that is not known, or a pattern.
  mutating func readNormalizer(_ normalizer: JSONReader) throws {
    let kinds = [
      "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace", "Strip", "Lowercase", "StripAccents", "Precompiled",
    ]
    switch try normalizer.type(oneOf: kinds) {
    case "Sequence": for part in try normalizer.components("normalizers") { try readNormalizer(part) }
    case "Prepend": normalizers.append(.prepend(try normalizer.string("prepend")))
    case "Replace":
      normalizers.append(.replace(try Self.pattern(normalizer), try normalizer.string("content")))
    case "Strip":
      normalizers.append(.strip(left: try normalizer.bool("strip_left"), right: try normalizer.bool("strip_right")))
    case "Lowercase": normalizers.append(.lowercase)
    case "StripAccents": normalizers.append(.stripAccents)
    case "Precompiled":
      let key = "precompiled_charsmap"
      let text = try normalizer.required(key, "a table in base 64")
      guard let bytes = text.stringValue.flatMap({ Base64.decode(Array($0.utf8)) }), let map = CharacterMap(bytes) else {
        throw normalizer.error(key, text.excerpt, "a table of SentencePiece in base 64")
      }
      normalizers.append(.characterMap(map))
    case let name:
      if let form = NormalizationForm(rawValue: name) { normalizers.append(.form(form)) }
    }
    try normalizer.finish()
  }

  /// The `pattern` of a step: `{"String": …}` or `{"Regex": …}`.
  static func pattern(_ step: JSONReader) throws -> RegularExpression {
    let expected = "{\"String\": …} or {\"Regex\": …}"
    guard let pattern = try step.component("pattern") else { throw step.error("pattern", "nothing", expected) }
    let isLiteral = pattern["String"] != nil
    let key = isLiteral ? "String" : "Regex"
    guard pattern[key] != nil else { throw step.error("pattern", "neither", expected) }
    let source = try pattern.string(key)
    try pattern.finish()
    do {
      return isLiteral ? try RegularExpression(literal: source) : try RegularExpression(source)
    } catch let error as PatternError {
      throw pattern.error(key, "\(quoted(source)), which has \(error.reason)", "an expression that can be run here")
    }
  }
}

/// Bytes as text (RFC 4648, section 4).
enum Base64 {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  /// The bytes of a text; nil for a text that is none of these.
  static func decode(_ text: [UInt8]) -> [UInt8]? {
    guard text.count % 4 == 0 else { return nil }
    var values = [UInt8](repeating: 255, count: 256)
    for (value, character) in alphabet.enumerated() { values[Int(character)] = UInt8(value) }
    let padding = text.reversed().prefix { $0 == UInt8(ascii: "=") }.count
    guard padding <= 2 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count / 4 * 3)
    var bits: UInt32 = 0
    for (index, character) in text.enumerated() {
      let value = index < text.count - padding ? values[Int(character)] : 0
      guard value < 64 else { return nil }
      bits = bits << 6 | UInt32(value)
      if index % 4 == 3 {
        bytes += [UInt8(bits >> 16 & 0xFF), UInt8(bits >> 8 & 0xFF), UInt8(bits & 0xFF)]
        bits = 0
      }
    }
    bytes.removeLast(padding)
    return bytes
  }

  /// Bytes as text.
  static func encode(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    text.reserveCapacity(bytes.count / 3 * 4 + 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let part = bytes[start..<min(start + 3, bytes.count)]
      let bits = part.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - part.count))
      for place in 0..<4 {
        text.append(place <= part.count ? alphabet[Int(bits >> UInt32(18 - 6 * place) & 63)] : UInt8(ascii: "="))
      }
    }
    return String(decoding: text, as: UTF8.self)
  }
}

extension Normalizer {
  /// The step as `tokenizer.json` has it.
  var json: JSON {
    switch self {
    case .form(let form): ["type": JSON(form.rawValue)]
    case .prepend(let text): ["type": "Prepend", "prepend": JSON(text)]
    case .replace(let expression, let text): ["type": "Replace", "pattern": expression.json, "content": JSON(text)]
    case .strip(let left, let right): ["type": "Strip", "strip_left": JSON(left), "strip_right": JSON(right)]
    case .lowercase: ["type": "Lowercase"]
    case .stripAccents: ["type": "StripAccents"]
    case .characterMap(let map): ["type": "Precompiled", "precompiled_charsmap": JSON(Base64.encode(map.bytes))]
    }
  }
}

extension RegularExpression {
  /// The pattern as `tokenizer.json` has it.
  var json: JSON { isLiteral ? ["String": JSON(source)] : ["Regex": JSON(source)] }
}
