import HostileCases
import Testing

@testable import Checkpoints

/// Files made to break a reader (`Fixtures/hostile`), each with the error that it must give.
@Suite struct HostileFileTests {
  @Test func everyFileIsACaseAndEveryCaseIsThere() throws {
    let cases = try HostileCases.read()
    var counts: [String: Int] = [:]
    for hostile in cases { counts[hostile.opens, default: 0] += 1 }
    // The exact numbers: a case that is lost must be missed.
    #expect(
      counts == [
        "safetensors": 108, "pytorch": 143, "gguf": 142, "index": 47, "config": 90, "adapter-config": 65, "model": 40, "adapter": 27,
        "tokenizer": 81, "gguf-model": 81,
      ])
    #expect(Set(cases.map(\.path)).count == cases.count)
    #expect(cases.count { $0.failure == nil } == 112)
    #expect(HostileCases.strays() == [])
  }

  @Test(arguments: HostileCases.names("safetensors")) func safetensors(name: String) {
    expectOutcome(name) { try Safetensors(path: $0) }
  }

  @Test(arguments: HostileCases.names("pytorch")) func pytorch(name: String) {
    expectOutcome(name) { try PyTorchFile(path: $0) }
  }

  @Test(arguments: HostileCases.names("gguf")) func gguf(name: String) {
    expectOutcome(name) { try GGUF(path: $0) }
  }

  @Test(arguments: HostileCases.names("index")) func index(name: String) {
    expectOutcome(name) { try ShardedCheckpoint.open(folder: $0) }
  }

  /// Opens, and reads every byte of every tensor.
  private func expectOutcome(_ name: String, opening open: (String) throws -> some TensorSource) {
    let difference = HostileCases.difference(name) { path in
      let source = try open(path)
      try source.readAll()
      return source.entries.map(\.name)
    }
    #expect(difference == nil)
  }
}
