import Platform
import Testing

@testable import Checkpoints

#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

@Suite struct FileTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  // MARK: Reading

  @Test func readsAreCheckedAgainstTheSize() throws {
    let file = try MappedFile(path: folder.put("a", [1, 2, 3, 4, 5]))
    #expect(file.size == 5)
    #expect(try file.integer(UInt32.self, at: 1) == 0x0504_0302)
    #expect(try file.integer(Int16.self, at: 3) == 0x0504)
    #expect(try file.bytes(in: 5..<5) == [])
    expectError("\(folder.path)/a", "5 bytes", "bytes 2 to 6") { try file.integer(UInt32.self, at: 2) }
    expectError("\(folder.path)/a", "5 bytes") { try file.integer(UInt8.self, at: -1) }
    expectError("\(folder.path)/a", "5 bytes") { try file.integer(UInt64.self, at: Int.max) }
    expectError("\(folder.path)/a", "5 bytes") { try file.bytes(in: -1..<3) }
    expectError("\(folder.path)/a", "5 bytes") { try file.bytes(in: 3..<Int.max) }
  }

  @Test func anEmptyFileIsLegal() throws {
    let file = try MappedFile(path: folder.put("empty", [UInt8]()))
    #expect(file.size == 0)
    #expect(try file.bytes(in: 0..<0) == [])
    expectError("empty", "0 bytes") { try file.integer(UInt8.self, at: 0) }
  }

  @Test func whatIsNoRegularFileIsWrongInput() throws {
    expectError("\(folder.path)/missing", "No such file", "errno \(ENOENT)") { try MappedFile(path: "\(folder.path)/missing") }
    expectError("a directory", "a regular file") { try MappedFile(path: folder.path) }
    let fifo = "\(folder.path)/fifo"
    #expect(mkfifo(fifo, 0o600) == 0)
    expectError(fifo, "a FIFO", "a regular file") { try MappedFile(path: fifo) }
    expectError("/dev/zero", "a device") { try MappedFile(path: "/dev/zero") }
    try folder.put("file", "x")
    expectError("Not a directory") { try MappedFile(path: "\(folder.path)/file/inside") }
    expectError("empty path") { try MappedFile(path: "") }
    expectError("NUL") { try MappedFile(path: "\(folder.path)/file\0.safetensors") }
  }

  @Test(arguments: [
    (ENOENT, false), (ENOTDIR, false), (EISDIR, false), (ENAMETOOLONG, false), (ELOOP, false), (EACCES, true), (EPERM, true), (EIO, true),
    (ENOSPC, true), (EROFS, true), (EDQUOT, true), (EMFILE, true), (ENOMEM, true),
  ])
  func errnoTellsTheInputFromTheSystem(code: Int32, isSystemFailure: Bool) {
    expectError("f", "errno \(code) of open", isSystemFailure: isSystemFailure) {
      throw CheckpointError(file: "f", call: "open", code: Errno(rawValue: code), expected: "a file")
    }
  }

  @Test func namesInMessagesCannotReachTheTerminal() {
    let error = CheckpointError(file: "f", place: .tensor("a\u{1B}[2J\n\"\u{202E}"), found: "1", expected: "2")
    #expect(error.description == "f, tensor \"a\\u{1B}[2J\\u{A}\\\"\\u{202E}\": found 1; expected 2")
    #expect(quoted(String(repeating: "x", count: 1000)).utf8.count < 220)
  }

  // MARK: Writing

  @Test func aFileIsWrittenOverTheOldOneAndNothingElseStays() throws {
    let path = try folder.put("a.json", "old")
    try AtomicFile.write("new", to: path)
    #expect(try folder.read("a.json") == Array("new".utf8))
    try AtomicFile.write(to: path) { output in
      for byte in UInt8(0)..<100 { try output.write([byte]) }
      #expect(output.count == 100)
    }
    #expect(try folder.read("a.json") == Array(0..<100))
    try AtomicFile.write([], to: path)
    #expect(try folder.read("a.json") == [])
    #expect(folder.names == ["a.json"])
  }

  @Test func aFailingWriteLeavesTheOldFileAndNoTemporary() throws {
    struct Failure: Error {}
    let path = try folder.put("a.json", "old")
    #expect(throws: Failure.self) {
      try AtomicFile.write(to: path) { output in
        try output.write([1, 2, 3])
        #expect(folder.names.count == 2)
        throw Failure()
      }
    }
    #expect(try folder.read("a.json") == Array("old".utf8))
    #expect(folder.names == ["a.json"])
  }

  @Test func aTargetThatIsNoFileIsLeftAlone() throws {
    let fifo = "\(folder.path)/fifo"
    #expect(mkfifo(fifo, 0o600) == 0)
    expectError(fifo, "a FIFO", "regular file") { try AtomicFile.write("x", to: fifo) }
    expectError("a directory") { try AtomicFile.write("x", to: folder.path) }
    expectError("\(folder.path)/no/a", "No such file", "\(folder.path)/no") { try AtomicFile.write("x", to: "\(folder.path)/no/a") }
    #expect(folder.names == ["fifo"])
  }

  @Test func aLeftOverTemporaryIsPassedBy() throws {
    try folder.put(".partial-\(getpid())-0", "from a killed process")
    try AtomicFile.write("x", to: "\(folder.path)/a")
    #expect(folder.names == [".partial-\(getpid())-0", "a"])
  }

  @Test func shortAndInterruptedWritesAreContinued() throws {
    let bytes = [UInt8](0..<100)
    var written: [UInt8] = []
    var calls = 0
    try bytes.withUnsafeBytes { buffer in
      try AtomicFile.writeFully(buffer, to: "f") { piece in
        calls += 1
        if calls % 3 == 0 { throw Errno.interrupted }
        let taken = min(piece.count, 7)
        written += piece.prefix(taken)
        return taken
      }
    }
    #expect(written == bytes)
  }

  @Test func aFullDeviceIsASystemFailureWithNumbers() {
    let bytes = [UInt8](0..<100)
    var room = 60
    expectError("f", "errno \(ENOSPC) of write", "100 bytes, 60 were written", isSystemFailure: true) {
      try bytes.withUnsafeBytes { buffer in
        try AtomicFile.writeFully(buffer, to: "f") { piece in
          guard room > 0 else { throw Errno.noSpace }
          defer { room = 0 }
          return min(piece.count, room)
        }
      }
    }
  }
}
