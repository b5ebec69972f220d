import Testing

@testable import Checkpoints

@Suite struct PyTorchFileTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func open(_ bytes: [UInt8]) throws -> PyTorchFile {
    try PyTorchFile(path: folder.put("a.bin", bytes))
  }

  private let floats = ([0, 1, 2, 3, 4, 5] as [Float]).littleEndianBytes
  private var storage: [UInt8] { PickleText.storage("0", "FloatStorage", 6) }

  /// One tensor "w" in a storage of six floats.
  private func open(tensor: [UInt8], storage: [UInt8]? = nil) throws -> PyTorchFile {
    let pickle = PickleText.whole(PickleText.dictionary(PickleText.string("w"), tensor))
    return try open(torchArchive(pickle, storages: [("0", storage ?? floats)]).build())
  }

  private func sample() -> ZipBuilder {
    let pickle = PickleText.whole(
      PickleText.dictionary(
        PickleText.string("w"), PickleText.tensor(storage, [2, 3], [3, 1]), PickleText.string("transposed"),
        PickleText.tensor(storage, [3, 2], [1, 3]), PickleText.string("p"),
        PickleText.parameter(PickleText.tensor(PickleText.storage("1", "LongStorage", 1), [], []))))
    return torchArchive(pickle, storages: [("0", floats), ("1", Int64(-9).littleEndianBytes)])
  }

  private func floats(_ file: PyTorchFile, _ name: String) throws -> [Float] {
    let bytes = try file.bytes(of: name)
    return stride(from: 0, to: bytes.count, by: 4).map { offset in
      bytes.withUnsafeBytes { Float(bitPattern: UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self))) }
    }
  }

  // MARK: What is read

  @Test func aDictionaryOfTensorsAndParametersIsRead() throws {
    let file = try open(sample().build())
    #expect(
      try file.entries == [
        TensorEntry(name: "w", elementType: .float32, shape: [2, 3]),
        TensorEntry(name: "transposed", elementType: .float32, shape: [3, 2]),
        TensorEntry(name: "p", elementType: .int64, shape: []),
      ])
    #expect(try floats(file, "w") == [0, 1, 2, 3, 4, 5])
    #expect(try floats(file, "transposed") == [0, 3, 1, 4, 2, 5])
    #expect(try file.int64s(of: "p") == [-9])
    #expect(file.tiedNames == [["w", "transposed"]])
    #expect(file.entry("other") == nil)
    expectError("a.bin", "\"other\"") { try file.bytes(of: "other") }
  }

  @Test func aModulesOrderedStateDictIsReadAndItsMetadataDropped() throws {
    let tensor = PickleText.tensor(PickleText.storage("0", "FloatStorage", 6), [6], [1])
    let metadata = PickleText.orderedDict + PickleText.string("") + [0x7D] + PickleText.string("version") + [0x4B, 1, 0x73, 0x73]
    let pickle = PickleText.whole(
      PickleText.orderedDict + [0x71, 1, 0x28] + PickleText.string("w") + tensor + [0x75]
        + [0x7D] + PickleText.string("_metadata") + metadata + [0x73, 0x62])
    let file = try open(torchArchive(pickle, storages: [("0", floats)]).build())
    #expect(try floats(file, "w") == [0, 1, 2, 3, 4, 5])
  }

  @Test(arguments: [
    ("BoolStorage", ElementType.bool), ("ByteStorage", .uint8), ("CharStorage", .int8), ("ShortStorage", .int16), ("IntStorage", .int32),
    ("LongStorage", .int64), ("HalfStorage", .float16), ("BFloat16Storage", .bfloat16), ("FloatStorage", .float32),
    ("DoubleStorage", .float64), ("ComplexFloatStorage", .complex64),
  ])
  func everyStorageTypeHasItsElementType(name: String, type: ElementType) throws {
    let size = type.blockBits / 8
    let file = try open(
      tensor: PickleText.tensor(PickleText.storage("0", name, 3), offset: 1, [2], [1]), storage: [UInt8](0..<UInt8(3 * size)))
    #expect(file.entries == [try TensorEntry(name: "w", elementType: type, shape: [2])])
    #expect(try file.bytes(of: "w") == [UInt8](UInt8(size)..<UInt8(3 * size)))
  }

  @Test func anUntypedStorageCountsBytesAndTheTensorNamesItsType() throws {
    let tensor =
      PickleText.global("torch._utils", "_rebuild_tensor_v3")
      + PickleText.tuple(
        PickleText.storage("0", "UntypedStorage", 6, module: "torch.storage"), PickleText.integer(1), PickleText.integers([2]),
        PickleText.integers([1]), [0x89], PickleText.orderedDict, PickleText.global("torch", "uint16")) + [0x52]
    let file = try open(tensor: tensor, storage: [1, 0, 2, 0, 3, 0])
    #expect(try file.int64s(of: "w") == [2, 3])
  }

  @Test func anyViewWithinTheStorageIsMadeContiguous() throws {
    func view(offset: Int = 0, _ shape: [Int], _ strides: [Int]) throws -> [Float] {
      try floats(open(tensor: PickleText.tensor(storage, offset: offset, shape, strides)), "w")
    }
    #expect(try view(offset: 1, [2, 2], [3, 1]) == [1, 2, 4, 5])
    #expect(try view([3], [2]) == [0, 2, 4])
    #expect(try view([2, 3], [0, 2]) == [0, 2, 4, 0, 2, 4])
    #expect(try view(offset: 5, [], []) == [5])
    #expect(try view(offset: 5, [1, 1], [Int.max, 77]) == [5])
    #expect(try view([2, 1, 2], [3, Int.max, 1]) == [0, 1, 3, 4])
    #expect(try view([1, 6, 1], [0, 1, Int.max]) == [0, 1, 2, 3, 4, 5])
    #expect(try view(offset: 6, [0, 3], [3, 1]) == [])
    #expect(try view([2, 2, 2], [1, 1, 1]) == [0, 1, 1, 2, 1, 2, 2, 3])
  }

  @Test func canonicallyEqualNamesAreTwoTensors() throws {
    let pickle = PickleText.whole(
      PickleText.dictionary(
        PickleText.string(composed), PickleText.tensor(storage, [1], [1]), PickleText.string(decomposed),
        PickleText.tensor(storage, offset: 3, [1], [1])))
    let file = try open(torchArchive(pickle, storages: [("0", floats)]).build())
    #expect(try floats(file, composed) == [0])
    #expect(try floats(file, decomposed) == [3])
  }

  @Test func zip64AndMembersWithoutDescriptorsAreRead() throws {
    for (memberIsWide, endIsWide, flags) in [(true, false, 8), (false, true, 8), (true, true, 0x808), (true, true, 0), (false, false, 0)] {
      var archive = sample()
      archive.isWide = endIsWide
      for index in archive.members.indices {
        archive.members[index].isWide = memberIsWide
        archive.members[index].flags = UInt16(flags)
      }
      #expect(try floats(open(archive.build()), "w") == [0, 1, 2, 3, 4, 5])
    }
  }

  @Test func aCommentAndAnyRootAreRead() throws {
    var archive = torchArchive(sample().members[0].data, storages: [("0", floats), ("1", Int64(1).littleEndianBytes)], root: "my model é")
    archive.comment = Array("PK\u{5}\u{6} a comment".utf8)
    archive.members.append(.init(name: "my model é/.data/serialization_id", data: Array("1".utf8)))
    #expect(try open(archive.build()).entries.count == 3)
  }

  // MARK: What the archive must be

  @Test func anOlderFileIsRefusedWithAHint() {
    expectError("a.bin", "128", "1.6", "save it again") { try open([0x80, 2, 0x8A, 10, 0x6C, 0xFC]) }
    expectError("a.bin", "an empty file", "zip") { try open([UInt8]()) }
    expectError("a.bin", "[123, 125]", "zip") { try open([0x7B, 0x7D]) }
  }

  @Test func aMemberWithOneThingWrongIsNamed() {
    func change(_ body: (inout ZipBuilder.Member) -> Void) -> () throws -> PyTorchFile {
      var archive = sample()
      body(&archive.members[2])
      return { try open(archive.build()) }
    }
    expectError("a.bin", "archive/data/0", "compression method 8", "stored", during: change { $0.method = 8 })
    expectError("a.bin", "archive/data/0", "encryption (flags 2057)", during: change { $0.flags |= 1 })
    expectError("a.bin", "archive/data/0", "flags 2060", "2048", during: change { $0.flags |= 4 })
    expectError("a.bin", "archive/data/0", "\"archive/data/9\"", during: change { $0.localName = "archive/data/9" })
    expectError("a.bin", "archive/data/0", "23 stored bytes", "24", during: change { $0.directorySize = 23 })
    expectError("a.bin", "archive/data/0", "check value", "7; the file is damaged", during: change { $0.checksum = 7 })
    expectError("a.bin", "archive/data/1", "expected it at byte", during: change { $0.gap = [1, 2, 3] })
    expectError("a.bin", "archive/data/0", "header at byte 0", during: change { $0.offset = 0 })
    expectError("a.bin", "archive/data/0", "at byte 4294967294", during: change { $0.offset = 0xFFFF_FFFE })
    expectError("a.bin", "archive/data/1", "it twice", during: change { $0.name = "archive/data/1" })
    expectError("a.bin", "other/data/0", "outside \"archive\"", during: change { $0.name = "other/data/0" })
    expectError("a.bin", "archive/weird", "unknown member", during: change { $0.name = "archive/weird" })
    expectError("a.bin", "archive/code/x.py", "TorchScript", during: change { $0.name = "archive/code/x.py" })
    expectError("a.bin", "\"w\"", "no member", "\"archive/data/0\"", during: change { $0.name = "archive/data/7" })
    expectError("a.bin", "\"w\"", "6 F32 in 25 bytes", "24 bytes", during: change { $0.data += [0] })
    expectError("a.bin", "empty member name", during: change { $0.name = "" })
  }

  @Test func byteOrderVersionAndPickleMustBeThere() {
    func change(_ index: Int, _ text: String?) -> () throws -> PyTorchFile {
      var archive = sample()
      if let text { archive.members[index].data = Array(text.utf8) } else { archive.members.remove(at: index) }
      return { try open(archive.build()) }
    }
    expectError("a.bin", "archive/byteorder", "\"big\"", "\"little\"", during: change(1, "big"))
    expectError("a.bin", "archive/version", "\"2\\u{A}\"", "\"3\"", during: change(4, "2\n"))
    expectError("a.bin", "archive/version", "no member", during: change(4, nil))
    expectError("a.bin", "archive/data.pkl", "no member", during: change(0, nil))
    #expect(throws: Never.self) { _ = try change(1, nil)() }
  }

  @Test func aStorageThatNobodyReadsIsNamed() {
    var archive = sample()
    archive.members.append(.init(name: "archive/data/2", data: [1]))
    expectError("a.bin", "archive/data/2", "no tensor reads") { try open(archive.build()) }
  }

  @Test func trailingAndLeadingBytesAreRefused() {
    expectError("a.bin", "end record") { try open(sample().build() + [0]) }
    expectError("a.bin", "zip directory", "end at byte") { try open(Array("PK\u{3}\u{4}".utf8) + sample().build()) }
  }

  // MARK: What a tensor must be

  @Test(arguments: [
    (0, [2, 4], [3, 1], "[2, 4]"), (1, [6], [1], "offset 1"), (7, [0], [1], "offset 7"), (-1, [1], [1], "offset -1"),
    (0, [2], [-1], "strides [-1]"), (0, [-1], [1], "negative size"), (0, [2], [], "0 strides for shape [2]"),
    (0, [2], [Int.max], "9223372036854775807"),
    (Int.max, [2], [1], "offset 9223372036854775807"), (Int.max, [1], [1], "offset 9223372036854775807"),
    (0, [2, 2], [Int.max, Int.max], "strides"), (0, [1 << 62, 4], [0, 0], "beyond 2^63 bits"),
    (0, [1 << 40], [0], "1099511627776"),
  ])
  func aViewOutsideItsStorageIsNamedWithItsNumbers(offset: Int, shape: [Int], strides: [Int], part: String) {
    expectError("a.bin", "\"w\"", part) { try open(tensor: PickleText.tensor(storage, offset: offset, shape, strides)) }
  }

  @Test func aStorageMustBeAsLongAsItSays() {
    expectError("a.bin", "\"w\"", "5 F32 in 24 bytes", "20 bytes") {
      try open(tensor: PickleText.tensor(PickleText.storage("0", "FloatStorage", 5), [1], [1]))
    }
    expectError("a.bin", "\"w\"", "4611686018427387904 F32") {
      try open(tensor: PickleText.tensor(PickleText.storage("0", "FloatStorage", 1 << 62), [1], [1]))
    }
    expectError("a.bin", "data.pkl", "-1 elements") {
      try open(tensor: PickleText.tensor(PickleText.storage("0", "FloatStorage", -1), [1], [1]))
    }
    let pickle = PickleText.whole(
      PickleText.dictionary(
        PickleText.string("a"), PickleText.tensor(storage, [1], [1]), PickleText.string("b"),
        PickleText.tensor(PickleText.storage("0", "IntStorage", 6), [1], [1])))
    expectError("a.bin", "\"b\"", "another type") { try open(torchArchive(pickle, storages: [("0", floats)]).build()) }
  }

  @Test func whatIsNoDictionaryOfTensorsIsNamed() {
    func open(_ value: [UInt8]) throws -> PyTorchFile {
      try self.open(torchArchive(PickleText.whole(value), storages: []).build())
    }
    expectError("a.bin", "data.pkl", "a tuple", "a dictionary of tensors") { try open([0x29]) }
    expectError("a.bin", "\"model\"", "a dictionary", "a tensor") { try open(PickleText.dictionary(PickleText.string("model"), [0x7D])) }
    expectError("a.bin", "\"step\"", "the integer 3", "a tensor") { try open(PickleText.dictionary(PickleText.string("step"), [0x4B, 3])) }
    expectError("a.bin", "\"list\"", "a list") { try open(PickleText.dictionary(PickleText.string("list"), [0x5D])) }
    expectError("a.bin", "data.pkl", "the integer 1 as a key") { try open(PickleText.dictionary([0x4B, 1], [0x7D])) }
    expectError("a.bin", "\"w\"", "the name twice") {
      let tensor = PickleText.tensor(storage, [1], [1])
      let items = PickleText.dictionary(PickleText.string("w"), tensor, PickleText.string("w"), tensor)
      return try self.open(torchArchive(PickleText.whole(items), storages: [("0", floats)]).build())
    }
  }

  // MARK: Damage

  @Test func everyTruncationIsAnError() throws {
    let bytes = sample().build()
    for length in 0..<bytes.count {
      #expect(!succeeds { _ = try open(Array(bytes[..<length])) }, "\(length) bytes")
    }
    #expect(succeeds { try open(bytes).readAll() })
  }

  @Test func everyBitFlipOfTheArchiveIsAnErrorOrReadable() throws {
    let bytes = sample().build()
    for bit in 0..<(8 * bytes.count) {
      var flipped = bytes
      flipped[bit / 8] ^= 1 << (bit % 8)
      _ = succeeds { try open(flipped).readAll() }
    }
  }

  @Test func everyBitFlipTruncationAndByteOfThePickleIsAnErrorOrReadable() throws {
    // The check values are right, so that the pickle machine sees the damage.
    let archive = sample()
    let pickle = archive.members[0].data
    func tryPickle(_ bytes: [UInt8]) -> Bool {
      succeeds {
        var damaged = archive
        damaged.members[0].data = bytes
        try open(damaged.build()).readAll()
      }
    }
    #expect(tryPickle(pickle))
    for length in 0..<pickle.count { #expect(!tryPickle(Array(pickle[..<length])), "\(length) bytes") }
    for bit in 0..<(8 * pickle.count) {
      var flipped = pickle
      flipped[bit / 8] ^= 1 << (bit % 8)
      _ = tryPickle(flipped)
    }
    for offset in pickle.indices {
      var removed = pickle
      removed.remove(at: offset)
      _ = tryPickle(removed)
      _ = tryPickle(Array(pickle[..<offset]) + [pickle[offset]] + Array(pickle[offset...]))
    }
  }
}
