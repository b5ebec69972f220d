import Checkpoints
import Foundation
import Testing

/// `mixlora compare --mode`: a rule for what is within; whose error it is, the local run and the replayed decisions say under every one.
@Suite struct CompareModeTests {
  @Test(arguments: [["budget"], ["reference-ratio"], ["allclose"], ["ulp", "--rtol", "1e12"]])
  func whatOnlyCarriesAnErrorAlongIsPropagated(_ rule: [String]) throws {
    let run = try ComparedRun()
    try run.replace("model/config.json", "10000.0", "9000.0")
    let candidate = try run.trace("candidate.safetensors")
    try run.replace("model/config.json", "9000.0", "10000.0")
    let (code, last, tensors, error) = try run.compare(run.model + [candidate, "--mode"] + rule)
    #expect(code == 1, "\(error)")
    let first = last["first"]?.stringValue ?? ""
    #expect(first.hasSuffix("_proj.rotated.output") && first.contains("layers.0"), "\(first)")
    #expect(tensors["logits"]?["verdict"] == "propagated" && tensors["grad.lm_head.output"]?["verdict"] == "propagated")
    #expect(tensors["model.layers.0.self_attn.q_proj.output"]?["verdict"] == "ok")
  }

  @Test(arguments: [["budget"], ["reference-ratio"], ["allclose", "--atol", "1e-5"]])
  func aDecisionWithinRoundingIsRoutingAndReplayed(_ rule: [String]) throws {
    let run = try ComparedRun()
    try run.tieExperts(1)
    // Without a learning rate the tie stays behind the steps, and so does what the candidate made of it.
    let candidate = try run.trace("candidate.safetensors", ["--dtype", "float64", "--steps", "3", "--lr", "0"])
    try run.tieExperts(-1)
    let (code, last, tensors, error) = try run.compare(
      run.model + [candidate, "--precision", "float32", "--lr", "0", "--ignore", "after.*moe_gate.weight", "--mode"] + rule)
    #expect(code == 0, "\(error) \(last)")
    #expect(last["routing"]?["flips"]?.intValue ?? 0 > 0 && last["routing"]?["flips"] == last["routing"]?["explained"])
    #expect(tensors["model.layers.0.mlp.moe_gate.choice"]?["verdict"] == "routing")
    #expect(tensors["logits"]?["verdict"] == "routing")
    #expect(["ok", "routing"].contains(tensors["loss_curve"]?["verdict"]?.stringValue))
    let experts = tensors.filter { $0.key.contains("layers.0.mlp.experts.") && $0.key.hasSuffix(".hidden") }
    #expect(experts.contains { $0.value["verdict"] == "routing" }, "rows of another set of tokens")
  }

  @Test func theRuleIsKeptElementByElementAndNamed() throws {
    let run = try ComparedRun()
    let candidate = try run.trace("candidate.safetensors")
    let exact = try run.compare(run.model + [candidate, "--mode", "exact"])
    #expect(exact.code == 0, "\(exact.last)")
    // A single number of the head's output, within budget's norm of nothing: each mode by its own figure.
    try run.edit(candidate) { tensor in
      if tensor.name == "logits" { tensor.values[7] += 1e-6 }
      return true
    }
    for (rule, code) in [
      (["allclose", "--rtol", "0", "--atol", "2e-6"], 0), (["allclose", "--rtol", "0", "--atol", "5e-7"], 1), (["exact"], 1),
      (["ulp", "--rtol", "4"], 1), (["ulp", "--rtol", "1e12"], 0),
    ] as [([String], Int32)] {
      let result = try run.compare(run.model + [candidate, "--mode"] + rule)
      #expect(result.code == code, "\(rule): \(result.last)")
    }
    let text = try Program.run(["compare"] + run.model + [candidate, "--mode", "exact", "--quiet"]).output
    #expect(text.hasPrefix("mismatch: logits (forward), error ") && text.contains("not within the same numbers"), "\(text.prefix(300))")
  }

  @Test func roundingThatAddsUpBeyondARuleIsNoOperationsFault() throws {
    let run = try ComparedRun()
    let candidate = try run.trace("candidate.safetensors", ["--dtype", "float32"])
    // Looser than any operation alone, tighter than all of them together: somewhere between, or the test says so.
    var found = false
    for units in [8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256] where !found {
      let result = try run.compare(
        run.model + [
          candidate, "--mode", "allclose", "--rtol", "0", "--atol", "\(Double(units) * 1e-8)", "--only", "model.*", "--only", "logits",
        ])
      guard result.code == 1, result.last["first"] == .null else { continue }
      found = true
      #expect(result.tensors.values.allSatisfy { $0["verdict"] == "ok" || $0["verdict"] == "propagated" })
      #expect(result.last["notes"]?.arrayValue?.contains { $0.stringValue?.contains("rounding adds up") == true } == true)
      let text = try Program.run(
        ["compare"] + run.model + [
          candidate, "--mode", "allclose", "--rtol", "0", "--atol", "\(Double(units) * 1e-8)", "--only", "model.*", "--only", "logits",
          "--quiet", "--junit", run.path("report.xml"),
        ])
      #expect(text.code == 1 && text.output.hasPrefix("mismatch: no operation, but errors add up: "), "\(text.output.prefix(200))")
      #expect(try String(contentsOfFile: run.path("report.xml"), encoding: .utf8).contains("<failure"))
    }
    #expect(found)
  }
}
