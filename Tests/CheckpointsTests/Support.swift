import Testing

@testable import Checkpoints

#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// A folder that goes when the last reference goes; it holds files only.
final class TemporaryFolder {
  let path: String

  init() throws {
    let root = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(root)/checkpoints-XXXXXX".utf8CString)
    path = try #require(mkdtemp(&template)).withMemoryRebound(to: UInt8.self, capacity: template.count) { String(cString: $0) }
  }

  deinit {
    for name in names { unlink("\(path)/\(name)") }
    rmdir(path)
  }

  /// The names in the folder, sorted.
  var names: [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// Writes a file without any of the code under test; returns its path.
  @discardableResult
  func put(_ name: String, _ bytes: [UInt8]) throws -> String {
    let file = try #require(fopen("\(path)/\(name)", "w"))
    #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    fclose(file)
    return "\(path)/\(name)"
  }

  @discardableResult
  func put(_ name: String, _ text: String) throws -> String {
    try put(name, Array(text.utf8))
  }

  func read(_ name: String) throws -> [UInt8] {
    let file = try MappedFile(path: "\(path)/\(name)")
    return try file.bytes(in: 0..<file.size)
  }
}

/// Expects a `CheckpointError` whose sentence holds all the fragments, and which blames the input unless told otherwise.
func expectError<R>(
  _ fragments: String..., isSystemFailure: Bool = false, sourceLocation: SourceLocation = #_sourceLocation, during body: () throws -> R
) {
  do {
    _ = try body()
    Issue.record("no error, expected one with \(fragments)", sourceLocation: sourceLocation)
  } catch let error as CheckpointError {
    for fragment in fragments {
      #expect(error.description.contains(fragment), "\(error)", sourceLocation: sourceLocation)
    }
    #expect(error.isSystemFailure == isSystemFailure, "\(error)", sourceLocation: sourceLocation)
  } catch {
    Issue.record("\(error) is no CheckpointError", sourceLocation: sourceLocation)
  }
}

/// Runs a body that may only succeed or throw a `CheckpointError`; returns whether it succeeded.
func succeeds(_ body: () throws -> Void, sourceLocation: SourceLocation = #_sourceLocation) -> Bool {
  do {
    try body()
    return true
  } catch is CheckpointError {
    return false
  } catch {
    Issue.record("\(error) is no CheckpointError", sourceLocation: sourceLocation)
    return false
  }
}

extension FixedWidthInteger {
  /// The bytes of the integer, lowest first.
  var littleEndianBytes: [UInt8] {
    (0..<Self.bitWidth / 8).map { UInt8(truncatingIfNeeded: self >> Self(8 * $0)) }
  }
}

extension [Float] {
  /// The elements as a file has them.
  var littleEndianBytes: [UInt8] { flatMap { $0.bitPattern.littleEndianBytes } }
}

extension TensorSource {
  /// A copy of a tensor's bytes.
  func bytes(of name: String) throws -> [UInt8] {
    try withBytes(of: name) { Array($0) }
  }

  /// Reads every byte of every tensor, as a user would.
  func readAll() throws {
    for entry in entries {
      let count = try withBytes(of: entry.name) { $0.reduce(into: 0) { count, _ in count += 1 } }
      #expect(count == entry.byteCount)
    }
  }
}

/// "é" as one scalar and as a letter with an accent: equal for Swift, different bytes.
let composed = "\u{E9}"
let decomposed = "e\u{301}"

/// A safetensors file with this header text, unpadded, and these data bytes.
func safetensors(_ header: String, _ data: [UInt8] = []) -> [UInt8] {
  UInt64(header.utf8.count).littleEndianBytes + Array(header.utf8) + data
}
