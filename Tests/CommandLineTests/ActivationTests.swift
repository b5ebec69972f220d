import Checkpoints
import Conformance
import Foundation
import TestModels
import Testing
import Traces

/// `trace --activations` and what else the command line chooses: names and shapes of the contract.
@Suite struct ActivationTests {
  /// Runs a peer case and reads what it wrote.
  private func trace(_ peer: PeerCase, _ extra: [String]) throws -> (types: Set<ElementType>, tensors: [String: Trace<Double>.NamedTensor])
  {
    let scratch = try Scratch()
    let out = scratch.url.path + "/out.safetensors"
    let adapter = peer.adapter.map { ["--adapter", $0] } ?? []
    let result = try Program.run(
      ["trace", "--model", peer.model, "--batch", peer.batchFile, "--out", out, "--threads", "1"] + adapter + extra)
    #expect(result.code == 0, "\(result.error)")
    #expect(result.output.isEmpty)
    let tensors = try Fixture.tensors(out)
    return (
      Set(try Safetensors(path: out).entries.map(\.elementType)), Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0) })
    )
  }

  private func peer(_ name: String) throws -> PeerCase { try #require(PeerCase.all.first { $0.name == name }) }

  /// llama-topk: B 3, T 9, C 16, F 24, 4 heads over 2 of width 4, E 4, K 2, two layers.
  private func contract(experts: Int, evaluation: String) -> [String: Int] {
    var widths = ["model.embed_tokens": 16, "model.norm": 16]
    for layer in (0..<2).map({ "model.layers.\($0)" }) {
      for (name, width) in [
        ("", 16), (".input_layernorm", 16), (".self_attn.q_proj", 16), (".self_attn.k_proj", 8), (".self_attn.v_proj", 8),
        (".self_attn.o_proj", 16), (".self_attn", 16), (".post_attention_layernorm", 16), (".mlp", 16),
      ] { widths[layer + name] = width }
      if experts > 0 { widths[layer + ".mlp.moe_gate"] = experts }
      if experts > 0, evaluation != "perExpert" { (widths[layer + ".mlp.gate_proj.base"], widths[layer + ".mlp.up_proj.base"]) = (24, 24) }
      if experts == 0 {
        (widths[layer + ".mlp.gate_proj"], widths[layer + ".mlp.up_proj"], widths[layer + ".mlp.down_proj"]) = (24, 24, 16)
      }
    }
    return widths
  }

  @Test(arguments: ["sharedBase", "sharedGateUp", "perExpert"], ["float32", "float64"])
  func activationsHaveTheNamesAndShapesOfTheContractAndTheirGradients(_ evaluation: String, _ dtype: String) throws {
    let found = try trace(
      peer("llama-topk"), ["--activations", "--backward", "--evaluation", evaluation, "--dtype", dtype])
    #expect(found.types == [dtype == "float32" ? .float32 : .float64])
    for (path, width) in contract(experts: 4, evaluation: evaluation) {
      for name in [path + ".output", "grad." + path + ".output"] {
        let tensor = try #require(found.tensors[name], "\(name) is missing")
        #expect(tensor.shape == [3, 9, width], "\(name): \(tensor.shape)")
        // Row 1 ends with three columns of padding, row 2 with six.
        for (b, t) in [(1, 6), (1, 8), (2, 3), (2, 8)] {
          #expect(tensor.values[(b * 9 + t) * width..<(b * 9 + t + 1) * width].allSatisfy { $0 == 0 }, "\(name) at padding")
        }
        #expect(tensor.values[0..<9 * width].contains { $0 != 0 }, "\(name) is zero in row 0")
      }
    }
    let isShared = evaluation != "perExpert"
    #expect((found.tensors["model.layers.0.mlp.gate_proj.base.output"] != nil) == isShared)
    for layer in 0..<2 {
      let module = "model.layers.\(layer).mlp"
      let choice = try #require(found.tensors["\(module).moe_gate.choice"])
      #expect(choice.shape == [3, 9, 2])
      var pairs = 0
      for e in 0..<4 {
        let tokens = try #require(found.tensors["\(module).experts.\(e).tokens"]).values.map { Int($0) }
        pairs += tokens.count
        #expect(tokens == tokens.sorted() && tokens.allSatisfy { choice.values[$0 * 2..<$0 * 2 + 2].contains(Double(e)) })
        var parts = [("gate_proj.output", 24), ("up_proj.output", 24), ("hidden", 24)]
        if evaluation != "sharedBase" { parts.append(("down_proj.output", 16)) }
        for (part, width) in parts {
          for name in ["\(module).experts.\(e).\(part)", "grad.\(module).experts.\(e).\(part)"] {
            #expect(found.tensors[name]?.shape == [tokens.count, width], "\(name)")
          }
        }
      }
      #expect(pairs == (9 + 6 + 3) * 2, "every real token has two experts")
    }
  }

  /// The rows really are those tokens': h = silu(a) ⊙ c row by row, and y = W2 Σ w h … by the logits that follow.
  @Test func anExpertsRowsBelongToItsTokens() throws {
    let found = try trace(peer("llama-topk"), ["--activations", "model.layers.1.mlp*", "--evaluation", "perExpert", "--dtype", "float64"])
    #expect(found.tensors.keys.allSatisfy { $0.hasPrefix("model.layers.1.mlp") || !$0.hasPrefix("model.") })
    let (choice, logits) = (
      try #require(found.tensors["model.layers.1.mlp.moe_gate.choice"]), try #require(found.tensors["model.layers.1.mlp.moe_gate.output"])
    )
    var y = [Double](repeating: 0, count: 3 * 9 * 16)
    for e in 0..<4 {
      let module = "model.layers.1.mlp.experts.\(e)"
      let tokens = try #require(found.tensors["\(module).tokens"]).values.map { Int($0) }
      let (a, c) = (try #require(found.tensors["\(module).gate_proj.output"]), try #require(found.tensors["\(module).up_proj.output"]))
      let h = try #require(found.tensors["\(module).hidden"])
      for i in h.values.indices {
        let expected = a.values[i] / (1 + exp(-a.values[i])) * c.values[i]
        #expect(abs(h.values[i] - expected) <= 1e-13)
      }
      let output = try #require(found.tensors["\(module).down_proj.output"]).values
      for (row, token) in tokens.enumerated() {
        let chosen = choice.values[token * 2..<token * 2 + 2].map { exp(logits.values[token * 4 + Int($0)]) }
        let weight = exp(logits.values[token * 4 + e]) / chosen.reduce(0, +)
        for j in 0..<16 { y[token * 16 + j] += weight * output[row * 16 + j] }
      }
    }
    let block = try #require(found.tensors["model.layers.1.mlp.output"]).values
    #expect(block.count == y.count && zip(block, y).allSatisfy { abs($0 - $1) <= 1e-13 })
  }

  @Test func withoutBackwardThereAreNoGradientsAndAPatternChoosesActivations() throws {
    let forward = try trace(peer("llama-topk"), ["--activations"])
    #expect(forward.tensors.keys.allSatisfy { !$0.hasPrefix("grad.") })
    #expect(forward.tensors["model.norm.output"] != nil)
    let one = try trace(peer("llama-topk"), ["--activations", "model.layers.0.self_attn.?_proj.output", "--backward"])
    let activations = one.tensors.keys.filter { $0.hasPrefix("model.") || $0.hasPrefix("grad.model.") }
    let expected = ["q", "k", "v", "o"].map { "model.layers.0.self_attn.\($0)_proj.output" }
    #expect(Set(activations) == Set(expected + expected.map { "grad." + $0 }))
  }

  @Test(arguments: ["lora-llama", "llama-bias-base"]) func aModelWithoutExpertsHasItsFeedForwardsActivations(_ name: String) throws {
    let found = try trace(peer(name), ["--activations", "--backward", "--dtype", "float64"])
    let shape = try #require(found.tensors["logits"]).shape
    for (path, width) in contract(experts: 0, evaluation: "sharedBase") {
      #expect(found.tensors[path + ".output"]?.shape == [shape[0], shape[1], width], "\(path)")
      #expect(found.tensors["grad." + path + ".output"]?.shape == [shape[0], shape[1], width], "\(path)")
    }
    #expect(found.tensors.keys.allSatisfy { !$0.contains("experts") && !$0.contains("router_logits") })
    // Beside the activations it is the trace that PEFT's folder, or the bare model, must give.
    let expected = try Fixture.tensors(peer(name).float64).firstPass()
    let ours = expected.compactMap { found.tensors[$0.name] }
    #expect(ours.count == expected.count && ours.count > 10)
    #expect(Agreement(of: ours, with: expected).holds(to: 1e-12), "\(Agreement(of: ours, with: expected))")
  }

  /// Evaluation and recomputation change roundings at most, and a trace's steps too.
  @Test func everyEvaluationAndRecomputationGiveTheSameTrace() throws {
    let peer = try peer("llama-topk")
    let arguments = ["--backward", "--steps", "2", "--lr", "0.01", "--dtype", "float64"]
    let plain = try trace(peer, arguments).tensors
    #expect(plain.count > 80)
    for evaluation in ["sharedBase", "sharedGateUp", "perExpert"] {
      let kept = try trace(peer, arguments + ["--evaluation", evaluation]).tensors
      let agreement = Agreement(of: Array(kept.values), with: Array(plain.values))
      #expect(agreement.holds(to: 1e-10), "\(evaluation): \(agreement)")
      let formedAgain = try trace(peer, arguments + ["--evaluation", evaluation, "--recompute"]).tensors
      #expect(formedAgain.mapValues(\.values) == kept.mapValues(\.values), "\(evaluation)")
    }
  }

  @Test func theRouterLossIsChosenByName() throws {
    let peer = try peer("llama-topk")
    let expected = try Fixture.tensors(#require(peer.perLayerArgmax))
    let found = try trace(peer, ["--backward", "--dtype", "float64", "--router-loss", "perLayerArgmax"]).tensors
    let agreement = Agreement(of: expected.compactMap { found[$0.name] }, with: expected)
    #expect(agreement.holds(to: 1e-12), "\(agreement)")
    let pooled = try trace(peer, ["--dtype", "float64", "--router-loss", "pooledTopK"]).tensors
    #expect(pooled["aux_loss"]?.values != found["aux_loss"]?.values)
  }
}
