import Foundation
import Testing

@testable import Checkpoints

/// Dictionaries of tensors written for PyTorch and read back by our own reader; torch itself reads them in `Fixtures/adapters/roundtrip.py`.
@Suite struct PyTorchWriterTests {
  private func written(_ entries: [TensorEntry], wideFrom wide: Int = ZipWriter.firstWide, _ body: (PyTorchFile) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "mixlora-\(UUID().uuidString).bin").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    try PyTorchWriter.write(to: path, entries: entries, wideFrom: wide) { entry, emit in
      let bytes = content(of: entry)
      try bytes[..<(bytes.count / 2)].withUnsafeBytes(emit)
      try bytes[(bytes.count / 2)...].withUnsafeBytes(emit)
    }
    try body(PyTorchFile(path: path))
  }

  private func content(of entry: TensorEntry) -> [UInt8] {
    (0..<entry.byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ entry.name.utf8.count) }
  }

  private static let entries: [TensorEntry] = [
    ("a.weight", ElementType.float32, [2, 3]), ("b", .bfloat16, [300]), ("scalar", .float64, []), ("none", .float32, [0, 4]),
    ("ä.é", .float16, [1, 2, 3]), ("ids", .int64, [3]), ("long", .float32, [70_000]),
  ].compactMap { try? TensorEntry(name: $0.0, elementType: $0.1, shape: $0.2) }

  @Test(arguments: [ZipWriter.firstWide, 0, 100]) func whatIsWrittenIsRead(_ wide: Int) throws {
    try written(Self.entries, wideFrom: wide) { file in
      #expect(file.entries.map(\.name) == Self.entries.map(\.name))
      for entry in Self.entries {
        #expect(file.entry(entry.name) == entry)
        let bytes = try file.withBytes(of: entry.name) { Array($0) }
        #expect(bytes == content(of: entry), "\(entry.name)")
      }
    }
  }

  /// A dictionary of tensors, whose data may be mapped.
  @Test func onlyTensorsAreInIt() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "mixlora-\(UUID().uuidString).bin").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let entries = Self.entries.filter { $0.elementType == .float32 }
    try PyTorchWriter.write(to: path, entries: entries) { entry, emit in try content(of: entry).withUnsafeBytes(emit) }
    let zip = try ZipArchive(MappedFile(path: path))
    #expect(
      zip.members.map(\.name) == ["archive/data.pkl", "archive/byteorder"] + (0..<3).map { "archive/data/\($0)" } + ["archive/version"])
    #expect(zip.members.allSatisfy { $0.range.lowerBound % 64 == 0 })
    let pickle = try Pickle(zip.file.bytes(in: zip.members[0].range), file: path, member: "data.pkl")
    #expect(pickle.items(of: pickle.root)?.count == 3)
    for item in pickle.items(of: pickle.root) ?? [] { #expect(pickle.tensor(item.value) != nil) }
  }

  @Test func whatCannotBeWrittenIsAnErrorAndLeavesNothing() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "mixlora-\(UUID().uuidString).bin").path
    let entry = try TensorEntry(name: "a", elementType: .float32, shape: [2])
    func write(_ entries: [TensorEntry], bytes: Int) throws {
      try PyTorchWriter.write(to: path, entries: entries) { _, emit in try [UInt8](repeating: 0, count: bytes).withUnsafeBytes(emit) }
    }
    #expect(throws: CheckpointError.self) { try write([entry], bytes: 7) }
    #expect(throws: CheckpointError.self) { try write([entry, entry], bytes: 8) }
    #expect(throws: CheckpointError.self) { try write([try TensorEntry(name: "q", elementType: .uint64, shape: [1])], bytes: 8) }
    #expect(!FileManager.default.fileExists(atPath: path))
  }
}
