import CPUBackend
import Conformance
import Decoders
import Foundation
import Layers
import Tensors
import TestModels
import Testing
import Traces

/// Models whose results are known without computing them.
@Suite struct ClosedFormTests {
  let backend = CPUDouble(threads: 2, isPoisoned: true)

  private func value(_ tensors: [Trace<Double>.NamedTensor], _ name: String) throws -> [Double] {
    try #require(tensors.first { $0.name == name }, "\(name) is missing").values
  }

  private func isGate(_ name: String) -> Bool { name.contains("moe_gate") }

  // MARK: Balance loss

  /// A gate of zeros gives p = 1/E to everybody and, ties going to the lower index, every token to experts 0 … K−1:
  /// pooled F = 1 for those, P = 1/E, so coef · E · K · 1 · 1/E; by first choices F = 1 for expert 0 alone.
  @Test(arguments: [1, 2, 5], ExpertEvaluation.allCases)
  func aUniformRouterPaysTheCoefficientKTimesPooledAndOncePerLayer(_ k: Int, _ evaluation: ExpertEvaluation) throws {
    for (form, expected) in [(BalanceLossForm.pooledTopK, 0.02 * Double(k)), (.perLayerArgmax, 0.02)] {
      let decoder = try SmallModel.decoder(
        SmallModel.adapter(topK: k), evaluation: evaluation, balanceLoss: form,
        edit: { [isGate] name, original in isGate(name) ? try original(name).map { _ in 0 } : nil }, on: backend)
      let recorder = Recorder(on: backend) { $0.hasSuffix(".choice") }
      let loss = try value(SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend), "aux_loss")[0]
      #expect(abs(loss - expected) <= 1e-15, "\(form): \(loss)")
      #expect(recorder.choices.count == 3)
      for choice in recorder.choices.values { #expect(choice == (0..<SmallModel.tokens).flatMap { _ in (0..<k).map { Int32($0) } }) }
    }
  }

  /// Both forms by their equations, from the recorded router logits and choices.
  @Test(arguments: [1, 2, 5]) func theBalanceLossIsTheProductOfSharesAndProbabilities(_ k: Int) throws {
    let (experts, layers, n) = (5, 3, Double(SmallModel.tokens))
    for form in BalanceLossForm.allCases {
      let decoder = try SmallModel.decoder(SmallModel.adapter(topK: k), balanceLoss: form, on: backend)
      let recorder = Recorder(on: backend) { $0.contains("moe_gate") }
      let found = try value(SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend), "aux_loss")[0]
      var pooled = (f: [Double](repeating: 0, count: experts), p: [Double](repeating: 0, count: experts))
      var perLayer = 0.0
      for layer in 0..<layers {
        let path = "model.layers.\(layer).mlp.moe_gate"
        let logits = try #require(recorder.records[path + ".output"]).values
        let choice = try #require(recorder.choices[path + ".choice"]).map { Int($0) }
        var (f, p) = ([Double](repeating: 0, count: experts), [Double](repeating: 0, count: experts))
        for token in 0..<SmallModel.tokens {
          let z = logits[token * experts..<(token + 1) * experts].map { exp($0) }
          for e in 0..<experts { p[e] += z[e] / z.reduce(0, +) }
          for slot in 0..<k { pooled.f[choice[token * k + slot]] += 1 }
          f[choice[token * k]] += 1
        }
        for e in 0..<experts {
          pooled.p[e] += p[e]
          perLayer += 0.02 * Double(experts) * (f[e] / n) * (p[e] / n) / Double(layers)
        }
      }
      let m = Double(layers) * n
      let total = (0..<experts).reduce(0.0) { $0 + 0.02 * Double(experts) * pooled.f[$1] / m * pooled.p[$1] / m }
      let expected = form == .pooledTopK ? total : perLayer
      #expect(abs(found - expected) <= 1e-15, "\(form): \(found), \(expected)")
    }
  }

  /// Where all experts are equally busy `balance` is the same for all, so p ⊙ (balance − ⟨balance, p⟩) = 0 whatever p is.
  @Test(arguments: BalanceLossForm.allCases)
  func theBalanceLossMovesNothingWhereAllExpertsAreEquallyBusy(_ form: BalanceLossForm) throws {
    let sequence = PackedSequence(ids: [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], labels: [1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, nil])
    func gradients(_ coefficient: Double, _ choice: (Int) -> [Int32]) throws -> [Trace<Double>.NamedTensor] {
      let decoder = try SmallModel.decoder(
        SmallModel.adapter(experts: 3, topK: 2, coefficient: coefficient), balanceLoss: form, on: backend)
      let choices = (0..<3).map { ("model.layers.\($0).mlp.moe_gate.choice", backend.upload((0..<12).flatMap(choice))) }
      let hook = Replacement<CPUDouble>(choices: Dictionary(uniqueKeysWithValues: choices))
      return try SmallModel.trainingTensors(decoder, hooks: [hook], sequences: [sequence], on: backend).only("grad.")
    }
    let inTurn = { (token: Int) in [Int32(token % 3), Int32((token + 1) % 3)] }
    let balanced = Agreement(of: try gradients(1, inTurn), with: try gradients(0, inTurn))
    #expect(balanced.holds(to: 1e-13), "\(balanced)")
    let always = { (_: Int) in [Int32(0), 1] }
    #expect(
      !Agreement(of: try gradients(1, always), with: try gradients(0, always)).holds(to: 1e-3), "the balance loss does nothing at all")
  }

  /// K = E: every F is 1, so the pooled loss is coef · E · Σ P = coef · E, and its gradient 0.
  @Test(arguments: ExpertEvaluation.allCases)
  func whereEveryExpertIsChosenTheBalanceLossIsConstant(_ evaluation: ExpertEvaluation) throws {
    func tensors(_ coefficient: Double) throws -> [Trace<Double>.NamedTensor] {
      let adapter = SmallModel.adapter(experts: 4, topK: 4, coefficient: coefficient)
      return try SmallModel.trainingTensors(SmallModel.decoder(adapter, evaluation: evaluation, on: backend), on: backend)
    }
    let (with, without) = (try tensors(0.5), try tensors(0))
    #expect(abs(try value(with, "aux_loss")[0] - 2) <= 1e-14)
    let agreement = Agreement(of: with.only("grad."), with: without.only("grad."))
    #expect(agreement.holds(to: 1e-13), "\(agreement)")
    #expect(try value(with, "grad.mixlora.layers.1.mlp.moe_gate.weight").contains { abs($0) > 1e-3 }, "the gate learns from the loss")
  }

  // MARK: Experts

  /// B = 0 makes every branch zero, and Σ w_k = 1: the base model, whatever the router says.
  @Test(arguments: ExpertEvaluation.allCases)
  func withBZeroTheLogitsAreTheBaseModels(_ evaluation: ExpertEvaluation) throws {
    let base = try SmallModel.trainingTensors(SmallModel.baseDecoder(on: backend), on: backend).only("logits", "loss")
    var plain = SmallModel.adapter()
    plain.mixture = nil
    for adapter in [SmallModel.adapter(), SmallModel.adapter(experts: 3, topK: 3), SmallModel.adapter(topK: 1), plain] {
      let decoder = try SmallModel.decoder(
        adapter, evaluation: evaluation, edit: { name, original in name.contains("lora_B") ? try original(name).map { _ in 0 } : nil },
        on: backend)
      let agreement = Agreement(of: try SmallModel.trainingTensors(decoder, on: backend).only("logits", "loss"), with: base)
      #expect(agreement.holds(to: 1e-13), "\(agreement)")
    }
  }

  /// Experts have no place: with expert and gate row e holding what π(e) held, the same comes out, gradients moved along.
  @Test(arguments: ExpertEvaluation.allCases)
  func permutedExpertsGiveTheSame(_ evaluation: ExpertEvaluation) throws {
    let source = [3, 0, 4, 2, 1]  // π(e)
    func moved(_ name: String) -> String {
      var words = name.split(separator: ".").map(String.init)
      if let i = words.firstIndex(of: "experts"), let e = Int(words[i + 1]) { words[i + 1] = "\(source[e])" }
      return words.joined(separator: ".")
    }
    func rows(_ values: [Double]) -> [Double] {
      let width = values.count / source.count
      return source.flatMap { values[$0 * width..<($0 + 1) * width] }
    }
    let plain = try SmallModel.trainingTensors(SmallModel.decoder(SmallModel.adapter(), evaluation: evaluation, on: backend), on: backend)
    let decoder = try SmallModel.decoder(
      SmallModel.adapter(), evaluation: evaluation,
      edit: { [isGate] name, original in isGate(name) ? rows(try original(name)) : try original(moved(name)) }, on: backend)
    let permuted = try SmallModel.trainingTensors(decoder, on: backend)
    let expected = try permuted.map { tensor in
      let values = try value(plain, moved(tensor.name))
      return Trace<Double>.NamedTensor(name: tensor.name, shape: tensor.shape, values: isGate(tensor.name) ? rows(values) : values)
    }
    let agreement = Agreement(of: permuted, with: expected)
    #expect(agreement.holds(to: 1e-12), "\(agreement)")
    #expect(!Agreement(of: permuted.only("grad."), with: plain.only("grad.")).holds(to: 1e-3), "nothing was permuted")
  }

  @Test(arguments: ExpertEvaluation.allCases)
  func oneExpertIsPlainLoRA(_ evaluation: ExpertEvaluation) throws {
    var adapter = SmallModel.adapter(experts: 1, topK: 1, coefficient: 0.25)
    adapter.lora = .init(rank: 3, alpha: 5)
    adapter.mixture?.lora = adapter.lora
    let mixture = try SmallModel.trainingTensors(SmallModel.decoder(adapter, evaluation: evaluation, on: backend), on: backend)
    adapter.mixture = nil
    /// `base_model.model.model.layers.0.mlp.up_proj.lora_A.weight` → `mixlora.layers.0.mlp.up_proj.experts.0.lora_A.weight`
    func mixtures(_ name: String) -> String {
      name.replacing("base_model.model.model.", with: "mixlora.").replacing(/(mlp\.\w+_proj)\.lora/) { "\($0.output.1).experts.0.lora" }
    }
    let decoder = try SmallModel.decoder(
      adapter, edit: { name, original in name.hasPrefix("base_model") ? try original(mixtures(name)) : nil }, on: backend)
    let plain = try SmallModel.trainingTensors(decoder, on: backend).map {
      Trace<Double>.NamedTensor(name: mixtures($0.name), shape: $0.shape, values: $0.values)
    }
    let agreement = Agreement(of: mixture.filter { !isGate($0.name) && $0.name != "aux_loss" }, with: plain)
    #expect(agreement.count == 3 + 3 * 7 * 2 && agreement.holds(to: 1e-12), "\(agreement)")
    #expect(try value(mixture, "aux_loss") == [0.25])
    #expect(mixture.filter { isGate($0.name) }.count == 3)
    #expect(mixture.filter { isGate($0.name) }.allSatisfy { $0.values.allSatisfy { $0 == 0 } })
  }
}
