import Checkpoints
import Foundation
import Testing

/// `mixlora compare` of two files: their decisions, rows of experts, figures.
@Suite struct CompareFilesTests {
  private static let experts = "model.layers.0.mlp.experts."

  @Test func rowsOfAnExpertAreMatchedTokenByToken() throws {
    let run = try ComparedRun()
    let (golden, candidate) = (try run.trace("golden.safetensors"), try run.trace("candidate.safetensors"))
    try run.edit(candidate) { tensor in  // every expert's rows the other way round
      guard tensor.name.contains(".experts."), !tensor.name.hasSuffix(".weight") else { return true }
      let width = tensor.name.hasSuffix(".tokens") ? 1 : tensor.shape[1]
      tensor.values = stride(from: tensor.values.count - width, through: 0, by: -width).flatMap { tensor.values[$0..<$0 + width] }
      return true
    }
    let (code, last, tensors, error) = try run.compare([golden, candidate])
    #expect(code == 0, "\(error) \(last)")
    #expect(tensors.values.allSatisfy { $0["verdict"] == "ok" && $0["error"]?.doubleValue == 0 })
    #expect(last["routing"]?["flips"] == 0 && last["routing"]?["decisions"]?.intValue ?? 0 > 0)
    // A row that is wrong is found where it is in the reference.
    let name = Self.experts + "0.hidden"
    try run.edit(candidate) { tensor in
      if tensor.name == name { tensor.values[0] += 1 }  // the last row of the reference
      return true
    }
    let wrong = try run.compare([golden, candidate])
    let rows = try #require(try Safetensors(path: golden).entry(name)?.shape[0])
    #expect(wrong.code == 1 && wrong.last["first"]?.stringValue == name)
    #expect(wrong.tensors[name]?["worst_index"] == [JSON(rows - 1), 0])
  }

  @Test(arguments: [".choice", ".tokens"])
  func eitherWayOfRecordingADecisionWillDo(_ part: String) throws {
    let run = try ComparedRun()
    let (golden, candidate) = (try run.trace("golden.safetensors"), try run.trace("candidate.safetensors"))
    try run.edit(candidate) { !$0.name.hasSuffix(part) }
    for arguments in [[golden, candidate], [candidate, golden], run.model + [candidate]] {
      let (code, last, tensors, error) = try run.compare(arguments)
      #expect(code == 0 && last["routing"]?["flips"] == 0, "\(error) \(last)")
      #expect(tensors.values.allSatisfy { $0["verdict"] == "ok" })
    }
  }

  @Test func anotherSetOfTokensIsTheRoutings() throws {
    let run = try ComparedRun()
    try run.tieExperts(1)
    let golden = try run.trace("golden.safetensors", ["--steps", "2"])
    try run.tieExperts(-1)
    let candidate = try run.trace("candidate.safetensors", ["--steps", "2"])
    let (code, last, tensors, error) = try run.compare([golden, candidate])
    #expect(code == 0, "\(error) \(last)")
    let routing = try #require(last["routing"])
    #expect(routing["flips"]?.intValue ?? 0 > 0 && routing["flips"] == routing["explained"], "\(routing)")
    #expect(tensors["model.layers.0.mlp.moe_gate.choice"]?["verdict"] == "routing")
    #expect(tensors[Self.experts + "0.hidden"]?["verdict"] == "routing" && tensors[Self.experts + "0.tokens"]?["verdict"] == "routing")
    #expect(tensors["model.layers.0.self_attn.output"]?["verdict"] == "ok", "what stands before the decision")
    #expect(last["notes"]?.arrayValue?.contains { $0.stringValue?.contains("not judged where a decision") == true } == true)
    // What no decision reaches still is judged: the first token of another sequence.
    let flipped = Set(
      try zip(
        Safetensors(path: golden).floats("model.layers.0.mlp.moe_gate.choice"),
        Safetensors(path: candidate).floats("model.layers.0.mlp.moe_gate.choice")
      )
      .enumerated().filter { $0.element.0 != $0.element.1 }.map { $0.offset / 2 })
    let shape = try #require(try Safetensors(path: golden).entry("logits")?.shape)
    let clean = try #require(
      (0..<shape[0] * shape[1]).first { place in
        !flipped.contains { $0 / shape[1] == place / shape[1] && $0 <= place }
      })
    try run.edit(candidate) { tensor in
      if tensor.name == "logits" { tensor.values[clean * shape[2]] += 1 }
      return true
    }
    let wrong = try run.compare([golden, candidate])
    #expect(wrong.code == 1 && wrong.last["first"] == "logits", "\(wrong.last)")
  }

  @Test func aDecisionThatRoundingDoesNotExplainIsAMismatch() throws {
    let run = try ComparedRun()
    let (golden, candidate) = (try run.trace("golden.safetensors"), try run.trace("candidate.safetensors"))
    let gate = "model.layers.0.mlp.moe_gate.choice"
    try run.edit(candidate) { tensor in
      if tensor.name == gate {
        tensor.values[1] = (0..<4).map { Double($0) }.first { $0 != tensor.values[0] && $0 != tensor.values[1] }!
      }
      return !tensor.name.contains(".experts.") || tensor.name.hasSuffix(".weight")
    }
    for arguments in [run.model + [candidate], [golden, candidate]] {
      let (code, last, tensors, error) = try run.compare(arguments)
      #expect(code == 1, "\(error)")
      #expect(tensors[gate]?["verdict"] == "mismatch" && last["routing"]?["flips"] == 1 && last["routing"]?["explained"] == 0)
    }
  }

  @Test func aDecisionThatIsNoneIsNamedWithItsRow() throws {
    let run = try ComparedRun()
    let (golden, candidate) = (try run.trace("golden.safetensors"), try run.trace("candidate.safetensors"))
    let gate = "model.layers.1.mlp.moe_gate.choice"
    try run.edit(candidate) { tensor in
      if tensor.name == gate { tensor.values[0] = 9 }
      return true
    }
    for arguments in [run.model + [candidate], [golden, candidate]] {
      let (code, last, tensors, error) = try run.compare(arguments)
      #expect(code == 1, "\(error)")
      #expect(tensors[gate]?["verdict"] == "mismatch")
      let notes = last["notes"]?.arrayValue?.compactMap(\.stringValue).joined() ?? ""
      #expect(notes.contains("\(gate): the token in row 0, column 0 chose expert 9") || arguments.count == 2, "\(notes)")
    }
    let tokens = "model.layers.1.mlp.experts.2.tokens"
    try run.edit(candidate) { tensor in
      if tensor.name == gate { return false }
      if tensor.name == tokens, tensor.values.count > 1 { tensor.values[1] = 1.5 }
      return true
    }
    for arguments in [run.model + [candidate], [golden, candidate]] {
      let (code, last, _, error) = try run.compare(arguments)
      #expect(code == 1, "\(error)")
      let notes = last["notes"]?.arrayValue?.compactMap(\.stringValue).joined() ?? ""
      #expect(notes.contains("\(tokens): row 1 is token 1.5"), "\(notes)")
    }
  }

  @Test(arguments: [1e18, -7, 0.5, .nan, .infinity, 1e300])
  func decisionsThatAreNoneNeverCrash(_ value: Double) throws {
    let run = try ComparedRun()
    let right = try run.trace("right.safetensors")
    for part in [".moe_gate.choice", ".tokens"] {
      let wrong = run.path("wrong.safetensors")
      try? FileManager.default.removeItem(atPath: wrong)
      try FileManager.default.copyItem(atPath: right, toPath: wrong)
      try run.edit(wrong) { tensor in
        if tensor.name.hasSuffix(part), !tensor.values.isEmpty {
          tensor.values[0] = value
          tensor.values[tensor.values.count - 1] = value
        }
        return true
      }
      for arguments in [[right, wrong], [wrong, right], run.model + [wrong]] {
        let result = try Program.run(["compare"] + arguments + ["--json", "--quiet", "--threads", "1"])
        #expect([1, 3].contains(result.code), "\(part): \(result.code) \(result.error)")
      }
    }
  }

  @Test func whatIsNotFiniteOnBothSidesIsTold() throws {
    let run = try ComparedRun()
    let (golden, candidate) = (try run.trace("golden.safetensors"), try run.trace("candidate.safetensors"))
    func spoil(_ file: String) throws {
      try run.edit(file) { tensor in
        if tensor.name == "logits" { tensor.values[3] = .nan }
        return true
      }
    }
    try spoil(golden)
    #expect(try run.compare([golden, candidate]).code == 1)
    try spoil(candidate)
    for mode in ["budget", "allclose", "exact"] {
      let both = try run.compare([golden, candidate, "--mode", mode])
      #expect(both.code == 0, "\(both.last)")
      #expect(
        both.last["notes"]?.arrayValue?.contains { $0.stringValue?.contains("1 value of logits not finite on both sides") == true } == true)
    }
  }

  @Test func withoutAModelTheReportSaysWhatItsBudgetsAre() throws {
    let run = try ComparedRun()
    let (golden, candidate) = (try run.trace("golden.safetensors"), try run.trace("candidate.safetensors", ["--dtype", "float32"]))
    let text = try Program.run(["compare", golden, candidate, "--quiet"])
    #expect(text.code == 0 && text.output.contains("× its budget"), "\(text.output.prefix(200))")
    let words = text.output.split { $0.isWhitespace }.joined(separator: " ")
    #expect(words.contains("each budget is 4 × the largest error") && words.contains("with --model and --batch budgets are derived"))
  }
}

extension Safetensors {
  /// A tensor's numbers.
  fileprivate func floats(_ name: String) throws -> [Double] {
    let type = entry(name)?.elementType
    return try withBytes(of: name) { bytes in
      type == .float64 ? bytes.bindMemory(to: Double.self).map { $0 } : bytes.bindMemory(to: Float.self).map { Double($0) }
    }
  }
}
