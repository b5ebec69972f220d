import CPUBackend
import Checkpoints
import Decoders
import Foundation
import TestModels
import Testing
import Traces

/// Adapters written for other programs and merged into their models. What these programs make of the files is measured by
/// `Fixtures/adapters/roundtrip.py`.
@Suite struct ConversionTests {
  private func withFolder<R>(_ body: (String) throws -> R) throws -> R {
    let folder = FileManager.default.temporaryDirectory.appending(path: "mixlora-" + UUID().uuidString).path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    return try body(folder)
  }

  private func logits(_ model: String, _ adapter: AdapterOrigin, _ one: PEFTTests.Case) throws -> [Trace<Double>.NamedTensor] {
    let backend = CPUDouble(threads: 1)
    let folder = try ModelFolder(model)
    let batch = try TraceBatch(contentsOf: one.folder + "/batch.safetensors", vocabulary: folder.configuration.vocabulary)
    return try Trace.record(folder.decoder(adapter: adapter, on: backend), batch, TraceRequest(), on: backend) { _ in }.tensors.only(
      "logits")
  }

  /// The merged model is the model with its adapter, but for one rounding to float32; a head that the adapter unties stands alone.
  @Test(arguments: PEFTTests.cases) func aMergedModelIsTheModelWithItsAdapter(_ one: PEFTTests.Case) throws {
    try withFolder { folder in
      let model = try ModelFolder(one.model)
      let entries = try model.merge(
        adapter: one.folder, beside: ModelFolder.Files(of: one.model), to: folder, on: CPUDouble(threads: 1))
      let isUntied = model.configuration.head.isTied && one.name.hasPrefix("saved-tied")
      #expect(try ModelFolder(folder).configuration.head.isTied == (model.configuration.head.isTied && !isUntied))
      #expect(entries.contains { $0.name == "lm_head.weight" } == (!model.configuration.head.isTied || isUntied))
      let agreement = Agreement(of: try logits(folder, .none, one), with: try logits(one.model, .folder(one.folder), one))
      #expect(agreement.holds(to: 1e-6), "\(one): \(agreement)")
      // What no branch stands on is the file's own.
      let (before, after) = (try Safetensors(path: one.model + "/model.safetensors"), try Safetensors(path: folder + "/model.safetensors"))
      var same = 0
      for entry in before.entries {
        let bytes = try before.withBytes(of: entry.name) { Array($0) }
        if try after.withBytes(of: entry.name, { $0.elementsEqual(bytes) }) { same += 1 }
      }
      #expect((1..<before.entries.count).contains(same), "\(one)")
    }
  }

  /// A bfloat16 model stays one: every element is the nearest number to the exact sum.
  @Test func sumsAreRoundedOnceToTheModelsType() throws {
    let adapter = Fixture.path("peers/cases/lora-gemma/adapter")
    let model = Fixture.path("peers/models/gemma-bf16")
    try withFolder { folder in
      _ = try ModelFolder(model).merge(adapter: adapter, beside: ModelFolder.Files(of: model), to: folder, on: CPUDouble(threads: 1))
      let (before, after) = (try Safetensors(path: model + "/model.safetensors"), try Safetensors(path: folder + "/model.safetensors"))
      #expect(before.entries == after.entries && after.entries.contains { $0.elementType == .bfloat16 })
      let name = "model.layers.0.self_attn.q_proj.weight"
      func values(_ file: some TensorSource, _ name: String) throws -> [Double] {
        let entry = try file.requiredEntry(name)
        let weights = CheckpointWeights<CPUDouble>(file, on: CPUDouble(threads: 1))
        return try CPUDouble(threads: 1).download(weights.tensor(name, .init(entry.shape[0], entry.shape[1]), .constant(0)))
      }
      let tensors = try AdapterFolder.tensors(in: adapter)
      let lora = "base_model.model." + name.dropLast(7)
      let (a, b) = (try values(tensors, lora + ".lora_A.weight"), try values(tensors, lora + ".lora_B.weight"))
      let configuration = try AdapterConfiguration(contentsOf: adapter + "/adapter_config.json").lora
      let (w, merged) = (try values(before, name), try values(after, name))
      let columns = try before.requiredEntry(name).shape[1]
      var changed = 0
      for i in w.indices {
        let (o, c) = (i / columns, i % columns)
        let sum =
          w[i] + configuration.scale * (0..<configuration.rank).reduce(0) { $0 + b[o * configuration.rank + $1] * a[$1 * columns + c] }
        #expect(abs(merged[i] - sum) <= abs(sum) / 256 * 1.0001, "\(i)")
        changed += merged[i] == w[i] ? 0 : 1
      }
      #expect(changed > w.count / 2)
    }
  }

  @Test(arguments: Golden.cases) func aMixtureForMoEPEFTHasItsTensorsInAPickle(_ name: String) throws {
    try withFolder { folder in
      let adapter = Golden.folder(name) + "/adapter"
      let notes = try AdapterFolder.convert(adapter, to: .moePEFT, out: folder)
      #expect(notes.isEmpty || notes[0].hasPrefix("lora_dropout"))
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["adapter_config.json", "adapter_model.bin"])
      let (before, after) = (try AdapterFolder.tensors(in: adapter), try AdapterFolder.tensors(in: folder))
      #expect(after.entries.count == before.entries.count && after.entries.count > 4)
      for entry in before.entries {
        let bytes = try before.withBytes(of: entry.name) { Array($0) }
        let isSame = try after.withBytes(of: entry.name) { $0.elementsEqual(bytes) }
        #expect(isSame && after.entry(entry.name) == entry, "\(entry.name)")
      }
      let (given, written) = (
        try AdapterConfiguration(contentsOf: adapter + "/adapter_config.json"),
        try AdapterConfiguration(contentsOf: folder + "/adapter_config.json")
      )
      #expect(written.mixture?.policy == given.mixture?.policy && written.mixture?.activation == given.mixture?.activation)
      #expect(throws: CheckpointError.self) { try AdapterFolder.convert(adapter, to: .peft, out: folder) }
      #expect(throws: CheckpointError.self) {
        try ModelFolder(Golden.folder(name) + "/model").merge(
          adapter: adapter, beside: ModelFolder.Files(of: Golden.folder(name) + "/model"), to: folder, on: CPUDouble(threads: 1))
      }
    }
  }

  /// What MoE-PEFT does not have is refused by its key; older names become today's.
  @Test(arguments: [
    ("patterns", "rank_pattern"), ("layers", "target_modules"), ("saved", "modules_to_save"), ("bias-all", "bias"),
    ("pissa", "init_lora_weights"), ("all-linear", "target_modules"),
  ]) func whatMoEPEFTLacksIsRefused(_ name: String, _ key: String) throws {
    try withFolder { folder in
      #expect {
        try AdapterFolder.convert(Fixture.path("adapters/" + name), to: .moePEFT, out: folder)
      } throws: {
        ($0 as? CheckpointError)?.place == .key(key)
      }
      let left = try FileManager.default.contentsOfDirectory(atPath: folder)
      #expect(left.isEmpty)
    }
  }

  @Test func olderFoldersBecomePEFTsOfToday() throws {
    try withFolder { folder in
      let notes = try AdapterFolder.convert(Fixture.path("adapters/old"), to: .peft, out: folder)
      func names(_ path: String) throws -> Set<String> {
        Set(try Safetensors(path: path + "/adapter_model.safetensors").entries.map(\.name))
      }
      let (written, expected) = (try names(folder), try names(Fixture.path("adapters/saved")))
      #expect(notes.isEmpty && written == expected)
    }
  }

  /// Folders and files of other programs are called what they are.
  @Test func adaptersOfOtherProgramsAreNamed() throws {
    try withFolder { folder in
      func message(_ path: String) -> String {
        do { _ = try AdapterFolder.tensors(in: path) } catch { return "\(error)" }
        return ""
      }
      try Data().write(to: URL(filePath: folder + "/adapters.safetensors"))
      #expect(message(folder).contains("mlx-lm"))
      try FileManager.default.removeItem(atPath: folder + "/adapters.safetensors")
      try Data().write(to: URL(filePath: folder + "/lora.gguf"))
      #expect(message(folder).contains("llama.cpp") && message(folder + "/lora.gguf").contains("llama.cpp"))
      try Data(#"{"fine_tune_type": "lora", "num_layers": 8, "lora_parameters": {"rank": 8}}"#.utf8).write(
        to: URL(filePath: folder + "/adapter_config.json"))
      #expect {
        try AdapterConfiguration(contentsOf: folder + "/adapter_config.json")
      } throws: {
        "\($0)".contains("mlx-lm")
      }
    }
  }

  /// Two adapters cannot both have weights in the base's place, and one alone may not have them beside another.
  @Test func anAdapterWithWeightsOfItsOwnServesAlone() throws {
    let saved = Fixture.path("adapters/saved")
    #expect {
      _ = try ModelFolder(Fixture.path("peers/models/llama")).decoder(
        adapters: [.folder(Fixture.path("adapters/patterns")), .folder(saved)], on: CPUDouble(threads: 1))
    } throws: {
      "\($0)".contains("alone")
    }
  }
}
