import Testing

@testable import Checkpoints

@Suite struct SafetensorsTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func open(_ bytes: [UInt8]) throws -> Safetensors {
    try Safetensors(path: folder.put("t.safetensors", bytes))
  }

  private func open(_ header: String, _ dataCount: Int = 0) throws -> Safetensors {
    try open(safetensors(header, (0..<dataCount).map { UInt8(truncatingIfNeeded: $0) }))
  }

  /// Three tensors of several types, a scalar and an empty one.
  private func sample() throws -> (entries: [TensorEntry], contents: [String: [UInt8]]) {
    let contents: [String: [UInt8]] = [
      "w": ([1.5, -2, 0, .infinity, 3, 4] as [Float]).littleEndianBytes,
      "ids": ([7, -1] as [Int64]).flatMap(\.littleEndianBytes),
      "scalar": [1], "empty": [], "half": [0, 0x3C],
    ]
    let entries = try [
      TensorEntry(name: "scalar", elementType: .bool, shape: []), TensorEntry(name: "w", elementType: .float32, shape: [2, 3]),
      TensorEntry(name: "empty", elementType: .float32, shape: [0, 5]), TensorEntry(name: "ids", elementType: .int64, shape: [2]),
      TensorEntry(name: "half", elementType: .float16, shape: [1]),
    ]
    return (entries, contents)
  }

  private func writeSample(metadata: KeyValuePairs<String, String> = ["format": "pt"]) throws -> String {
    let (entries, contents) = try sample()
    let path = "\(folder.path)/t.safetensors"
    try SafetensorsWriter.write(to: path, entries: entries, metadata: metadata) { entry, emit in
      try (contents[entry.name] ?? []).withUnsafeBytes(emit)
    }
    return path
  }

  @Test func whatIsWrittenIsReadBack() throws {
    let (entries, contents) = try sample()
    let file = try Safetensors(path: writeSample())
    #expect(file.metadata == JSON.Object(["format": "pt"]))
    #expect(file.entries.count == entries.count)
    for entry in entries {
      #expect(file.entry(entry.name) == entry)
      #expect(try file.bytes(of: entry.name) == contents[entry.name])
    }
    #expect(file.entry("other") == nil)
    expectError("t.safetensors", "\"other\"", "no tensor") { try file.bytes(of: "other") }
    #expect(try file.int64s(of: "ids") == [7, -1])
    #expect(try file.int64s(of: "scalar") == [1])
    expectError("t.safetensors", "\"half\"", "dtype F16", "I64") { try file.int64s(of: "half") }
  }

  @Test func theHeaderIsPaddedAndSortedByTypeThenName() throws {
    let bytes = try folder.read(String(writeSample().split(separator: "/").last!))
    let length = Int(bytes[0]) + Int(bytes[1]) << 8
    #expect(length % 8 == 0)
    let text = String(decoding: bytes[8..<(8 + length)], as: UTF8.self)
    let unpadded =
      #"{"__metadata__":{"format":"pt"},"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"#
      + #""empty":{"dtype":"F32","shape":[0,5],"data_offsets":[16,16]},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[16,40]},"#
      + #""half":{"dtype":"F16","shape":[1],"data_offsets":[40,42]},"scalar":{"dtype":"BOOL","shape":[],"data_offsets":[42,43]}}"#
    #expect(text.hasPrefix(unpadded))
    #expect(text.dropFirst(unpadded.count).allSatisfy { $0 == " " })
    #expect(bytes.count == 8 + length + 43)
  }

  @Test func anEmptyFileOfTensorsIsLegal() throws {
    #expect(try open("{}").entries.isEmpty)
    #expect(try open("{}   ").metadata.count == 0)
  }

  @Test(arguments: ElementType.safetensors) func everyTypeIsReadUnderItsName(type: ElementType) throws {
    let byteCount = 4 * type.blockBits / 8
    let file = try open(#"{"x":{"dtype":"\#(type)","shape":[4],"data_offsets":[0,\#(byteCount)]}}"#, byteCount)
    #expect(file.entries == [try TensorEntry(name: "x", elementType: type, shape: [4])])
    #expect(try file.bytes(of: "x").count == byteCount)
  }

  @Test func unalignedDataIsReadAsItIs() throws {
    // Header length 3 mod 8, so that an I64 stands at an odd address.
    let header = #"{"x":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#
    let padding = String(repeating: " ", count: (11 - header.utf8.count % 8) % 8)
    let file = try open(safetensors(header + padding, Int64(-5).littleEndianBytes))
    #expect(try file.int64s(of: "x") == [-5])
  }

  @Test func canonicallyEqualNamesAreTwoTensors() throws {
    let entries = try [composed, decomposed].map { try TensorEntry(name: $0, elementType: .uint8, shape: [1]) }
    let path = "\(folder.path)/t.safetensors"
    try SafetensorsWriter.write(to: path, entries: entries) { entry, emit in
      try [UInt8(entry.name.utf8.count)].withUnsafeBytes(emit)
    }
    let file = try Safetensors(path: path)
    #expect(file.entries.count == 2)
    #expect(try file.bytes(of: composed) == [2])
    #expect(try file.bytes(of: decomposed) == [3])
  }

  @Test func eachIntegerTypeIsWidenedExactly() throws {
    func integers(_ type: ElementType, _ bytes: [UInt8], _ count: Int) throws -> [Int64] {
      let header = #"{"x":{"dtype":"\#(type)","shape":[\#(count)],"data_offsets":[0,\#(bytes.count)]}}"#
      return try open(safetensors(header, bytes)).int64s(of: "x")
    }
    #expect(try integers(.int32, Int32.min.littleEndianBytes, 1) == [Int64(Int32.min)])
    #expect(try integers(.uint32, UInt32.max.littleEndianBytes, 1) == [Int64(UInt32.max)])
    #expect(try integers(.int16, [0xFF, 0xFF], 1) == [-1])
    #expect(try integers(.uint16, [0xFF, 0xFF], 1) == [65535])
    #expect(try integers(.int8, [0x80, 0x7F], 2) == [-128, 127])
    #expect(try integers(.uint8, [0x80, 0x7F], 2) == [128, 127])
    #expect(try integers(.bool, [0, 1], 2) == [0, 1])
    expectError("t.safetensors", "\"x\"", "2 at index 1") { try integers(.bool, [0, 2], 2) }
    expectError("t.safetensors", "\"x\"", "U64") { try integers(.uint64, [UInt8](repeating: 0, count: 8), 1) }
  }

  // MARK: Violations, in the order of the checks

  @Test func aHeaderLengthMustBeThereAndWithinCapAndFile() {
    expectError("t.safetensors", "0 bytes", "8 bytes") { try open([]) }
    expectError("t.safetensors", "7 bytes", "8 bytes") { try open([UInt8](repeating: 0, count: 7)) }
    expectError("t.safetensors", "100000001", "100000000") { try open(UInt64(100_000_001).littleEndianBytes) }
    expectError("t.safetensors", "18446744073709551615", "100000000") { try open(UInt64.max.littleEndianBytes) }
    expectError("t.safetensors", "100000000 in a file of 8 bytes", "cut off") { try open(UInt64(100_000_000).littleEndianBytes) }
    expectError("t.safetensors", "3 in a file of 10 bytes", "at most 2") { try open(UInt64(3).littleEndianBytes + [0x7B, 0x7D]) }
  }

  @Test func aHeaderMustBeAnObjectInUTF8() {
    expectError("t.safetensors", "byte 8", "empty header") { try open("") }
    expectError("t.safetensors", "byte 8", "0x20", "{") { try open(" {}") }
    expectError("t.safetensors", "byte 8", "0x5B") { try open("[]") }
    expectError("t.safetensors", "byte 10", "0xFF", "UTF-8") { try open(UInt64(4).littleEndianBytes + [0x7B, 0x22, 0xFF, 0x22]) }
    expectError("t.safetensors", "byte 10", "\"x\"", "the end") { try open("{}x") }
    expectError("t.safetensors", "byte 10", "0x0", "the end") { try open(UInt64(3).littleEndianBytes + [0x7B, 0x7D, 0]) }
    expectError("t.safetensors", "\"a\"", "second time at byte 16") { try open(#"{"a":{},"a":{}}"#) }
  }

  @Test func moreThanAMillionTensorsAreRefused() throws {
    var header = "{"
    for index in 0...1_000_001 { header += "\"\(index)\":0," }
    header += "\"x\":0}"
    expectError("t.safetensors", "at most 1000001 members") { try open(header) }
  }

  @Test func metadataMustMapStringsToStrings() throws {
    #expect(try open(#"{"__metadata__":{"a":"b"}}"#).metadata["a"] == "b")
    expectError("t.safetensors", "__metadata__", "an array of 0", "object of strings") { try open(#"{"__metadata__":[]}"#) }
    expectError("t.safetensors", "__metadata__.a", "1", "a string") { try open(#"{"__metadata__":{"a":1}}"#) }
  }

  @Test(arguments: [
    (#"[]"#, "an array of 0", "dtype"), (#"{"dtype":"U8","shape":[]}"#, "no data_offsets", "shape"),
    (#"{"shape":[],"data_offsets":[0,1]}"#, "no dtype", "dtype"), (#"{"dtype":"U8","data_offsets":[0,1]}"#, "no shape", "dtype"),
    (#"{"dtype":"U8","shape":[],"data_offsets":[0,1],"extra":0}"#, "\"extra\"", "only"),
    (#"{"dtype":"Q4_0","shape":[],"data_offsets":[0,1]}"#, "Q4_0", "BOOL F4 F6_E2M3"),
    (#"{"dtype":"f32","shape":[],"data_offsets":[0,1]}"#, "f32", "F32"),
    (#"{"dtype":3,"shape":[],"data_offsets":[0,1]}"#, "dtype 3", "F32"),
    (#"{"dtype":"U8","shape":3,"data_offsets":[0,1]}"#, "shape 3", "array"),
    (#"{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}"#, "-1 in shape", "0 to"),
    (#"{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}"#, "1.0 in shape", "integer"),
    (#"{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}"#, "9223372036854775808", "9223372036854775807"),
    (#"{"dtype":"U8","shape":[],"data_offsets":[0]}"#, "1 data_offsets", "two"),
    (#"{"dtype":"U8","shape":[],"data_offsets":[0,1,2]}"#, "3 data_offsets", "two"),
    (#"{"dtype":"U8","shape":[],"data_offsets":[0,-1]}"#, "-1 in data_offsets", "integer"),
    (#"{"dtype":"U8","shape":[],"data_offsets":[1,2]}"#, "[1, 2] after a hole of 1 bytes", "begins at 0"),
    (#"{"dtype":"U8","shape":[1],"data_offsets":[0,2]}"#, "2 bytes", "1 bytes for U8 of shape [1]"),
    (#"{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#, "12 bits", "whole bytes"),
    (#"{"dtype":"U8","shape":[4611686018427387904,2],"data_offsets":[0,1]}"#, "[4611686018427387904, 2] of U8", "fits"),
    (#"{"dtype":"U8","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}"#, "beyond 2^63", "fits"),
    (#"{"dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,1]}"#, "beyond 2^63 bits", "fits"),
    (#"{"dtype":"U8","shape":[1152921504606846975],"data_offsets":[0,9223372036854775807]}"#, "9223372036854775807", "bytes"),
  ])
  func aMalformedEntryIsNamedWithItsNumbers(entry: String, found: String, expected: String) {
    expectError("t.safetensors", "\"the.name\"", found, expected) { try open("{\"the.name\":\(entry)}", 1) }
  }

  @Test func aShapeHasAtMost64Axes() throws {
    func open(axes: Int) throws -> Safetensors {
      let shape = [String](repeating: "1", count: axes).joined(separator: ",")
      return try self.open(#"{"a":{"dtype":"U8","shape":[\#(shape)],"data_offsets":[0,1]}}"#, 1)
    }
    #expect(try open(axes: 64).entries.map(\.shape.count) == [64])
    expectError("t.safetensors", "\"a\"", "65 axes, more than 64") { try open(axes: 65) }
  }

  @Test func entriesMustFollowEachOther() throws {
    func two(_ a: (Int, Int), _ b: (Int, Int), _ dataCount: Int) throws -> Safetensors {
      try open(
        #"{"a":{"dtype":"U8","shape":[\#(max(0, a.1 - a.0))],"data_offsets":[\#(a.0),\#(a.1)]},"#
          + #""b":{"dtype":"U8","shape":[\#(max(0, b.1 - b.0))],"data_offsets":[\#(b.0),\#(b.1)]}}"#, dataCount)
    }
    #expect(try two((2, 4), (0, 2), 4).entries.map(\.name) == ["b", "a"])
    #expect(try two((2, 2), (0, 2), 2).entries.map(\.name) == ["b", "a"])
    #expect(try two((0, 0), (0, 2), 2).entries.map(\.name) == ["a", "b"])
    expectError("t.safetensors", "\"b\"", "[3, 4] after a hole of 1 bytes", "begins at 2") { try two((0, 2), (3, 4), 4) }
    expectError("t.safetensors", "\"b\"", "[1, 3], an overlap of 1 bytes", "begins at 2") { try two((0, 2), (1, 3), 3) }
    expectError("t.safetensors", "\"b\"", "[2, 1], which end before they begin") { try two((0, 2), (2, 1), 2) }
    expectError("t.safetensors", "bytes", "and 4 of data; the file is cut off") { try two((0, 2), (2, 4), 3) }
    expectError("t.safetensors", "bytes", "and 4 of data") { try two((0, 2), (2, 4), 5) }
  }

  @Test func offsetsFarOutsideTheFileAreErrorsNotTraps() {
    let huge = 1 << 59
    expectError("t.safetensors", "\(huge) of data; the file is cut off") {
      try open(#"{"a":{"dtype":"U8","shape":[\#(huge)],"data_offsets":[0,\#(huge)]}}"#, 1)
    }
    // Eight tensors that end just before the end of Int, where the header's length makes the sum overflow.
    let part = (1 << 60) - 1
    let header = (0..<8).map { #""\#($0)":{"dtype":"U8","shape":[\#(part)],"data_offsets":[\#($0 * part),\#(($0 + 1) * part)]}"# }
    expectError("t.safetensors", "\"7\"", "\(8 * part)", "1 bytes of data") { try open("{\(header.joined(separator: ","))}", 1) }
  }

  // MARK: Damage

  @Test func everyTruncationIsAnError() throws {
    let bytes = try folder.read(String(writeSample().split(separator: "/").last!))
    for length in 0..<bytes.count {
      #expect(!succeeds { _ = try open(Array(bytes[..<length])) }, "\(length) bytes")
    }
    #expect(!succeeds { _ = try open(bytes + [0]) })
    #expect(succeeds { try open(bytes).readAll() })
  }

  @Test func everyBitFlipOfTheHeaderIsAnErrorOrReadable() throws {
    let bytes = try folder.read(String(writeSample().split(separator: "/").last!))
    let headerEnd = 8 + Int(bytes[0]) + Int(bytes[1]) << 8
    var readable = 0
    for bit in 0..<(8 * headerEnd) {
      var flipped = bytes
      flipped[bit / 8] ^= 1 << (bit % 8)
      if succeeds({ try open(flipped).readAll() }) { readable += 1 }
    }
    // Flips within names and metadata leave a valid file.
    #expect(readable > 0)
  }

  // MARK: Writing

  @Test func whatCannotBeWrittenLeavesTheOldFile() throws {
    let path = try folder.put("t.safetensors", "old")
    let entry = try TensorEntry(name: "a", elementType: .uint8, shape: [2])
    func write(_ entries: [TensorEntry], metadata: KeyValuePairs<String, String> = [:], _ bytes: [UInt8] = [1, 2]) throws {
      try SafetensorsWriter.write(to: path, entries: entries, metadata: metadata) { _, emit in try bytes.withUnsafeBytes(emit) }
    }
    expectError("t.safetensors", "\"a\"", "twice") { try write([entry, entry]) }
    expectError("t.safetensors", "__metadata__", "reserved") {
      try write([TensorEntry(name: "__metadata__", elementType: .uint8, shape: [])])
    }
    expectError("t.safetensors", "\"k\"", "twice") { try write([], metadata: ["k": "1", "k": "2"]) }
    expectError("t.safetensors", "\"a\"", "3 bytes", "2 bytes for U8 of shape [2]") { try write([entry], [1, 2, 3]) }
    expectError("t.safetensors", "\"a\"", "1 bytes", "2 bytes") { try write([entry], [1]) }
    #expect(folder.names == ["t.safetensors"])
    #expect(try folder.read("t.safetensors") == Array("old".utf8))
    try write([entry])
    #expect(try Safetensors(path: path).bytes(of: "a") == [1, 2])
  }
}

extension JSON.Object {
  /// An object with these members.
  fileprivate init(_ members: KeyValuePairs<String, JSON>) {
    self.init()
    for (key, value) in members { self[key] = value }
  }
}
