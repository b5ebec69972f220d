import Testing

@testable import Checkpoints

@Suite struct PickleTests {
  private func run(_ value: [UInt8]) throws -> Pickle { try Pickle(PickleText.whole(value), file: "a.bin", member: "data.pkl") }

  @Test(
    arguments: [
      ([0x4E], PickleValue.none), ([0x88], .bool(true)), ([0x89], .bool(false)), ([0x4B, 255], .integer(255)),
      ([0x4D, 1, 2], .integer(513)),
      ([0x4A, 0xFF, 0xFF, 0xFF, 0xFF], .integer(-1)), ([0x8A, 0], .integer(0)), ([0x8A, 1, 0xFE], .integer(-2)),
      ([0x8A, 2, 0xFF, 0x00], .integer(255)), ([0x8A, 8, 0, 0, 0, 0, 0, 0, 0, 0x80], .integer(.min)),
      ([0x47, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0], .double(1.5)), ([0x58, 2, 0, 0, 0, 0x61, 0x62], .string("ab")),
      ([0x55, 1, 0x61], .string("a")),
    ] as [([UInt8], PickleValue)])
  func constantsAreRead(bytes: [UInt8], value: PickleValue) throws {
    #expect(try run(bytes).root == value)
  }

  @Test func theMemoGivesBackWhatWasPutUnderAnyNumber() throws {
    // 1, remembered as 9 · 1 again · 7, remembered as 2^24 · 7 again · the last three in a tuple, and all in another
    let pickle = try run([0x4B, 1, 0x71, 9, 0x68, 9, 0x4B, 7, 0x72, 0, 0, 0, 1, 0x6A, 0, 0, 0, 1, 0x87, 0x86])
    guard case .tuple(let inner) = pickle.objects[0], case .tuple(let outer) = pickle.objects[1] else {
      Issue.record("no tuples")
      return
    }
    #expect(inner == [.integer(1), .integer(7), .integer(7)])
    #expect(outer == [.integer(1), .tuple(0)])
  }

  @Test func listsAndDictionariesGrowInPlace() throws {
    let pickle = try run([0x7D, 0x71, 0, 0x4B, 1, 0x4B, 2, 0x73, 0x28, 0x4B, 3, 0x5D, 0x4E, 0x61, 0x28, 0x88, 0x89, 0x65, 0x75])
    let items = try #require(pickle.items(of: pickle.root))
    #expect(items.map(\.key) == [.integer(1), .integer(3)])
    #expect(items[1].value == .list(1))
    guard case .list(let elements) = pickle.objects[1] else {
      Issue.record("no list")
      return
    }
    #expect(elements == [.none, .bool(true), .bool(false)])
  }

  @Test(arguments: [
    ("os", "system"), ("builtins", "eval"), ("__builtin__", "exec"), ("torch", "load"), ("collections", "OrderedDict.x"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch", "storage.UntypedStorage"), ("", "torch.FloatStorage"), ("torch.nn.modules.linear", "Linear"),
  ])
  func aGlobalBeyondTheListIsNamedAndNotCalled(module: String, name: String) {
    expectError("a.bin", "data.pkl", "\"\(module).\(name)\"", "not imported") {
      try run(PickleText.global(module, name) + PickleText.string("true") + [0x85, 0x52])
    }
  }

  @Test func everyOtherOpcodeIsRefused() {
    let known = Array("NJKMGXUc()t]ae}suqrhjQRb.".utf8) + [0x88, 0x89, 0x8A, 0x85, 0x86, 0x87]
    for opcode in UInt8.min...UInt8.max where !known.contains(opcode) {
      expectError("a.bin", "at byte 2", "opcode 0x\(String(opcode, radix: 16, uppercase: true))") { try run([opcode]) }
    }
  }

  @Test(
    arguments: [
      ([0x4B], "the end of the pickle", "more bytes"), ([], "STOP with 0 values", "one value"),
      ([0x4E, 0x4E], "STOP with 2 values", "one value"),
      ([0x28, 0x4E], "1 marks", "no mark"), ([0x74], "no mark", "MARK"), ([0x85], "0 values", "1 for opcode"),
      ([0x4E, 0x28, 0x85], "0 values", "1"),
      ([0x68, 5], "memo 5", "PUT"), ([0x71, 0], "an empty stack", "a value"), ([0x4E, 0x28, 0x71, 0], "an empty stack", "a value"),
      ([0x4E, 0x4E, 0x61], "None under APPEND", "a list"), ([0x4E, 0x4E, 0x4E, 0x73], "None under SETITEM", "a dictionary"),
      ([0x7D, 0x28, 0x4E, 0x75], "1 keys and values", "even"), ([0x58, 0xFF, 0xFF, 0xFF, 0xFF], "4294967295 bytes", "65536"),
      ([0x55, 9, 0x61], "9 bytes", "left"), ([0x55, 1, 0xFF], "not UTF-8", "UTF-8"), ([0x8A, 9], "9 bytes", "at most 8"),
      ([0x63, 0x61], "without an end", "line"), ([0x4E, 0x51], "another persistent id", "storage"),
      ([0x4E, 0x4E, 0x52], "REDUCE of None", "known global"),
      ([0x7D, 0x7D, 0x62], "BUILD of a dictionary", "_metadata"),
    ] as [([UInt8], String, String)])
  func aBrokenProgramIsRefused(bytes: [UInt8], found: String, expected: String) {
    expectError("a.bin", "data.pkl", found, expected) { try run(bytes) }
  }

  @Test func otherProtocolsAreRefused() {
    for version: UInt8 in [0, 1, 3, 4, 5] {
      expectError("a.bin", "128 \(version)", "protocol 2") { try Pickle([0x80, version, 0x4E, 0x2E], file: "a.bin", member: "data.pkl") }
    }
    expectError("a.bin", "more bytes") { try Pickle([0x80, 2, 0x4E, 0x2E, 0], file: "a.bin", member: "data.pkl") }
  }

  @Test func whatWouldChangeATensorsMeaningIsRefused() {
    func tensor(_ storage: [UInt8], hooks: [UInt8] = PickleText.orderedDict, _ more: [UInt8] = []) throws -> Pickle {
      try run(
        PickleText.global("torch._utils", "_rebuild_tensor_v2")
          + PickleText.tuple(storage, [0x4B, 0], [0x29], [0x29], [0x89], hooks, more) + [0x52])
    }
    let storage = PickleText.storage("0", "FloatStorage", 1)
    #expect(throws: Never.self) { try tensor(storage, [0x7D]) }
    #expect(throws: Never.self) { try tensor(storage, hooks: [0x4E], [0x4E]) }
    expectError("a.bin", "metadata a dictionary", "none") { try tensor(storage, PickleText.dictionary(PickleText.string("conj"), [0x88])) }
    expectError("a.bin", "hooks a dictionary", "none") { try tensor(storage, hooks: PickleText.dictionary(PickleText.string("x"), [0x88])) }
    expectError("a.bin", "torch.storage.TypedStorage", "a storage type") {
      try tensor(PickleText.storage("0", "TypedStorage", 1, module: "torch.storage"))
    }
    expectError("a.bin", "dtype none over a storage of bytes") {
      try tensor(PickleText.storage("0", "UntypedStorage", 4, module: "torch.storage"))
    }
    expectError("a.bin", "a tensor of (None") { try tensor([0x4E]) }
  }

  @Test func nestingAndCyclesAreHarmless() throws {
    // A million tuples, each in the next, and a dictionary that holds itself.
    _ = try run([0x29] + [UInt8](repeating: 0x85, count: 1_000_000))
    _ = try run([0x7D, 0x71, 0, 0x4E, 0x68, 0, 0x73])
  }

  @Test func checkValuesAreThoseOfZip() {
    #expect(Array("123456789".utf8).withUnsafeBytes(CRC32.checksum) == 0xCBF4_3926)
    #expect([UInt8]().withUnsafeBytes(CRC32.checksum) == 0)
    #expect([UInt8](repeating: 0, count: 32).withUnsafeBytes(CRC32.checksum) == 0x190A_55AD)
  }
}
