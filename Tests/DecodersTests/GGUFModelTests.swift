import Checkpoints
import HostileCases
import Layers
import Tensors
import Testing

@testable import CPUBackend
@testable import Decoders

/// GGUF files that llama.cpp's own writer made (`Fixtures/gguf`), against what llama.cpp's Python decodes and a NumPy forward gives.
@Suite struct GGUFModelTests {
  static let folder =
    #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/") + "/Fixtures/gguf/"

  /// The elements of a fixture's tensor.
  private func values<T: BitwiseCopyable>(_ type: T.Type, _ file: String, _ name: String) throws -> [T] {
    let source = try Safetensors(path: Self.folder + file)
    return try source.withBytes(of: name) { bytes in
      stride(from: 0, to: bytes.count, by: MemoryLayout<T>.size).map { bytes.loadUnaligned(fromByteOffset: $0, as: T.self) }
    }
  }

  /// NaN as one value, everything else by its bits.
  private func bits(_ x: Float) -> UInt32 { x.isNaN ? Float.nan.bitPattern : x.bitPattern }

  @Test(arguments: ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
  func everyFormatDecodesToTheBitsOfGGUFsPython(name: String) throws {
    let file = try GGUF(path: Self.folder + "blocks.gguf")
    let expected = try values(Float.self, "blocks.safetensors", name).map(bits)
    let entry = try #require(file.entry(name))
    let format = try #require(WeightFormat(entry.elementType))
    let shape = Shape(entry.shape[0], entry.shape[1])
    let (single, double) = (CPUFloat(threads: 2), CPUDouble(threads: 2))
    try file.withBytes(of: name) { (bytes: UnsafeRawBufferPointer) throws in
      #expect(try single.download(single.upload(bytes, format, shape)).map(bits) == expected)
      #expect(try double.download(double.upload(bytes, format, shape)).map { bits(Float($0)) } == expected)
      let (ids, table) = (single.upload((0..<8).map { Int32($0) }), single.freeze(bytes, format, shape))
      #expect(try single.download(single.embedding(ids, .frozen(table, transposed: false))).map(bits) == expected)
    }
    #expect(Set(expected).count > 100)
  }

  private func logits<B: Backend>(_ decoder: Decoder<B>, _ ids: [[Int32]], on backend: B) throws -> [Double] {
    let batch = PackedBatch(ids.map { PackedSequence(ids: $0, labels: $0.map { _ in nil }) }, on: backend)
    let run = Run(backend)
    return try backend.download(decoder.logits(decoder.forward(batch, run), run)).map { Double($0) }
  }

  private func batch() throws -> [[Int32]] {
    let ids = try values(Int64.self, "batch.safetensors", "input_ids").map { Int32($0) }
    return [Array(ids[..<6]), Array(ids[6...])]
  }

  /// ‖a − b‖ / ‖b‖; infinite for lists of different lengths.
  private func distance(_ a: [Double], _ b: [Double]) -> Double {
    guard a.count == b.count, !a.isEmpty else { return .infinity }
    let (difference, norm) = a.indices.reduce((0.0, 0.0)) { ($0.0 + (a[$1] - b[$1]) * (a[$1] - b[$1]), $0.1 + b[$1] * b[$1]) }
    return (difference / norm).squareRoot()
  }

  private func decoder<B: Backend>(_ kind: String, on backend: B) throws -> Decoder<B> {
    try ModelFolder.load(
      Self.folder + kind + ".gguf", on: backend)
  }

  /// Both sequences at once are 12 rows, which expand the matrices; one is 6, which read the blocks directly.
  @Test(arguments: ["llama", "qwen2", "k-quants"], [1, 2, 3])
  func logitsEqualTheDefinitionInFloat64(kind: String, threads: Int) throws {
    let expected = try values(Double.self, kind + ".safetensors", "logits")
    let backend = CPUDouble(threads: threads, isPoisoned: true)
    let decoder = try decoder(kind, on: backend)
    let together = try logits(decoder, batch(), on: backend)
    #expect(distance(together, expected) <= 1e-12)
    let apart = try batch().flatMap { try logits(decoder, [$0], on: backend) }
    #expect(distance(apart, expected) <= 1e-12)
    backend.core.scratch = nil
    let room = 3 * decoder.configuration.channels + 4  // three rows at a time
    backend.core.scratchCount = room
    let inBlocks = try logits(decoder, batch(), on: backend)
    #expect(distance(inBlocks, expected) <= 1e-12)
    #expect((backend.core.scratch as? Buffer<Double>)?.count ?? .max <= room)
  }

  /// Measured 2.2e-7 (llama) and 3.6e-7 (qwen2) on an AVX2 machine, times a margin of more than ten.
  @Test(arguments: ["llama", "qwen2", "k-quants"])
  func logitsInFloat32AgreeToSinglePrecision(kind: String) throws {
    let expected = try values(Double.self, kind + ".safetensors", "logits")
    let backend = CPUFloat(threads: 2, isPoisoned: true)
    let decoder = try decoder(kind, on: backend)
    #expect(try distance(logits(decoder, batch(), on: backend), expected) <= 5e-6)
    #expect(try distance(batch().flatMap { try logits(decoder, [$0], on: backend) }, expected) <= 5e-6)
  }

  /// The layout of the file with the rows of q and k left as llama.cpp has them.
  private struct Unpermuted: TensorLayout {
    let layout: GGUFLayout
    func name(_ modelName: String) -> String { layout.name(modelName) }
    func rowOrder(_ modelName: String, rows: Int) -> [Int]? { nil }
    func mayGoUnread(_ name: String) -> Bool { layout.mayGoUnread(name) }
  }

  @Test func withoutMovingTheRowsOfQAndKBackOrWithoutTheDivisorsTheLogitsAreWrong() throws {
    let expected = try values(Double.self, "llama.safetensors", "logits")
    let backend = CPUDouble(threads: 1)
    let file = try GGUF(path: Self.folder + "llama.gguf")
    var configuration = try DecoderConfiguration(file)
    func distance(_ layout: any TensorLayout) throws -> Double {
      let decoder = try Decoder(configuration, weights: CheckpointWeights(file, layout, on: backend), on: backend)
      return try self.distance(logits(decoder, batch(), on: backend), expected)
    }
    let layout = GGUFLayout(configuration)
    #expect(try distance(layout) <= 1e-12)
    #expect(try distance(Unpermuted(layout: layout)) > 0.01)
    configuration.rotary.divisors = nil
    #expect(try distance(layout) > 0.01)
  }

  @Test func rowsMoveFromPairsOfNeighboursToPairsOfHalvesInLlamaAlone() throws {
    let file = try GGUF(path: Self.folder + "llama.gguf")
    let layout = GGUFLayout(try DecoderConfiguration(file))
    let q = "model.layers.1.self_attn.q_proj.weight"
    #expect(layout.rowOrder(q, rows: 16) == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15])
    #expect(layout.rowOrder("model.layers.1.self_attn.k_proj.bias", rows: 8) == [0, 2, 4, 6, 1, 3, 5, 7])
    #expect(layout.rowOrder("model.layers.1.self_attn.v_proj.weight", rows: 16) == nil)
    #expect(layout.name(q) == "blk.1.attn_q.weight" && layout.name("lm_head.weight") == "output.weight")
    let other = try GGUF(path: Self.folder + "qwen2.gguf")
    #expect(GGUFLayout(try DecoderConfiguration(other)).rowOrder(q, rows: 16) == nil)
  }

  @Test func theConfigurationIsReadFromMetadataAndTensors() throws {
    let llama = try ModelFolder.configuration(Self.folder + "llama.gguf")
    #expect(
      llama.layers == 2 && llama.channels == 32 && llama.feedForward.width == 64 && llama.attention.heads == 4
        && llama.attention.keyValueHeads == 2)
    #expect(
      llama.attention.headWidth == 8 && llama.vocabulary == 40 && llama.norm.epsilon == Double(Float(1e-5)) && llama.rotary.base == 10_000)
    #expect(llama.head.isTied && !llama.attention.inputBias && llama.rotary.divisors == [1, 1.5, 4, 8] && llama.unknownKeys.isEmpty)
    let qwen2 = try ModelFolder.configuration(Self.folder + "qwen2.gguf")
    #expect(!qwen2.head.isTied && qwen2.attention.inputBias && !qwen2.attention.outputBias && qwen2.rotary.divisors == nil)
  }

  @Test(arguments: ["gemma", "gemma2", "phi3"]) func aFamilyWhoseFilesAreNotReadIsRefusedByItsName(_ name: String) throws {
    let file = HostileCases.folder + "/gguf-model/architecture-\(name).gguf"
    let error = #expect(throws: CheckpointError.self) { _ = try ModelFolder.configuration(file) }
    #expect(error?.place == .key("general.architecture") && error?.found.contains(name) == true)
  }

  /// As llama.cpp reads the keys: a factor alone is linear, and yarn's has `attn_factor` on top of the paper's.
  @Test func scalingsOfTheMetadataAreTransformersOwn() throws {
    func scaling(_ name: String) throws -> RotaryScaling? {
      try ModelFolder.configuration(HostileCases.folder + "/gguf-model/rope-scaling-\(name).gguf").rotary.scaling
    }
    #expect(try scaling("linear-0") == nil)
    for name in ["linear-1", "factor", "old-key"] { #expect(try scaling(name) == .linear(factor: 4)) }
    #expect(try scaling("yarn-2") == .yarn(.init(factor: 4, originalPositions: 64)))
    var yarn = RotaryScaling.YaRN(factor: 4, originalPositions: 16)
    yarn.fast = 8
    yarn.magnitude = 0.5 * 1.138629436111989
    #expect(try scaling("yarn-4") == .yarn(yarn))
    var json = JSON.Object()
    for (key, value) in [("model_type", "llama"), ("rope_scaling", RotaryScaling.yarn(yarn).json)] { json[key] = value }
    #expect(try DecoderConfiguration(.object(json), file: "config.json").rotary.scaling == .yarn(yarn), "and config.json can say it")
  }

  /// The same values, frozen as dense tensors.
  private struct Dense<B: Backend>: WeightSource {
    let base: CheckpointWeights<B>
    let backend: B
    func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Tensor<B> { try base.tensor(name, shape, initial) }
    func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> B.FrozenMatrix {
      backend.freeze(try base.tensor(name, shape, initial))
    }
  }

  @Test func anAdapterOnEncodedWeightsHasTheLossAndGradientsOfTheDecodedOnes() throws {
    let backend = CPUDouble(threads: 2)
    let file = try GGUF(path: Self.folder + "llama.gguf")
    let configuration = try DecoderConfiguration(file)
    let weights = CheckpointWeights(file, GGUFLayout(configuration), on: backend)
    let results = try [weights as any WeightSource<CPUDouble>, Dense(base: weights, backend: backend)].map {
      try adapted(configuration, $0, backend)
    }
    for (encoded, dense) in zip(results[0], results[1]) { #expect(distance(encoded, dense) <= 1e-12) }
    #expect(results[0].count == results[1].count && results[0].count > 10)
  }

  /// The loss and all gradients of a step.
  private func adapted(_ configuration: DecoderConfiguration, _ weights: any WeightSource<CPUDouble>, _ backend: CPUDouble) throws
    -> [[Double]]
  {
    let lora = AdapterConfiguration.LoRA(rank: 2, alpha: 4)
    let settings = AdapterConfiguration(lora: lora, mixture: .init(experts: 3, expertsPerToken: 2, lora: lora))
    let decoder = try Decoder(
      configuration, weights: weights, adapters: [AdapterSource(settings, InitialWeights(seed: 1, on: backend))], on: backend)
    let key = RandomKey(seed: 2)  // B is zero in a new adapter, and then A has no gradient
    for parameter in decoder.parameters {
      backend.add(
        1, backend.random(parameter.value.shape, .normal(deviation: 0.1), key.derived(parameter.name, "test")), into: &parameter.value)
    }
    let batch = PackedBatch(try batch().map { PackedSequence(ids: $0, labels: $0.dropFirst().map { $0 } + [nil]) }, on: backend)
    let losses = try decoder.gradients(of: batch, Run(backend))
    return try [backend.download(losses[0].crossEntropy)] + decoder.parameters.map { try backend.download($0.gradient) }
  }

  @Test func aStepOnAQuantizedModelAllocatesNothingAndCopiesNothing() throws {
    let backend = CPUFloat(threads: 2)
    let lora = AdapterConfiguration.LoRA(rank: 2, alpha: 4, dropout: 0.1)
    let settings = AdapterConfiguration(lora: lora, mixture: .init(experts: 3, expertsPerToken: 3, lora: lora))
    let decoder = try ModelFolder(Self.folder + "qwen2.gguf").decoder(
      adapter: .new(settings, seed: 1), on: backend)
    let batch = PackedBatch(try batch().map { PackedSequence(ids: $0, labels: $0.dropFirst().map { $0 } + [nil]) }, on: backend)
    var cost = Counters()
    for number in 1...3 {
      let before = backend.counters
      _ = try decoder.gradients(of: batch, Run(backend, training: TrainingPass(key: RandomKey(seed: 1), step: number)))
      cost = backend.counters - before
    }
    cost.operations = 0
    #expect(cost == Counters())
  }

  @Test(arguments: ["llama", "qwen2", "k-quants"]) func aWrittenConfigurationSaysWhatTheFileSaid(kind: String) throws {
    var said = try DecoderConfiguration(GGUF(path: Self.folder + kind + ".gguf"))
    said.rotary.divisors = nil
    let json = try said.json(file: "m.gguf", beginToken: 1, endTokens: [2])
    var written = try DecoderConfiguration(JSON(parsing: json.serialized(), file: "config.json"), file: "config.json")
    #expect(json["model_type"]?.stringValue == said.familyName)
    #expect(json["eos_token_id"] == 2)
    #expect(try said.json(file: "m.gguf", beginToken: 1, endTokens: [2, 5])["eos_token_id"] == [2, 5], "each ends a text")
    #expect(written.unknownKeys.isEmpty && written.attention.windows.allSatisfy { $0 == nil })
    written.unknownKeys = said.unknownKeys
    #expect(written == said)
  }

  @Test func whatAConfigurationCannotSayIsNotWritten() throws {
    var configuration = try DecoderConfiguration(GGUF(path: Self.folder + "qwen2.gguf"))
    configuration.rotary.divisors = [1, 2]
    #expect(throws: CheckpointError.self) { try configuration.json(file: "m", beginToken: nil, endTokens: []) }
    configuration.rotary.divisors = nil
    configuration.feedForward.hasBias = true
    #expect(throws: CheckpointError.self) { try configuration.json(file: "m", beginToken: nil, endTokens: []) }
  }
}
