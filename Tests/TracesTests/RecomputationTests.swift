import CPUBackend
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces

/// Caches formed again in backward: less memory, and no other bit anywhere.
@Suite struct RecomputationTests {
  let backend = CPUDouble(threads: 2, isPoisoned: true)

  /// Everything of a pass: results, gradients, and all that a recorder saw.
  private func pass(_ decoder: Decoder<CPUDouble>, recomputes: Recomputation, hooks: [any Hook<CPUDouble>] = []) throws
    -> [String: [Double]]
  {
    let recorder = Recorder(on: backend) { _ in true }
    let tensors = try SmallModel.trainingTensors(decoder, hooks: hooks + [recorder], recomputes: recomputes, on: backend)
    var all: [String: [Double]] = [:]
    for tensor in tensors { all[tensor.name] = tensor.values }
    for (name, record) in recorder.records { all["record." + name] = record.values }
    for (name, choice) in recorder.choices { all["record." + name] = choice.map { Double($0) } }
    return all
  }

  @Test(arguments: ExpertEvaluation.allCases, [0, 0.3])
  func formedAgainTheCachesGiveTheSameBits(_ evaluation: ExpertEvaluation, dropout: Double) throws {
    let decoder = try SmallModel.decoder(dropout: dropout, evaluation: evaluation, on: backend)
    let kept = try pass(decoder, recomputes: .none)
    #expect(kept.count > 250)
    #expect(try pass(decoder, recomputes: .all) == kept)
  }

  @Test(arguments: ["plain LoRA", "base"]) func soTheyDoWithoutExperts(_ model: String) throws {
    var adapter = SmallModel.adapter(dropout: 0.3)
    adapter.mixture = nil
    let decoder = try model == "base" ? SmallModel.baseDecoder(on: backend) : SmallModel.decoder(adapter, on: backend)
    #expect(try pass(decoder, recomputes: .all) == pass(decoder, recomputes: .none))
  }

  /// Families whose blocks have other norms, windows and biases, in single precision too, where the experts are one operation.
  @Test(arguments: PeerCase.all, ExpertEvaluation.allCases)
  func soTheyDoInEveryFamily(_ peer: PeerCase, _ evaluation: ExpertEvaluation) throws {
    func gradients<B: Backend>(_ recomputes: Recomputation, trainsBase: Bool, on backend: B) throws -> [[B.Scalar]] {
      let decoder = try peer.decoder(evaluation: evaluation, trainsBase: trainsBase, on: backend)
      let run = Run(backend, training: TrainingPass(key: RandomKey(seed: 3), step: 2))
      _ = try decoder.gradients(of: PackedBatch(peer.batch().sequences, on: backend), run, recomputes: recomputes)
      return try decoder.parameters.map { try backend.download($0.gradient) }
    }
    let single = CPUFloat(threads: 2, isPoisoned: true)
    for trainsBase in peer.adapter == nil ? [true] : [false, true] {
      let kept = try gradients(.none, trainsBase: trainsBase, on: backend)
      #expect(try !kept.isEmpty && gradients(.all, trainsBase: trainsBase, on: backend) == kept)
      #expect(try gradients(.all, trainsBase: trainsBase, on: single) == gradients(.none, trainsBase: trainsBase, on: single))
    }
  }

  /// In backward replaced values are put in again where the block is formed again: each point of the blocks in its turn.
  @Test(arguments: ["mixture", "plain LoRA", "base", "mixture and base"], ExpertEvaluation.allCases)
  func aReplacedValueIsReplacedThereToo(_ model: String, _ evaluation: ExpertEvaluation) throws {
    var adapter = SmallModel.adapter(dropout: 0.3)
    if model == "plain LoRA" { adapter.mixture = nil }
    let decoder =
      try model == "base"
      ? SmallModel.baseDecoder(on: backend)
      : SmallModel.decoder(adapter, evaluation: evaluation, trainsBase: model == "mixture and base", on: backend)
    func pass(_ recomputes: Recomputation, _ hooks: [any Hook<CPUDouble>]) throws -> [[Double]] {
      try SmallModel.trainingTensors(decoder, hooks: hooks, recomputes: recomputes, on: backend).map(\.values)
    }
    let recorder = Recorder(on: backend) { _ in true }
    let plain = try pass(.none, [recorder])
    var changed = 0
    for (path, record) in recorder.records where path.hasPrefix("model.layers.") && record.shape.rows > 0 {
      let values = backend.upload(record.values.map { 0.5 * $0 + 0.01 }, record.shape)
      let replacement = Replacement<CPUDouble>(values: [path: values])
      let kept = try pass(.none, [replacement])
      #expect(try pass(.all, [replacement]) == kept, "\(path)")
      if kept != plain { changed += 1 }
    }
    #expect(changed > 50, "so many replacements changed anything")
  }

  @Test(arguments: ExpertEvaluation.allCases) func aReplacedChoiceIsReplacedThereToo(_ evaluation: ExpertEvaluation) throws {
    let decoder = try SmallModel.decoder(dropout: 0.3, evaluation: evaluation, on: backend)
    let choice = backend.upload((0..<SmallModel.tokens).flatMap { [Int32($0 % 5), Int32(($0 + 2) % 5)] })
    let replacement = Replacement<CPUDouble>(choices: ["model.layers.0.mlp.moe_gate.choice": choice])
    let kept = try pass(decoder, recomputes: .none, hooks: [replacement])
    #expect(try kept["hidden"] != pass(decoder, recomputes: .none)["hidden"], "the replacement changed nothing")
    #expect(try pass(decoder, recomputes: .all, hooks: [replacement]) == kept)
  }

  /// A hook that counts: it is called once a point and direction, formed again or not.
  @Test(arguments: ExpertEvaluation.allCases)
  func noPointIsPassedTwice(_ evaluation: ExpertEvaluation) throws {
    final class Counting: Hook {
      typealias B = CPUDouble
      var visits: [String: Int] = [:]
      func listens(to path: String) -> Bool { true }
      func visit(_ value: inout Tensor<CPUDouble>, at point: HookPoint) { visits[point.description, default: 0] += 1 }
      func visit(choice: inout Indices<CPUDouble>, at point: HookPoint) { visits[point.description, default: 0] += 1 }
    }
    let decoder = try SmallModel.decoder(evaluation: evaluation, on: backend)
    let counting = Counting()
    _ = try SmallModel.trainingTensors(decoder, hooks: [counting], recomputes: .all, on: backend)
    #expect(counting.visits.count > 150)
    #expect(counting.visits.allSatisfy { $0.value == 1 })
  }

  /// What a block more holds under recomputation: its input, the numbers of rank r of its branches, and its routing. One tensor of F
  /// or H·D channels beside them would be noticed.
  @Test func aBlockHoldsItsInputAndWhatIsThin() throws {
    func bytes(layers: Int) throws -> Int {
      let backend = CPUFloat(threads: 1)
      var configuration = try SmallModel.configuration
      (configuration.layers, configuration.attention.windows) = (layers, Array(repeating: nil, count: layers))
      let weights = RandomWeights(seed: 7, on: backend)
      let decoder = try Decoder(configuration, weights: weights, adapters: [AdapterSource(SmallModel.adapter(), weights)], on: backend)
      let batch = PackedBatch(SmallModel.sequences, on: backend)
      let before = backend.counters
      _ = try decoder.gradients(of: batch, Run(backend), recomputes: .all)
      return backend.counters.poolBytes - before.poolBytes
    }
    func block(_ rows: Int, _ columns: Int) -> Int {
      FreeBlocks<Int>.blockBytes(MemoryLayout<Float>.size * rows * columns)
    }
    let (tokens, rows) = (SmallModel.tokens, SmallModel.tokens * 2)
    let thin = 4 * block(tokens, 3) + 3 * block(rows, 2)
    let routing = block(tokens, 5) + 5 * block(rows, 1) + 3 * block(5, 1)  // p, w and four plans of rows, offsets and counts
    // The least that one more block adds: some bring the first buffer of a size besides.
    let bytes = try (3...9).map { try bytes(layers: $0) }
    let held = try #require(zip(bytes.dropFirst(), bytes).map { $0 - $1 }.min())
    #expect(held > 0 && held <= block(tokens, 12) + thin + routing, "\(held) bytes")
  }
}
