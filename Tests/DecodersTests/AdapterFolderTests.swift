import CPUBackend
import Checkpoints
import Decoders
import Foundation
import Layers
import Tensors
import TestModels
import Testing

/// Adapters written as folders and read again.
@Suite struct AdapterFolderTests {
  private func withFolder<R>(_ body: (String) throws -> R) throws -> R {
    let folder = FileManager.default.temporaryDirectory.appending(path: "mixlora-" + UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder.path)
  }

  /// Everything that a configuration can say about a mixture, each by a value that is no default.
  static let adapters: [String: AdapterConfiguration] = {
    var mixture = SmallModel.adapter(targets: ["q_proj", "o_proj", "gate_proj", "down_proj"], experts: 4, topK: 3)
    mixture.lora = .init(rank: 3, alpha: 2.5, dropout: 0.125)
    mixture.mixture?.lora = .init(rank: 2, alpha: 7, dropout: 0.25, isRankStabilized: true)
    mixture.mixture?.balanceCoefficient = 0.03
    mixture.mixture?.hasBalanceLoss = false
    mixture.mixture?.routerInitializerRange = 0.5
    var single = SmallModel.adapter(experts: 1, topK: 1)
    single.lora = .init(rank: 1, alpha: 1)
    single.lora.initialization = .gaussian
    single.mixture?.lora = single.lora
    var plain = SmallModel.adapter(targets: ["v_proj", "up_proj"], dropout: 0.1)
    plain.mixture = nil
    return ["all keys": mixture, "one expert, gaussian": single, "another rank in the experts": SmallModel.adapter(), "plain": plain]
  }()

  @Test(arguments: adapters.keys.sorted()) func whatWasWrittenComesBackBitForBit(_ name: String) throws {
    let adapter = try #require(Self.adapters[name])
    let backend = CPUFloat(threads: 1)
    let written = try SmallModel.decoder(adapter, on: backend)
    try withFolder { folder in
      try AdapterFolder.write(written.adapters[0], to: folder, baseModel: "some/model", on: backend)
      let files = try FileManager.default.contentsOfDirectory(atPath: folder)
      #expect(files.sorted() == ["adapter_config.json", "adapter_model.safetensors"], "a temporary file was left")
      let configuration = try AdapterConfiguration(contentsOf: folder + "/adapter_config.json")
      var expected = adapter
      expected.mixture?.activation = .silu  // what the model has
      #expect(configuration == expected)
      let json = try JSON(contentsOf: folder + "/adapter_config.json")
      #expect(json["base_model_name_or_path"]?.stringValue == "some/model")
      #expect(json["peft_type"]?.stringValue == (adapter.mixture == nil ? "LORA" : "MIXLORA"))
      #expect((json["expert_lora"] != nil) == (adapter.mixture.map { $0.lora != adapter.lora } ?? false))
      if adapter.mixture != nil {
        for key in ["routing_strategy", "num_experts", "top_k", "router_loss", "router_aux_loss_coef", "router_init_range"] {
          #expect(json[key] != nil, "\(key) was dropped")
        }
      }
      let weights = CheckpointWeights<CPUFloat>(try AdapterFolder.tensors(in: folder), on: backend)
      let read = try Decoder(
        SmallModel.configuration, weights: EditedWeights(seed: 7, on: backend), adapters: [AdapterSource(configuration, weights)],
        on: backend)
      try weights.finish()
      #expect(read.trainedTensors.map(\.name) == written.trainedTensors.map(\.name))
      for (one, other) in zip(read.trainedTensors, written.trainedTensors) {
        let (a, b) = (one.view(of: one.parameter.value), other.view(of: other.parameter.value))
        #expect(a.shape == b.shape)
        #expect(try backend.download(a).map(\.bitPattern) == backend.download(b).map(\.bitPattern), "\(one.name)")
      }
      let file = try Safetensors(path: folder + "/adapter_model.safetensors")
      #expect(file.entries.allSatisfy { $0.elementType == .float32 })
      #expect(Set(file.entries.map(\.name)) == Set(written.trainedTensors.map(\.name)))
    }
  }

  /// The base is trained too, but an adapter's folder holds the adapter.
  @Test func baseTensorsStayOut() throws {
    let backend = CPUDouble(threads: 1)
    let decoder = try SmallModel.decoder(SmallModel.adapter(), trainsBase: true, on: backend)
    try withFolder { folder in
      try AdapterFolder.write(decoder.adapters[0], to: folder, baseModel: nil, on: backend)
      let names = try Safetensors(path: folder + "/adapter_model.safetensors").entries.map(\.name)
      #expect(names.count == 3 * (1 + 4 * 2 + 3 * 5 * 2) && names.allSatisfy { $0.hasPrefix("mixlora.layers.") })
      #expect(try JSON(contentsOf: folder + "/adapter_config.json")["base_model_name_or_path"] == .null)
    }
  }
}

/// What a new adapter holds.
@Suite struct InitialValueTests {
  /// Wide enough for statistics: C 96, F 320, six experts.
  private func decoder<B: Backend>(_ initialization: AdapterConfiguration.Initialization, seed: UInt64 = 5, on backend: B) throws
    -> Decoder<B>
  {
    let configuration = try DecoderConfiguration(
      [
        "model_type": "llama", "hidden_size": 96, "intermediate_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 7,
      ], file: "wide model")
    var adapter = SmallModel.adapter(experts: 6)
    adapter.lora = .init(rank: 4, alpha: 8)
    adapter.lora.initialization = initialization
    adapter.mixture?.lora = adapter.lora
    let weights = InitialWeights(seed: seed, on: backend)
    return try Decoder(configuration, weights: weights, adapters: [AdapterSource(adapter, weights)], on: backend)
  }

  private func values<B: Backend>(_ decoder: Decoder<B>, on backend: B) throws -> [(name: String, values: [Double], inputs: Int)] {
    try decoder.trainedTensors.map { tensor in
      let part = tensor.view(of: tensor.parameter.value)
      return (tensor.name, try backend.download(part).map { Double($0) }, part.columnCount)
    }
  }

  /// Mean and variance within five standard errors; `fourth` is the fourth moment over the squared variance (3 normal, 9/5 uniform).
  private func expectMoments(_ x: [Double], deviation: Double, fourth: Double, _ name: String) {
    let n = Double(x.count)
    let mean = x.reduce(0, +) / n
    let variance = x.reduce(0) { $0 + $1 * $1 } / n
    #expect(abs(mean) <= 5 * deviation / n.squareRoot(), "\(name): mean \(mean)")
    let square = deviation * deviation
    #expect(abs(variance - square) <= 5 * square * ((fourth - 1) / n).squareRoot(), "\(name): variance \(variance), expected \(square)")
  }

  @Test func aIsUniformBZeroAndTheGateNormal() throws {
    let backend = CPUDouble(threads: 2)
    var gates: [Double] = []
    for (name, x, inputs) in try values(decoder(.kaiming, on: backend), on: backend) {
      if name.hasSuffix("lora_B.weight") {
        #expect(x.allSatisfy { $0 == 0 }, "\(name)")
      } else if name.hasSuffix("lora_A.weight") {
        let bound = 1 / Double(inputs).squareRoot()
        #expect(x.allSatisfy { abs($0) <= bound } && x.contains { abs($0) > 0.9 * bound }, "\(name)")
        #expect(Set(x).count > x.count * 9 / 10, "\(name) repeats itself")
        expectMoments(x, deviation: bound / 3.0.squareRoot(), fourth: 1.8, name)
      } else {
        gates += x
        expectMoments(x, deviation: 0.02, fourth: 3, name)
      }
    }
    #expect(gates.count == 2 * 6 * 96)
  }

  @Test func aGaussianAHasDeviationOneOverTheRank() throws {
    let backend = CPUDouble(threads: 1)
    let all = try values(decoder(.gaussian, on: backend), on: backend)
    for (name, x, _) in all where name.hasSuffix("lora_A.weight") { expectMoments(x, deviation: 0.25, fourth: 3, name) }
    #expect(all.contains { $0.name.hasSuffix("lora_A.weight") && $0.values.contains { abs($0) > 0.6 } }, "a normal has tails")
    #expect(all.filter { $0.name.hasSuffix("lora_B.weight") }.allSatisfy { $0.values.allSatisfy { $0 == 0 } })
  }

  @Test func noTwoTensorsAreAlikeAndAnotherSeedGivesOthers() throws {
    let backend = CPUDouble(threads: 1)
    let all = try values(decoder(.kaiming, on: backend), on: backend)
    let drawn = all.filter { !$0.name.hasSuffix("lora_B.weight") }
    #expect(Set(drawn.map { $0.values[0] / (1 / Double($0.inputs).squareRoot()) }).count == drawn.count)
    let others = try values(decoder(.kaiming, seed: 6, on: backend), on: backend)
    for (one, other) in zip(all, others) where !one.name.hasSuffix("lora_B.weight") { #expect(one.values[0] != other.values[0]) }
  }

  /// A value is a function of seed and name: precision only rounds it, and nobody's turn matters.
  @Test(arguments: [InitialValue.kaimingUniform(inputs: 50), .random(.normal(deviation: 0.25)), .constant(1)])
  func theNumbersDependNeitherOnPrecisionNorOnOrderNorOnThreads(_ initial: InitialValue) throws {
    let names = ["a", "b", "mixlora.layers.0.mlp.moe_gate.weight"]
    func numbers<B: Backend>(_ order: [String], on backend: B) throws -> [String: [Double]] {
      let weights = InitialWeights(seed: 9, on: backend)
      return try Dictionary(
        uniqueKeysWithValues: order.map { ($0, try backend.download(weights.tensor($0, Shape(31, 50), initial)).map { Double($0) }) })
    }
    let exact = try numbers(names, on: CPUDouble(threads: 1))
    #expect(try numbers(names.reversed(), on: CPUDouble(threads: 3)) == exact)
    let single = try numbers(names.reversed(), on: CPUFloat(threads: 2))
    for name in names {
      let (x, y) = (try #require(exact[name]), try #require(single[name]))
      #expect(x.count == 31 * 50 && y.count == x.count)
      // float32 forms logarithm, root and cosine itself: a few of its roundings on numbers below five deviations.
      for i in x.indices { #expect(abs(y[i] - x[i]) <= 1e-6, "\(name), element \(i): \(y[i]), \(x[i])") }
    }
  }
}
