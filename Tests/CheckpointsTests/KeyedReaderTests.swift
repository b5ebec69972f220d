import Testing

@testable import Checkpoints
@testable import JSON

@Suite struct KeyedReaderTests {
  private func reader(_ text: String, path: String = "") throws -> JSONReader {
    try JSONReader(JSON(parsing: text, file: "c.json"), file: "c.json", path: path)
  }

  @Test func anErrorNamesFileKeyFoundAndExpected() throws {
    let reader = try reader(#"{"n": 7, "x": "one", "o": {"a": 1}, "z": null}"#, path: "part")
    #expect(try reader.integer("n", in: 0...9) == 7)
    expectError("c.json, key \"part.n\": found 7; expected a whole number in 0...3") { try reader.integer("n", in: 0...3) }
    expectError("key \"part.m\": found nothing; expected a whole number in 0...3") { try reader.integer("m", in: 0...3) }
    expectError("key \"part.m\": found nothing, hence 5; expected") { try reader.integer("m", in: 0...3, default: 5) }
    expectError("key \"part.x\": found the string \"one\"; expected a number") { try reader.number("x", "a number") { _ in true } }
    expectError("key \"part.x\": found the string \"one\"; expected \"two\" or \"three\"") {
      try reader.string("x", oneOf: ["two", "three"])
    }
    expectError("key \"part.o\": found an object of 1; expected no such key, or one that is off") { try reader.refuse("o") }
    try reader.refuse("z")
    expectError("c.json, key \"part\": found 3; expected an object") { try JSONReader(3, file: "c.json", path: "part") }
  }

  @Test func nullCountsAsAbsentButInARecord() throws {
    let json = try JSON(parsing: #"{"a": null}"#, file: "c.json")
    #expect(try JSONReader(json, file: "c.json").bool("a", default: true))
    expectError("found null; expected a string") { try JSONReader(fieldsOf: json, file: "c.json").string("a") }
    expectError("found nothing; expected a string") { try JSONReader(fieldsOf: 5, file: "c.json").string("a") }
  }

  @Test func whatNobodyAskedForIsKnownByItsNameToEveryCopy() throws {
    let reader = try reader(#"{"a": 1, "b": 2, "é": 3}"#, path: "p")
    let copy = reader
    _ = copy.value("a")
    #expect(reader.unknownNames == ["p.b", "p.é"])
    expectError("key \"p.b\": found 2; expected no such key") { try reader.finish("no such key") }
    _ = reader.value("b")
    expectError("key \"p.é\": found 3; expected no such key") { try reader.finish("no such key") }
    _ = reader.value("é")
    try reader.finish("no such key")
  }
}
