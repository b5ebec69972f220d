import CPUBackend
import Decoders
import Stepping
import Tensors
import TestModels
import Testing
import Traces

/// A patched number is followed everywhere, and the model is as it was afterwards.
@Suite struct PatchTests {
  private let backend = CPUDouble(threads: 1)

  /// All tensors of a run in which `hooks` replace something.
  private func record(_ decoder: Decoder<CPUDouble>, _ hooks: [any Hook<CPUDouble>]) throws -> [String: [Double]] {
    var request = TraceRequest()
    (request.backward, request.activations) = (true, { _ in true })
    var found: [String: [Double]] = [:]
    for part in decoder.trained { backend.fill(0, &part.arena.gradients) }
    _ = try TraceRecording(decoder, Golden.batch("topk"), request, on: backend).run(hooks: hooks, update: { _ in }) {
      found[$0.name] = $0.values
    }
    return found
  }

  @Test(arguments: [
    Patch("model.layers.0.self_attn.q_proj.output", [0, 2, 5], 1.5), Patch("model.embed_tokens.output", [1, 0, 3], -2),
    Patch("model.layers.1.mlp.experts.1.hidden", [0, 4], 0.75), Patch("grad.model.layers.1.mlp.output", [0, 1, 2], 0.25),
    Patch("grad.model.layers.0.mlp.experts.2.up_proj.output", [0, 3], -0.5), Patch("lm_head.output", [0, 1, 7], 3),
    Patch("model.layers.0.mlp.moe_gate.output", [0, 3, 1], 9), Patch("grad.lm_head.output", [0, 1, 7], 0.5),
  ])
  func aPatchedRunIsOneWithTheValueReplaced(_ patch: Patch) throws {
    let decoder = try Golden.decoder("topk", on: backend)
    let original = try RecordedRun(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
    let patched = try RecordedRun(decoder, Golden.batch("topk"), patches: [patch], in: temporaryFolder, on: backend)
    // The same as a whole value, in the packed rows that a run has.
    let path = patch.name.hasPrefix("grad.") ? String(patch.name.dropFirst(5)) : patch.name
    let recorder = Recorder(on: backend) { $0 == path }
    _ = try record(decoder, [recorder])
    let whole = try #require(recorder.records[patch.name])
    var values = whole.values
    let width = whole.shape.columns
    let real = try Golden.batch("topk").realColumns
    let row =
      patch.index.count == 2
      ? patch.index[0] : real[..<patch.index[0]].reduce(0) { $0 + $1.count } + patch.index[1] - real[patch.index[0]].lowerBound
    values[row * width + (patch.index.last ?? 0)] = patch.value
    let replacement = Replacement<CPUDouble>(values: [patch.name: backend.upload(values, whole.shape)])
    let expected = try record(decoder, [replacement])
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
}
