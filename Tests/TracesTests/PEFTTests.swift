import CPUBackend
import Checkpoints
import Decoders
import Foundation
import TestModels
import Testing
import Traces

/// Adapters with every feature of PEFT's configurations against PEFT itself in float64 (`Fixtures/adapters`): logits, loss, gradients of
/// everything that PEFT trains, and three steps.
@Suite struct PEFTTests {
  struct Case: Sendable, CustomStringConvertible {
    let name: String
    let model: String
    /// Whether the folder has tensors, or PEFT made a new adapter.
    let loads: Bool

    var description: String { name }
    var folder: String { Fixture.path("adapters/" + name) }

    static func readIndex() throws -> [Case] {
      try (JSON(contentsOf: Fixture.path("adapters/cases.json")).arrayValue ?? []).map { json in
        Case(
          name: json["name"]?.stringValue ?? "", model: Fixture.path("adapters/" + (json["model"]?.stringValue ?? "")),
          loads: json["loads"]?.boolValue ?? false)
      }
    }
  }

  static let cases = ((try? Case.readIndex()) ?? []).filter(\.loads)

  private func trace(_ folder: String, _ one: Case, on backend: CPUDouble) throws -> Trace<Double> {
    let model = try ModelFolder(one.model)
    let batch = try TraceBatch(contentsOf: one.folder + "/batch.safetensors", vocabulary: model.configuration.vocabulary)
    return try Trace.withThreeSteps(model.decoder(adapter: .folder(folder), on: backend), batch, on: backend)
  }

  private func expectSame(_ trace: Trace<Double>, _ one: Case) throws {
    let expected = try Fixture.tensors(one.folder + "/expected64.safetensors")
    let found = trace.tensors.filter { $0.name != "aux_loss" }
    let wanted = expected.filter { $0.name != "aux_loss" }
    #expect(found.count == wanted.count && found.count > 8)
    let first = Agreement(of: found.firstPass(), with: wanted.firstPass())
    #expect(first.holds(to: 1e-12), "\(one): \(first)")
    let after = Agreement(of: found.steps(), with: wanted.steps())
    #expect(after.holds(to: 1e-9), "\(one): \(after)")
  }

  @Test func theIndexNamesTheCases() throws {
    let all = try Case.readIndex()
    #expect(all.count == 15 && Self.cases.count == 13)
    for one in all {
      let files = Set(try FileManager.default.contentsOfDirectory(atPath: one.folder))
      #expect(files.contains("adapter_model.safetensors") == one.loads && files.contains("expected64.safetensors"))
    }
  }

  @Test(arguments: cases) func everyFeatureIsWhatPEFTComputes(_ one: Case) throws {
    try expectSame(trace(one.folder, one, on: CPUDouble(threads: 2, isPoisoned: true)), one)
  }

  /// The folder that is written again says the same, and so computes the same.
  @Test(arguments: cases) func whatIsWrittenComesBack(_ one: Case) throws {
    let backend = CPUDouble(threads: 1)
    let folder = FileManager.default.temporaryDirectory.appending(path: "mixlora-" + UUID().uuidString).path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let decoder: Decoder<CPUDouble> = try ModelFolder.load(one.model, adapter: .folder(one.folder), on: backend)
    try AdapterFolder.write(decoder.adapters[0], to: folder, baseModel: nil, on: backend)
    let (written, given) = (
      try AdapterConfiguration(contentsOf: folder + "/adapter_config.json"),
      try AdapterConfiguration(contentsOf: one.folder + "/adapter_config.json")
    )
    var expected = given  // with what says nothing here
    expected.unknownKeys = []
    #expect(written == expected && written.unknownKeys.isEmpty, "\(one)")
    let names = { (folder: String) in Set(try Safetensors(path: folder + "/adapter_model.safetensors").entries.map(\.name)) }
    #expect(try names(folder) == names(one.folder), "\(one)")
    try expectSame(trace(folder, one, on: backend), one)
  }

  /// A new adapter that is made of the base's own weights, as PEFT makes it. The signs of factors are free, so sizes are compared.
  @Test(arguments: [("pissa-new", AdapterConfiguration.Initialization.pissa), ("olora-new", .olora)])
  func branchesBeginWithTheFactorsOfTheirWeights(_ name: String, _ initialization: AdapterConfiguration.Initialization) throws {
    let one = try #require(try Case.readIndex().first { $0.name == name })
    let settings = try AdapterConfiguration(contentsOf: one.folder + "/adapter_config.json")
    #expect(settings.lora.initialization == initialization)
    let (model, backend) = (try ModelFolder(one.model), CPUDouble(threads: 1, isPoisoned: true))
    let batch = try TraceBatch(contentsOf: one.folder + "/batch.safetensors", vocabulary: model.configuration.vocabulary)
    let trace = try Trace.withThreeSteps(model.decoder(adapter: .new(settings, seed: 1), on: backend), batch, on: backend)
    func sizes(_ tensors: [Trace<Double>.NamedTensor]) -> [Trace<Double>.NamedTensor] {
      tensors.filter { $0.name != "aux_loss" }.map {
        $0.name.contains("lora_") ? .init(name: $0.name, shape: $0.shape, values: $0.values.map(abs)) : $0
      }
    }
    let (found, expected) = (sizes(trace.tensors), sizes(try Fixture.tensors(one.folder + "/expected64.safetensors")))
    let first = Agreement(of: found.firstPass(), with: expected.firstPass())
    #expect(first.holds(to: 1e-11), "\(one): \(first)")
    let after = Agreement(of: found.steps(), with: expected.steps())
    #expect(after.holds(to: 1e-9), "\(one): \(after)")
    // Before the first step nothing has changed: base and branch are the base.
    let plain = try Trace.withThreeSteps(model.decoder(trainsBase: true, on: backend), batch, on: backend)
    let logits = Agreement(of: trace.tensors.only("logits"), with: plain.tensors.only("logits"))
    #expect(logits.holds(to: 1e-12), "\(one): \(logits)")
  }

  /// Folders of older versions and other writers: the same tensors under other names, keys that are not there.
  @Test(arguments: [("old", "saved"), ("old-bias", "bias-lora-only")]) func olderFoldersAreRead(_ variant: String, _ name: String) throws {
    let one = try #require(Self.cases.first { $0.name == name })
    try expectSame(trace(Fixture.path("adapters/" + variant), one, on: CPUDouble(threads: 1)), one)
  }
}
