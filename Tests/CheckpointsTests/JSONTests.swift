import Testing

@testable import Checkpoints
@testable import JSON

@Suite struct JSONTests {
  private func parse(_ text: String) throws -> JSON { try JSON(parsing: text, file: "t.json") }

  @Test func readsEveryKindOfValueWithWhiteSpaceAround() throws {
    let value = try parse(" \n{\"a\": [null, true, false, -0.5e+1, \"x\\n\\u00e9\\ud83d\\ude00\\/\"],\t\"b\": {}, \"c\": []}\r\n ")
    #expect(value == ["a": [nil, true, false, .number(.init(validated: "-0.5e+1")), "x\n\u{E9}\u{1F600}/"], "b": [:], "c": []])
    #expect(value["a"]?.arrayValue?[3].doubleValue == -5)
    #expect(value["a"]?.arrayValue?[4].stringValue == "x\n\u{E9}\u{1F600}/")
    #expect(value["missing"] == nil)
  }

  @Test func canonicallyEqualKeysBothSurviveInFileOrder() throws {
    let value = try parse("{\"\(decomposed)\": 1, \"\(composed)\": 2}")
    let object = try #require(value.objectValue)
    #expect(object.count == 2)
    #expect(object[decomposed] == 1)
    #expect(object[composed] == 2)
    #expect(object.keys.map { Array($0.utf8) } == [Array(decomposed.utf8), Array(composed.utf8)])
    #expect(JSON.string(composed) != JSON.string(decomposed))
  }

  @Test func aDuplicateKeyIsNamedWithItsOffset() {
    expectError("t.json", "\"a\"", "byte 9") { try parse("{\"a\": 1, \"a\": 2}") }
    expectError("\"a\"", "byte 8") { try parse("{\"a\":1, \"\\u0061\":2}") }
    expectError("\"b\"", "byte 14") { try parse("{\"a\":{\"b\":[], \"b\":{}}}") }
  }

  @Test func anObjectIsEqualInAnyOrderAndKeepsItsOwn() throws {
    #expect(try parse("{\"a\":1,\"b\":2}") == parse("{\"b\":2,\"a\":1}"))
    #expect(try parse("{\"a\":1,\"b\":2}") != parse("{\"a\":1,\"c\":2}"))
    #expect(try parse("{\"b\":2,\"a\":1}").serialized() == "{\"b\":2,\"a\":1}")
  }

  @Test func anObjectCanBeEdited() throws {
    var object = JSON.Object()
    object["a"] = 1
    object["b"] = 2
    object["c"] = 3
    object["a"] = "new"
    object["b"] = nil
    object["missing"] = nil
    #expect(object.keys == ["a", "c"])
    #expect(object["c"] == 3)
    #expect(object["a"] == "new")
  }

  @Test(arguments: [
    ("", "byte 0", "the end of the text"), ("{", "byte 1", "a key in quotes"), ("{\"a\":1,}", "byte 7", "\"}\""),
    ("[1,]", "byte 3", "\"]\""), ("[1 2]", "byte 3", "\"2\""), ("{\"a\" 1}", "byte 5", "\":\""), ("{a:1}", "byte 1", "a key in quotes"),
    ("nul", "byte 3", "null"), ("NaN", "byte 0", "a JSON value"), ("-Infinity", "byte 1", "a digit"), ("01", "byte 1", "the end"),
    ("1.", "byte 2", "a digit"), (".5", "byte 0", "a JSON value"), ("+1", "byte 0", "a JSON value"), ("1e", "byte 2", "a digit"),
    ("1e+", "byte 3", "a digit"), ("--1", "byte 1", "a digit"), ("1 x", "byte 2", "the end of the text"), ("\"a", "byte 2", "a string"),
    ("\"\\x\"", "byte 2", "\\"), ("\"\\u12g4\"", "byte 5", "hexadecimal"), ("\"\\u-123\"", "byte 3", "hexadecimal"),
    ("\"a\nb\"", "byte 2", "0xA"), ("// c", "byte 0", "a JSON value"), ("'a'", "byte 0", "a JSON value"),
    ("\u{FEFF}1", "byte 0", "0xEF"), ("[1]]", "byte 3", "\"]\""), ("1e999", "byte 0", "1e999"), ("\u{A0}1", "byte 0", "0xC2"),
  ])
  func whatTheGrammarLacksIsRefusedWithItsOffset(text: String, offset: String, part: String) {
    expectError("t.json", offset, part) { try parse(text) }
  }

  @Test(arguments: ["\\ud800", "\\udc00", "\\ud800x", "\\ud800\\n", "\\ud800\\ud800", "\\ud800\\u0041", "\\uDFFF\\uD800"])
  func loneSurrogatesAreRefused(escape: String) {
    expectError("t.json", "surrogate") { try parse("\"\(escape)\"") }
  }

  @Test(
    arguments: [
      [0xFF], [0x80], [0xC0, 0x80], [0xC1, 0xBF], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF0, 0x80, 0x80, 0x80],
      [0xF4, 0x90, 0x80, 0x80], [0xF5, 0x80, 0x80, 0x80], [0xE2, 0x82], [0xC3, 0x22],
    ] as [[UInt8]])
  func malformedUTF8IsRefusedWithItsOffset(bytes: [UInt8]) {
    expectError("t.json", "byte 1", "0x\(String(bytes[0], radix: 16, uppercase: true))", "UTF-8") {
      try JSON(parsing: [0x22] + bytes + [0x22], file: "t.json")
    }
  }

  @Test func ourUTF8CheckAgreesWithSwiftOnAllShortSequences() {
    // Every pair of bytes, and every triple and quadruple over the bytes where a rule changes.
    let edges: [UInt8] =
      [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF]
      + [0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
    var sequences: [[UInt8]] = []
    for a in UInt8.min...UInt8.max { for b in UInt8.min...UInt8.max { sequences.append([a, b]) } }
    for a in edges { for b in edges { for c in edges { sequences.append([a, b, c]) } } }
    for a: UInt8 in [0xF0, 0xF1, 0xF4] { for b in edges { for c in edges { for d in edges { sequences.append([a, b, c, d]) } } } }
    let disagreements = sequences.filter { (firstInvalidUTF8(in: $0) == nil) != (String(validating: $0, as: UTF8.self) != nil) }
    #expect(disagreements.isEmpty)
  }

  @Test func nestingIsCappedAndTheCapIsReached() throws {
    func nest(_ depth: Int) -> String { String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
    _ = try parse(nest(128))
    expectError("129", "128") { try parse(nest(129)) }
    expectError("129", "128") { try parse(String(repeating: "{\"a\":", count: 1_000_000)) }
  }

  @Test func countsAreCapped() throws {
    var limits = JSON.Limits()
    limits.values = 3
    limits.members = 1
    _ = try JSON(parsing: "[1,2]", file: "t", limits: limits)
    expectError("t", "at most 3 values") { try JSON(parsing: "[1,2,3]", file: "t", limits: limits) }
    expectError("t", "at most 1 members") { try JSON(parsing: "{\"a\":1,\"b\":2}", file: "t", limits: limits) }
  }

  @Test func aFileIsReadUnlessItIsTooLong() throws {
    let folder = try TemporaryFolder()
    let path = try folder.put("config.json", "{\"r\": 8}\n")
    #expect(try JSON(contentsOf: path) == ["r": 8])
    var limits = JSON.Limits()
    limits.bytes = 8
    expectError(path, "9 bytes", "at most 8") { try JSON(contentsOf: path, limits: limits) }
    try folder.put("config.json", "{\"r\": 8,}")
    expectError("\(path), byte 8", "found \"}\"") { try JSON(contentsOf: path) }
    expectError("missing.json", "No such file") { try JSON(contentsOf: "\(folder.path)/missing.json") }
  }

  @Test(arguments: [
    ("0", 0), ("-0", 0), ("-17", -17), ("9223372036854775807", Int.max), ("-9223372036854775808", Int.min),
    ("9223372036854775808", nil), ("-9223372036854775809", nil), ("1.0", nil), ("1e3", nil), ("1E0", nil),
    ("123456789012345678901234567890", nil),
  ])
  func anIntegerIsWrittenAsOneAndFits(text: String, value: Int?) throws {
    #expect(try parse(text).intValue == value)
    #expect(try parse(text).serialized() == text)
  }

  @Test(arguments: [
    ("0.1", 0.1), ("1e308", 1e308), ("5e-324", Double.leastNonzeroMagnitude), ("2e-324", 0), ("9007199254740993", 9_007_199_254_740_992),
    ("1.7976931348623157e308", Double.greatestFiniteMagnitude), ("2.2250738585072011e-308", Double.leastNormalMagnitude.nextDown),
    ("-1.5E2", -150),
    // Halfway between 1 and its successor, and a digit beyond it.
    ("1.00000000000000011102230246251565404236316680908203125", 1),
    ("1.00000000000000011102230246251565404236316680908203126", 1.0.nextUp),
  ])
  func aDoubleIsRoundedCorrectly(text: String, value: Double) throws {
    #expect(try parse(text).doubleValue == value)
  }

  @Test func aNumberOfManyDigitsBeyondDoubleIsRefused() {
    expectError("t.json", "310 characters", "range of Double") { try parse(String(repeating: "9", count: 310)) }
  }

  @Test func numbersAreWrittenWithTheFewestDigitsThatReadBack() throws {
    for value in [0.1, 1e23, Double.leastNonzeroMagnitude, -1.5, 1e-7, 123456789.125, Double.greatestFiniteMagnitude, 0] {
      #expect(try parse(JSON(value).serialized()).doubleValue == value)
    }
    #expect(JSON(0.1).serialized() == "0.1")
    #expect(JSON(Float(0.1)).serialized() == "0.1")
    #expect(JSON(Double.nan) == .null)
    #expect(JSON(Float.infinity) == .null)
    #expect(JSON.Number(Double.infinity) == nil)
  }

  @Test func stringsSurviveWritingAndReading() throws {
    let scalars = (0...0xFF).compactMap { Unicode.Scalar(UInt32($0)) } + ["\u{2028}", "\u{FFFF}", "\u{1F600}", "\u{301}"]
    var text = ""
    text.unicodeScalars.append(contentsOf: scalars)
    let written = JSON.string(text).serialized()
    #expect(try #require(try parse(written).stringValue).hasSameBytes(as: text))
    #expect(JSON.string("\"\\\u{1}\n\u{8}\u{C}\r\t/é").serialized() == #""\"\\\u0001\n\b\f\r\t/é""#)
  }

  @Test func writesCompactAndIndentedText() {
    let value: JSON = ["r": 8, "targets": ["q_proj", "v_proj"], "none": [], "empty": [:], "nested": ["x": nil]]
    #expect(value.serialized() == #"{"r":8,"targets":["q_proj","v_proj"],"none":[],"empty":{},"nested":{"x":null}}"#)
    #expect(
      value.serialized(.indented(2)) == """
        {
          "r": 8,
          "targets": [
            "q_proj",
            "v_proj"
          ],
          "none": [],
          "empty": {},
          "nested": {
            "x": null
          }
        }
        """)
  }

  @Test func anExcerptIsShortAndObeyedByNoTerminal() throws {
    #expect(try JSON(parsing: #"{"a": [1, "b"]}"#, file: "t").excerpt == #"{"a":[1,"b"]}"#)
    #expect(JSON("\u{9B}2J\u{202E}").excerpt == #""\u{9B}2J\u{202E}""#)
    #expect(JSON(String(repeating: "x", count: 300)).excerpt == "\"" + String(repeating: "x", count: 199) + "…")
  }

  @Test func everyTruncationAndBitFlipIsAnErrorOrAValue() throws {
    let text = Array(#"{"a": [1, -2.5e3, "x\u00e9\ud83d\ude00é"], "b": {"c": null, "d": [true, false]}}"#.utf8)
    for length in 0..<text.count {
      #expect(!succeeds { _ = try JSON(parsing: Array(text[..<length]), file: "t") }, "\(length)")
    }
    for bit in 0..<(8 * text.count) {
      var flipped = text
      flipped[bit / 8] ^= 1 << (bit % 8)
      _ = succeeds {
        let value = try JSON(parsing: flipped, file: "t")
        // Whatever was read is written and read back to the same.
        #expect(try JSON(parsing: value.serialized(), file: "t") == value)
      }
    }
  }
}
