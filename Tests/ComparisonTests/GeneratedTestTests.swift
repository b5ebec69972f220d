import Checkpoints
import Comparison
import Conformance
import Foundation
import Testing

/// The package that `--gen-test` writes.
@Suite struct GeneratedTestTests {
  private func operation(_ name: String = "model.layers.1.self_attn.q_proj.output") -> FailingOperation {
    FailingOperation(
      name: name, kind: "linear", equation: "y = x Wᵀ", attributes: [("scale", 2)],
      inputs: [
        .init(name: "x", shape: [1, 2], values: [1, 2], elementType: .bfloat16),
        .init(name: "weight", shape: [2, 2], values: [0.1, 0, 0, 1], elementType: .float64),
        .init(name: "tokens", shape: [2], values: [0, 3], elementType: .int64),
      ], shape: [1, 2], expected: [0.1, 2], found: [0.1, 2.5], budget: 1e-6)
  }

  private func withFolder(_ body: (String) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "generated-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try body(folder.path)
  }

  @Test func theFolderHoldsACaseThatIsRedForWhatWasFound() throws {
    try withFolder { folder in
      try GeneratedTest.write(operation(), to: folder + "/test")
      let data = folder + "/test/Tests/OperationTests/case/"
      let (inputs, expected) = (
        try NamedTensors(contentsOf: data + "inputs.safetensors"), try NamedTensors(contentsOf: data + "expected.safetensors")
      )
      let found = try NamedTensors(contentsOf: data + "found.safetensors")
      #expect(inputs["x"]?.values == [1, 2] && inputs["weight"]?.values == [0.1, 0, 0, 1] && inputs["tokens"]?.values == [0, 3])
      #expect(inputs["x"]?.precision == .float32 && inputs["weight"]?.precision == .float64)
      #expect(!found.matches(expected, within: .relative(1e-6)) && expected.matches(expected, within: .relative(1e-6)))
      let json = try #require(
        try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: data + "case.json"))) as? [String: Any])
      #expect(json["operation"] as? String == "linear" && (json["attributes"] as? [String: Double])?["scale"] == 2)
      let source = try String(contentsOfFile: folder + "/test/Tests/OperationTests/OperationTests.swift", encoding: .utf8)
      #expect(source.contains("func candidate(_ inputs: NamedTensors)") && source.contains("within: .relative(1e-06)"))
      let manifest = try String(contentsOfFile: folder + "/test/Package.swift", encoding: .utf8)
      #expect(manifest.contains("\"\(GeneratedTest.checkout)\""))
      #expect(FileManager.default.fileExists(atPath: GeneratedTest.checkout + "/Package.swift"))
    }
  }

  @Test func aHostileNameStaysALiteral() throws {
    try withFolder { folder in
      let name = "a\"\\(1)\n*/ #\u{2028}\u{0}é"
      try GeneratedTest.write(operation(name), to: folder + "/test", library: "/a \"b\"\n/c")
      let source = try String(contentsOfFile: folder + "/test/Tests/OperationTests/OperationTests.swift", encoding: .utf8)
      #expect(source.contains("static let name = \"a\\\"\\\\(1)\\u{a}*/ #\\u{2028}\\u{0}\\u{e9}\"\n"))
      #expect(!source.contains("\u{2028}") && !source.contains("\u{0}"))
      #expect(try NamedTensors(contentsOf: folder + "/test/Tests/OperationTests/case/found.safetensors")[name] != nil)
    }
  }

  @Test func nothingIsOverwrittenAndNothingIsLeftBehind() throws {
    try withFolder { folder in
      try "mine".write(toFile: folder + "/note", atomically: true, encoding: .utf8)
      #expect(throws: CheckpointError.self) { try GeneratedTest.write(operation(), to: folder) }
      #expect(throws: CheckpointError.self) { try GeneratedTest.write(operation(), to: folder + "/note") }
      var wrong = operation()
      wrong.inputs[0].shape = [3]
      #expect(throws: CheckpointError.self) { try GeneratedTest.write(wrong, to: folder + "/test") }
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["note"])
    }
  }
}
