import HostileCases
import Testing

@testable import Checkpoints

@Suite struct GGUFTests {
  private let good: GGUF

  init() throws { good = try GGUF(path: HostileCases.folder + "/gguf/good.gguf") }

  @Test func sizesStandOutermostFirstAndBlocksAreCounted() throws {
    #expect(good.entries.map(\.description) == ["\"w\" F32 [2, 3]", "\"q\" Q8_0 [2, 32]", "\"scalar\" F32 []"])
    #expect(good.entries.map(\.byteCount) == [24, 68, 4])
    #expect(try good.bytes(of: "q") == Array(0..<68))
    #expect(try good.bytes(of: "w") == [1.5, -2, 0, 0.25, 3, 4].littleEndianBytes)
    #expect(good.alignment == 32)
    expectError("tensor \"no\"", "among 3") { try good.withBytes(of: "no") { _ in } }
  }

  @Test func valuesAreFoundByKeyWithTheirTypes() throws {
    let metadata = good.metadata
    #expect(metadata.keys == ["general.architecture", "test.layers", "test.flag", "test.names", "test.scores"])
    #expect(try metadata.value("general.architecture")?.stringValue == "test")
    #expect(try metadata.value("test.layers")?.intValue == 2)
    #expect(try metadata.value("test.layers")?.doubleValue == 2)
    #expect(metadata.type("test.layers") == .uint32)
    #expect(try metadata.value("test.flag")?.summary == "true")
    #expect(try metadata.value("absent") == nil)
    #expect(try metadata.array("test.names")?.strings() == [Array("a".utf8), [], Array("\u{E9}".utf8)])
    #expect(try metadata.array("test.scores")?.numbers() == [0.5, -1])
    expectError("key \"test.layers\"", "found 2", "an array") { try metadata.array("test.layers") }
  }

  @Test func anArrayIsNeverReadAsAnotherType() throws {
    let scores = try #require(try good.metadata.array("test.scores"))
    let names = try #require(try good.metadata.array("test.names"))
    expectError("test.scores", "an array of 2 FLOAT32", "STRING") { try scores.strings() }
    expectError("test.scores", "an array of 2 FLOAT32", "integers") { try scores.integers() }
    expectError("test.scores", "BOOL") { try scores.booleans() }
    expectError("test.names", "an array of 3 STRING", "FLOAT32") { try names.numbers() }
    expectError("test.names", "integers") { try names.integers() }
  }

  @Test func everyTypeOfValueIsWidenedExactly() throws {
    let metadata = try GGUF(path: HostileCases.folder + "/gguf/every-type-of-value.gguf").metadata
    for key in ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"] {
      #expect(try metadata.value(key)?.intValue == 1, "\(key)")
      #expect(try metadata.array("array.\(key)")?.integers() == [1, 0], "\(key)")
    }
    for key in ["f32", "f64"] {
      #expect(try metadata.value(key)?.doubleValue == 1, "\(key)")
      #expect(try metadata.value(key)?.intValue == nil)
      #expect(try metadata.array("array.\(key)")?.numbers() == [1, 0], "\(key)")
    }
    #expect(try metadata.array("array.bool")?.booleans() == [true, false])
    #expect(GGUFValueType.allCases.map(\.description).joined(separator: " ").hasPrefix("UINT8 INT8 UINT16"))
  }

  @Test func aQuantizedTypeIsNoTypeOfSafetensors() throws {
    let folder = try TemporaryFolder()
    #expect(ElementType.safetensors.count == 22 && ElementType.allCases.count { $0.isQuantized } == 10)
    let entry = try TensorEntry(name: "x", elementType: .float(.q8_0), shape: [32])
    expectError("Q8_0 to write") { try SafetensorsWriter.write(to: folder.path + "/x", entries: [entry]) { _, _ in } }
    expectError("\"Q8_0\"", "one of BOOL") {
      try Safetensors(
        path: folder.put("y", safetensors("{\"x\":{\"dtype\":\"Q8_0\",\"shape\":[32],\"data_offsets\":[0,34]}}", Array(0..<34))))
    }
  }
}
