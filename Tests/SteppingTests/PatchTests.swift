import CPUBackend
import Decoders
import Stepping
import Tensors
import TestModels
import Testing
import Traces
import Training

/// A patched number is followed everywhere, and the model is as it was afterwards.
@Suite struct PatchTests {
  private let backend = CPUDouble(threads: 1)

  /// All tensors of a run in which `hooks` replace something.
  private func record(_ hooks: [any Hook<CPUDouble>]) throws -> [String: [Double]] {
    let decoder = try Golden.decoder("topk", on: backend)
    var request = TraceRequest()
    (request.backward, request.steps, request.activations) = (true, 1, { _ in true })
    var found: [String: [Double]] = [:]
    var optimizer = AdamW(decoder.parameters, learningRate: 1e-3, weightDecay: 0.01, on: backend)
    _ = try TraceRecording(decoder, Golden.batch("topk"), request, on: backend).run(
      hooks: hooks, moments: { optimizer.moments(of: $0) }, update: { optimizer.step($0) }
    ) { found[$0.name] = $0.values }
    return found
  }

  private func stepper() throws -> Stepper<CPUDouble> {
    try Stepper(Golden.decoder("topk", on: backend), Golden.batch("topk"), in: temporaryFolder, on: backend)
  }

  private func lines(_ stepper: Stepper<CPUDouble>, _ command: String) throws -> [String] {
    guard case .lines(let lines) = try stepper.perform(command) else { return ["quit"] }
    return lines
  }

  @Test(arguments: [
    Patch("model.layers.0.self_attn.q_proj.output", [0, 2, 5], 1.5), Patch("model.embed_tokens.output", [1, 0, 3], -2),
    Patch("model.layers.1.mlp.experts.1.hidden", [0, 4], 0.75), Patch("grad.model.layers.1.mlp.output", [0, 1, 2], 0.25),
    Patch("grad.model.layers.0.mlp.experts.2.up_proj.output", [0, 3], -0.5), Patch("lm_head.output", [0, 2, 7], 3),
    Patch("model.layers.0.mlp.moe_gate.output", [0, 3, 1], 9), Patch("grad.lm_head.output", [0, 1, 7], 0.5),
    Patch("grad.mixlora.layers.1.self_attn.q_proj.lora_A.weight", [1, 3], 0.125),
    Patch("grad.mixlora.layers.0.mlp.gate_proj.experts.2.lora_B.weight", [2, 1], -0.5),
    Patch("grad.mixlora.layers.1.mlp.moe_gate.weight", [3, 5], 2),
  ])
  func aPatchedRunIsOneWithTheValueReplaced(_ patch: Patch) throws {
    let decoder = try Golden.decoder("topk", on: backend)
    let original = try RecordedRun(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
    let patched = try RecordedRun(decoder, Golden.batch("topk"), patches: [patch], in: temporaryFolder, on: backend)
    // The same as a whole value, in the packed rows that a run has.
    let path = HookPoint(named: patch.name).path
    let recorder = Recorder(on: backend) { $0 == path }
    _ = try record([recorder])
    let whole = try #require(recorder.records[patch.name])
    var values = whole.values
    let width = whole.shape.columns
    let real = try Golden.batch("topk").realColumns
    let row =
      patch.index.count == 2
      ? patch.index[0] : real[..<patch.index[0]].reduce(0) { $0 + $1.count } + patch.index[1] - real[patch.index[0]].lowerBound
    values[row * width + (patch.index.last ?? 0)] = patch.value
    let replacement = Replacement<CPUDouble>(values: [patch.name: backend.upload(values, whole.shape)])
    let expected = try record([replacement])
    var changed = 0
    for (name, values) in expected {
      #expect(patched.values(of: name) == values, "\(name)")
      if original.values(of: name) != values { changed += 1 }
    }
    #expect(changed > 3 && expected.count > 100)
    // And a run without the patch is the first one again.
    let again = try RecordedRun(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
    #expect(again.names.allSatisfy { again.values(of: $0) == original.values(of: $0) })
  }

  @Test func anExpertIsChosenByHand() throws {
    let decoder = try Golden.decoder("topk", on: backend)
    let stepper = try Stepper(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
    let before = try RecordedRun(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend).values(
      of: "model.layers.0.mlp.moe_gate.choice")
    let other = (0..<4).first { !before[0..<2].contains(Double($0)) } ?? 0
    _ = try stepper.perform("patch model.layers.0.mlp.moe_gate.choice[0,0,0] \(other)")
    guard case .lines(let lines) = try stepper.perform("diff") else { return }
    #expect(lines.first?.hasPrefix("model.layers.0.mlp.moe_gate.choice[0,0,0]") == true, "\(lines.prefix(3))")
    #expect(lines.contains { $0.hasPrefix("model.layers.0.mlp.experts.\(other).tokens  (") }, "\(lines.prefix(12))")
    #expect(lines.contains { $0.hasPrefix("loss[0]") })
    _ = try stepper.perform("unpatch")
    #expect(try stepper.perform("diff") == .lines(["Nothing differs."]))
  }

  /// Logits are what the head gives, and the routers' list what the routers give.
  @Test(arguments: [
    ("logits[0,2,7]", "lm_head.output[0,2,7]"), ("router_logits[3,1]", "model.layers.0.mlp.moe_gate.output[0,3,1]"),
    ("model.layers.0.self_attn.q_proj[0,2,5]", "model.layers.0.self_attn.q_proj.output[0,2,5]"),
  ])
  func anotherNameOfANumberIsPatchedAsItsOwn(_ name: String, _ own: String) throws {
    let (one, other) = (try stepper(), try stepper())
    #expect(try lines(one, "patch \(name) 3")[0].contains(own))
    _ = try other.perform("patch \(own) 3")
    let difference = try lines(one, "diff")
    #expect(try difference.count > 3 && difference == lines(other, "diff"))
    #expect(try lines(one, "print \(name)")[0].hasSuffix(" = 3.0"))
  }

  @Test func aPatchedNumberSaysSoAndWhatItWouldBe() throws {
    let stepper = try stepper()
    let element = "model.layers.0.self_attn.q_proj.output[0,2,5]"
    let before = try lines(stepper, "why \(element)")
    let value = try #require(Double(before[0].split(separator: " ").last ?? ""))
    _ = try stepper.perform("patch \(element) 2.5")
    let after = try lines(stepper, "why \(element)")
    #expect(after[0] == "\(element) = 2.5" && after[1].hasPrefix("  patched; "), "\(after)")
    let formed = try #require(after[1].split(separator: " ").compactMap { Double($0) }.first)
    #expect(abs(formed - value) <= 1e-12 * abs(value))
    #expect(after.dropFirst(2) == before.dropFirst(1))
    #expect(try !lines(stepper, "why model.layers.0.self_attn.q_proj.output[0,2,4]")[1].contains("patched"))
    _ = try stepper.perform("unpatch")
    #expect(try lines(stepper, "why \(element)") == before)
  }

  /// What cannot be patched is named with the reason, and with what can be.
  @Test(arguments: [
    ("loss[0]", "loss"), ("aux_loss[0]", "loss"), ("loss_curve[0]", "last result"),
    ("after.mixlora.layers.1.mlp.moe_gate.weight[0,0]", "last result"),
    ("exp_avg.mixlora.layers.1.mlp.moe_gate.weight[0,0]", "patch grad.mixlora.layers.1.mlp.moe_gate.weight"),
    ("model.layers.0.mlp.experts.1.tokens[0]", "patch that"), ("model.layers.0.self_attn.q_proj.weight[0,0]", "a weight"),
    ("input_ids[0,0]", "a tensor of the batch"),
  ])
  func whatCannotBePatchedIsNamedWithTheReason(_ element: String, _ reason: String) throws {
    let stepper = try stepper()
    let error = #expect(throws: Stepper<CPUDouble>.CommandError.self) { try stepper.perform("patch \(element) 1") }
    #expect(error?.description.contains(reason) == true && error?.description.contains(element.prefix { $0 != "[" }) == true, "\(error)")
  }

  @Test func logitsUnderASoftCapAreRefusedByName() throws {
    let peer = try #require(PeerCase.all.first { $0.name == "gemma2-topk" })
    let stepper = try Stepper(peer.decoder(on: backend), peer.batch(), in: temporaryFolder, on: backend)
    let error = #expect(throws: Stepper<CPUDouble>.CommandError.self) { try stepper.perform("patch logits[0,1,1] 1") }
    #expect(
      error?.description.contains("patch lm_head.output") == true || error?.description.contains("lm_head.output; patch that") == true)
  }

  @Test(arguments: ["nan", "inf", "-inf", "x", "1e300"]) func whatIsNoNumberIsRefused(_ number: String) throws {
    let backend = CPUFloat(threads: 1)
    let stepper = try Stepper(Golden.decoder("topk", on: backend), Golden.batch("topk"), in: temporaryFolder, on: backend)
    let error = #expect(throws: Stepper<CPUFloat>.CommandError.self) { try stepper.perform("patch model.norm.output[0,1,0] \(number)") }
    #expect(error?.description.contains("finite") == true, "\(error)")
    #expect(try stepper.perform("diff") == .lines(["Nothing differs."]))
  }

  /// A number that is too large for what follows, or was none from the start: everything can still be looked at.
  @Test(arguments: [1e200, .nan, .infinity]) func whatIsNotFiniteIsShown(_ value: Double) throws {
    let decoder = try Golden.decoder("topk", on: backend)
    if !value.isFinite {
      let tensor = try #require(decoder.trainedTensors.first { $0.name.contains("moe_gate") })
      let shape = tensor.view(of: tensor.parameter.value).shape
      tensor.set(backend.upload([Double](repeating: value, count: shape.count), shape), on: backend)
    }
    let stepper = try Stepper(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
    if value.isFinite { _ = try stepper.perform("patch model.embed_tokens.output[1,0,3] \(value)") }
    var shown: [String] = []
    let run = try RecordedRun(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
    for name in run.names {
      shown += try lines(stepper, "goto \(name)") + lines(stepper, "print \(name)")
      let index = Array(repeating: "0", count: run.shape(of: name)?.count ?? 0).joined(separator: ",")
      if let why = try? lines(stepper, "why \(name)[\(index)]") { shown += why }
    }
    #expect(shown.contains { $0.contains("nan") || $0.contains("inf") })
    _ = try stepper.perform("diff")
  }
}
