import CPUBackend
import Decoders
import HostileCases
import Testing

/// Configurations and whole folders made to break a reader (`Fixtures/hostile`), each with the error that it must give.
@Suite struct HostileFolderTests {
  @Test(arguments: HostileCases.names("config")) func configuration(name: String) {
    expectOutcome(name) { _ = try DecoderConfiguration(contentsOf: $0) }
  }

  @Test(arguments: HostileCases.names("adapter-config")) func adapterConfiguration(name: String) {
    expectOutcome(name) { _ = try AdapterConfiguration(contentsOf: $0) }
  }

  @Test(arguments: HostileCases.names("model")) func model(name: String) {
    expectOutcome(name) { try load(model: $0, adapter: nil) }
    expectOutcome(name) { try load(model: $0, adapter: HostileCases.folder + "/adapter/good") }
  }

  @Test(arguments: HostileCases.names("adapter")) func adapter(name: String) {
    expectOutcome(name) { try load(model: HostileCases.folder + "/model/good", adapter: $0) }
  }

  @Test(arguments: HostileCases.names("gguf-model")) func ggufModel(name: String) {
    expectOutcome(name) { try load(model: $0, adapter: nil) }
  }

  private func load(model: String, adapter: String?) throws {
    let decoder = try ModelFolder.load(
      model, adapter: adapter.map { .folder($0) } ?? .none,
      on: CPUDouble(threads: 1))
    #expect(decoder.trainedTensors.isEmpty == (adapter == nil))
  }

  private func expectOutcome(_ name: String, opening open: (String) throws -> Void) {
    let difference = HostileCases.difference(name) { path in
      try open(path)
      return []
    }
    #expect(difference == nil)
  }
}
