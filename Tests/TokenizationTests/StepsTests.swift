import Checkpoints
import Testing

@testable import Tokenization

/// Single normalizers and pre-tokenizers against `tokenizers` 0.20.3 (`Fixtures/tokenizers/make_steps.py`).
@Suite struct StepsTests {
  private static let json = Result { try JSON(contentsOf: Fixture.folder + "/steps.json") }

  private static func description(_ step: JSON) throws -> TokenizerDescription {
    var description = TokenizerDescription(source: "steps")
    let reader = try JSONReader(step, file: "steps", path: "")
    if let normalizer = try reader.component("normalizer") { try description.readNormalizer(normalizer) }
    if let steps = try reader.component("pre_tokenizer") { try description.readPreTokenizer(steps) }
    return description
  }

  private static func digest(_ description: TokenizerDescription, _ texts: some Sequence<[UInt8]>) -> String {
    var value: UInt64 = 0xCBF2_9CE4_8422_2325
    func add(_ byte: UInt8) { value = (value ^ UInt64(byte)) &* 0x100_0000_01B3 }
    for text in texts {
      let original = WorkingText(original: text)
      var working = description.normalizers.applied(to: text.indices, of: original) ?? original
      var pieces = working.bytes.isEmpty ? [] : [working.bytes.indices]
      for step in description.preTokenizers { pieces = step.cut(&working, pieces) }
      for piece in pieces {
        let bytes = Array(working.bytes[piece])
        (description.isByteLevel ? ByteAlphabet.encode(bytes) : bytes).forEach(add)
        add(0xFF)
      }
      add(0xFE)
    }
    let hex = String(value, radix: 16)
    return String(repeating: "0", count: 16 - hex.count) + hex
  }

  /// Every assigned scalar, 64 to a string.
  private static func scalars(before: String, after: String) -> [[UInt8]] {
    let absent = ["Cn", "Co", "Cs"].map { UnicodeProperties.set(named: $0) ?? .none }
    let assigned = (0..<UInt32(0x110000)).filter { value in !absent.contains { $0.contains(value) } }.compactMap(Unicode.Scalar.init)
    return stride(from: 0, to: assigned.count, by: 64).map { start in
      assigned[start..<min(start + 64, assigned.count)].flatMap { Array((before + String($0) + after).utf8) }
    }
  }

  @Test func everyStepMakesThePiecesOfTheReference() throws {
    let json = try Self.json.get()
    let texts = try #require(json["texts"]?.arrayValue).map { Array(try #require($0.stringValue).utf8) }
    let steps = try #require(json["steps"]?.arrayValue)
    let every = [Self.scalars(before: "", after: ""), Self.scalars(before: "a", after: " ")]
    #expect(steps.count > 150)
    for step in steps {
      let name = (step["pre_tokenizer"] ?? step["normalizer"])?.excerpt ?? ""
      let description = try Self.description(step)
      let count = min(try #require(step["count"]?.intValue), texts.count)
      for (index, digest) in try #require(step["digests"]?.arrayValue).enumerated() {
        let part = texts[(100 * index)..<min(100 * index + 100, count)]
        #expect(Self.digest(description, part) == digest.stringValue, "\(name), texts from \(100 * index)")
      }
      for (texts, digest) in zip(every, step["scalars"]?.arrayValue ?? []) {
        #expect(Self.digest(description, texts) == digest.stringValue, "\(name), every scalar")
      }
    }
  }

  /// What is read and written again is the same step.
  @Test func aWrittenStepIsTheSame() throws {
    for step in try #require(Self.json.get()["steps"]?.arrayValue) {
      let description = try Self.description(step)
      let normalizers: JSON = ["type": "Sequence", "normalizers": .array(description.normalizers.map(\.json))]
      let written = try Self.description(["normalizer": normalizers, "pre_tokenizer": description.preTokenizer])
      #expect(written.normalizers == description.normalizers && written.preTokenizers == description.preTokenizers)
      #expect(written.isByteLevel == description.isByteLevel)
    }
  }

  @Test func anExpressionThatIsNotUnderstoodIsNamed() throws {
    let patterns = try #require(Self.json.get()["refused"]?.arrayValue).map { try #require($0.stringValue) }
    for pattern in patterns + ["(a", "a)", "[a", "*a", "[b-a]", "\\", "\\p{Nothing}", "(?<=a+)b", "a{3,2}", "[]a]", "\\x{110000}"] {
      let step: JSON = ["pre_tokenizer": ["type": "Split", "pattern": ["Regex": JSON(pattern)], "behavior": "Isolated"]]
      do {
        _ = try Self.description(step)
        Issue.record("\(pattern) was read")
      } catch let error as CheckpointError {
        #expect(error.place == .key("pre_tokenizer.pattern.Regex") && error.found.contains(pattern.debugDescription.dropFirst().prefix(1)))
      }
    }
  }

  @Test func aStepThatIsNotKnownIsNamed() throws {
    for (key, kind) in [
      ("normalizer", "BertNormalizer"), ("normalizer", "Nmt"), ("normalizer", "ByteLevel"), ("pre_tokenizer", "BertPreTokenizer"),
      ("pre_tokenizer", "UnicodeScripts"),
    ] {
      do {
        _ = try Self.description(key == "normalizer" ? ["normalizer": ["type": JSON(kind)]] : ["pre_tokenizer": ["type": JSON(kind)]])
        Issue.record("\(kind) was read")
      } catch let error as CheckpointError {
        #expect(error.place == .key(key + ".type") && error.found.contains(kind))
      }
    }
  }

  @Test func hostileStepsAreErrors() {
    let steps: [JSON] = [
      ["normalizer": ["type": "Precompiled", "precompiled_charsmap": "AAAA"]],
      ["normalizer": ["type": "Precompiled", "precompiled_charsmap": "////fw=="]],
      ["normalizer": ["type": "Precompiled", "precompiled_charsmap": "a b="]],
      ["normalizer": ["type": "Replace", "pattern": ["Glob": "a"], "content": "b"]],
      ["normalizer": ["type": "Replace", "pattern": ["String": "a"]]],
      ["normalizer": ["type": "Strip", "strip_left": 1, "strip_right": true]],
      ["pre_tokenizer": ["type": "Metaspace", "replacement": "ab"]],
      ["pre_tokenizer": ["type": "Metaspace", "replacement": "_", "add_prefix_space": false]],
      ["pre_tokenizer": ["type": "Split", "pattern": ["String": "a"], "behavior": "isolated"]],
      ["pre_tokenizer": ["type": "Sequence", "pretokenizers": [["type": "ByteLevel"], ["type": "ByteLevel"]]]],
      ["pre_tokenizer": ["type": "CharDelimiterSplit", "delimiter": ""]], ["pre_tokenizer": ["type": "Whitespace", "lower": true]],
    ]
    for step in steps { #expect(throws: CheckpointError.self, "\(step)") { try Self.description(step) } }
  }

  /// Bytes of a table that was damaged are an error or another table, which works.
  @Test func aDamagedCharacterMapNeverTraps() throws {
    let step = try #require(Self.json.get()["steps"]?.arrayValue?.last?["normalizer"]?["precompiled_charsmap"]?.stringValue)
    let bytes = try #require(Base64.decode(Array(step.utf8)))
    #expect(Base64.encode(bytes) == step)
    let text = Array("\u{FF21} e\u{301} \u{FB01} \u{1F600} abc".utf8) + [0xFF, 0x80]
    for index in bytes.indices {
      for value in [UInt8(0), 0xFF, bytes[index] ^ 0x10] {
        var damaged = bytes
        damaged[index] = value
        guard let map = CharacterMap(damaged) else { continue }
        _ = [Normalizer.characterMap(map)].applied(to: text)
      }
      _ = CharacterMap(Array(bytes[..<index]))
    }
  }
}
