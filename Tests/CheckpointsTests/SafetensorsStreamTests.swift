import Checkpoints
import Foundation
import JSON
import Testing

/// Files whose tensors come one after the other.
@Suite struct SafetensorsStreamTests {
  private let folder = FileManager.default.temporaryDirectory.appending(path: "mixlora-stream-" + UUID().uuidString)

  private func append(_ stream: SafetensorsStream, _ name: String, _ shape: [Int], _ values: [Double]) throws {
    let entry = try TensorEntry(name: name, elementType: .float64, shape: shape)
    try values.withUnsafeBytes { try stream.append(entry, $0) }
  }

  @Test func whatIsAppendedIsReadInItsOrder() throws {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let path = folder.path + "/file.safetensors"
    let names = ["zebra", "a \"quoted\" ä", "never", "empty"]
    var order = names
    let count = try SafetensorsStream.write(to: path, names: names, metadata: { [("order", order.joined(separator: ";"))] }) { stream in
      try append(stream, "zebra", [2, 3], [1, 2, 3, 4, 5, 6])
      try append(stream, "empty", [0, 7], [])
      try append(stream, "a \"quoted\" ä", [], [-0.5])
      order = ["zebra"]
      return stream.entries.count
    }
    #expect(count == 3)
    let file = try Safetensors(path: path)
    #expect(Set(file.entries.map(\.name)) == ["zebra", "a \"quoted\" ä", "empty"])
    #expect(file.entry("zebra")?.shape == [2, 3] && file.entry("empty")?.shape == [0, 7] && file.entry("a \"quoted\" ä")?.shape == [])
    #expect(try file.withBytes(of: "zebra") { Array($0.bindMemory(to: Double.self)) } == [1, 2, 3, 4, 5, 6])
    #expect(try file.withBytes(of: "a \"quoted\" ä") { $0.loadUnaligned(as: Double.self) } == -0.5)
    #expect(file.metadata["order"]?.stringValue == "zebra")
  }

  struct Stop: Error {}

  @Test func whatFailsLeavesTheOldFileAndNothingElse() throws {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let path = folder.path + "/file.safetensors"
    try Data("old".utf8).write(to: URL(filePath: path))
    #expect(throws: Stop.self) {
      try SafetensorsStream.write(to: path, names: ["a"], metadata: { [] }) { stream in
        try append(stream, "a", [1], [1])
        throw Stop()
      }
    }
    // More than was announced, the same twice, and metadata that grew.
    #expect(throws: CheckpointError.self) {
      try SafetensorsStream.write(to: path, names: ["a"], metadata: { [] }) { stream in
        try append(stream, "a", [1], [1])
        try append(stream, "b", [1], [1])
      }
    }
    #expect(throws: CheckpointError.self) {
      try SafetensorsStream.write(to: path, names: ["a", "b"], metadata: { [] }) { stream in
        for _ in 0..<2 { try append(stream, "a", [1], [1]) }
      }
    }
    var text = ""
    #expect(throws: CheckpointError.self) {
      try SafetensorsStream.write(to: path, names: ["a"], metadata: { [("text", text)] }) { stream in
        try append(stream, "a", [1], [1])
        text = String(repeating: "x", count: 1000)
      }
    }
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "old")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["file.safetensors"])
  }
}
