import Checkpoints
import Testing

@testable import Tokenization

@Suite struct UnicodeTests {
  private static let scalars = (0..<UInt32(0x110000)).compactMap(Unicode.Scalar.init)

  /// The numbers of code points that make_tables.py found in `tokenizers` 0.20.3.
  @Test func theClassesHaveTheSizesOfTheReference() {
    func count(_ flag: UnicodeClass) -> Int { Self.scalars.count { UnicodeClasses.table[$0.value].contains(flag) } }
    #expect(count(.letter) == 131_756)
    #expect(count(.number) == 1791)
    #expect(count(.space) == 25)
    #expect(count(.digit) == 1831)
    #expect(count(.word) == 144_667)
  }

  @Test func normalFormsAreThoseOfTheReference() throws {
    let json = try JSON(contentsOf: Fixture.folder + "/unicode.json")
    for pair in try #require(json["nfc"]?.arrayValue) {
      let texts = try #require(pair.arrayValue).map { Array(try #require($0.stringValue).utf8) }
      #expect(NormalizationForm.c.normalized(texts[0]) == texts[1], "\(pair)")
    }
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for scalar in Self.scalars {
      for byte in NormalizationForm.c.normalized(Array("a\(scalar)\u{334}\n".utf8)) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    }
    #expect(json["nfc_of_all"]?.stringValue == String(hash, radix: 16))
  }

  @Test func aNormalFormIsItsOwn() throws {
    for pair in try #require(JSON(contentsOf: Fixture.folder + "/unicode.json")["nfc"]?.arrayValue) {
      let normal = Array(try #require(pair.arrayValue?[1].stringValue).utf8)
      #expect(normal.withUnsafeBufferPointer { NormalizationForm.c.changes(in: $0, 0..<$0.count).count } == 0)
    }
  }

  @Test func everyScalarIsReadAndWrittenAndNothingElseIs() {
    let wrong = Self.scalars.filter { scalar in
      var bytes: [UInt8] = []
      UTF8Scalars.append(scalar.value, to: &bytes)
      let isRead = bytes.withUnsafeBufferPointer { buffer in
        let read = UTF8Scalars.scalar(buffer, at: 0, end: buffer.count)
        let isCutRefused = buffer.count == 1 || UTF8Scalars.scalar(buffer, at: 0, end: buffer.count - 1).value == nil
        return read.value == scalar.value && read.length == buffer.count && isCutRefused
      }
      let isHeld = (1..<4).allSatisfy { $0 >= bytes.count || UTF8Scalars.incompleteSuffix(of: Array(bytes[..<$0])) == $0 }
      return !isRead || !isHeld || UTF8Scalars.incompleteSuffix(of: bytes) != 0 || !bytes.elementsEqual(String(scalar).utf8)
    }
    #expect(wrong == [])
    for bad: [UInt8] in [
      [0xC0, 0xAF], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xF5, 0x80, 0x80, 0x80], [0x80],
    ] {
      #expect(bad.withUnsafeBufferPointer { UTF8Scalars.scalar($0, at: 0, end: $0.count).value } == nil)
      #expect(UTF8Scalars.incompleteSuffix(of: bad) == 0)
    }
  }
}
