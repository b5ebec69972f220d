import CPUBackend
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

  /// In backward the replaced values and decisions are put in again where the block is formed again.
  @Test(
    arguments: [
      "model.embed_tokens.output", "model.layers.0.output", "model.layers.0.self_attn.q_proj.output", "model.layers.1.self_attn.output",
      "model.layers.1.post_attention_layernorm.output", "model.layers.1.mlp.moe_gate.output", "model.layers.1.mlp.experts.2.hidden",
      "model.layers.1.mlp.experts.2.gate_proj.output", "model.layers.2.mlp.output", "model.layers.0.mlp.moe_gate.choice",
    ], ExpertEvaluation.allCases)
  func aReplacedValueIsReplacedThereToo(_ path: String, _ evaluation: ExpertEvaluation) throws {
    let decoder = try SmallModel.decoder(dropout: 0.3, evaluation: evaluation, on: backend)
    let plain = try pass(decoder, recomputes: .none)
    let replacement: Replacement<CPUDouble>
    if path.hasSuffix(".choice") {
      replacement = Replacement(choices: [path: backend.upload((0..<SmallModel.tokens).flatMap { [Int32($0 % 5), Int32(($0 + 2) % 5)] })])
    } else {
      let recorder = Recorder(on: backend) { $0 == path }
      _ = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
      let record = try #require(recorder.records[path])
      #expect(record.shape.rows > 0)
      replacement = Replacement(values: [path: backend.upload(record.values.map { 0.5 - $0 }, record.shape)])
    }
    let kept = try pass(decoder, recomputes: .none, hooks: [replacement])
    #expect(kept["hidden"] != plain["hidden"], "the replacement changed nothing")
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

  /// Of all blocks but the one whose backward runs, at least what has rows of C or F numbers is not there.
  @Test(arguments: ExpertEvaluation.allCases)
  func fewerBytesAreHeldAtTheWorstMoment(_ evaluation: ExpertEvaluation) throws {
    func bytes(recomputes: Recomputation) throws -> Int {
      let backend = CPUFloat(threads: 1)
      let decoder = try SmallModel.decoder(evaluation: evaluation, on: backend)
      let batch = PackedBatch(SmallModel.sequences, on: backend)
      let before = backend.counters
      _ = try decoder.gradients(of: batch, Run(backend), recomputes: recomputes)
      return backend.counters.poolBytes - before.poolBytes
    }
    let (kept, formedAgain) = (try bytes(recomputes: .none), try bytes(recomputes: .all))
    let form = try SmallModel.configuration
    let attention = 2 * (form.attention.heads + form.attention.keyValueHeads) * form.attention.headWidth  // q, o and k, v
    let wide = MemoryLayout<Float>.size * SmallModel.tokens * (attention + 2 * form.feedForward.width)
    #expect(kept - formedAgain >= (form.layers - 1) * wide, "\(formedAgain) bytes, \(kept) when all is kept, \(wide) wide a block")
  }
}
