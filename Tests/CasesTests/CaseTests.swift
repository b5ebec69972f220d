import CPUBackend
import Checkpoints
import Conformance
import Layers
import Tensors
import Testing
import Traces

/// The cases that are shipped for any backend, on ours. The truth is PyTorch's; the budgets were found by moving every number of
/// PyTorch's own computation by a rounding, so nothing here was tuned.
@Suite struct CaseTests {
  private func judged<B: Backend>(
    _ folder: CaseFolder, on backend: B, _ precision: Precision, _ evaluation: ExpertEvaluation = .sharedBase
  ) throws -> Judgement {
    let results = try CaseRunner.results(of: folder, on: backend, evaluation: evaluation)
    return Judgement(of: results, against: folder.expected, within: try folder.budget(in: precision))
  }

  @Test func thereAreCasesOfEveryOperation() throws {
    #expect(CaseFolder.all.count >= 60)
    let operations = Set(CaseFolder.all.map(\.operation))
    #expect(operations.count == 17, "\(operations)")
    for folder in CaseFolder.all {
      let described = Set(folder.outputs.objectValue?.keys ?? [])
      #expect(!described.isEmpty && described == Set(folder.expected.elements.map(\.name)), "\(folder.name)")
    }
  }

  @Test(arguments: CaseFolder.all) func everyCaseHoldsInDoublePrecision(_ folder: CaseFolder) throws {
    let judgement = try judged(folder, on: CPUDouble(threads: 1, isPoisoned: true), .float64)
    #expect(judgement.matches, "\(judgement)")
  }

  @Test(arguments: CaseFolder.all) func everyCaseHoldsInSinglePrecision(_ folder: CaseFolder) throws {
    let judgement = try judged(folder, on: CPUFloat(threads: 2, isPoisoned: true), .float32)
    #expect(judgement.matches, "\(judgement)")
  }

  @Test(arguments: [ExpertEvaluation.sharedGateUp, .perExpert]) func everyWayToEvaluateExpertsHolds(_ evaluation: ExpertEvaluation) throws {
    for folder in CaseFolder.all where ["experts", "model"].contains(folder.operation) {
      for judgement in [
        try judged(folder, on: CPUDouble(threads: 1), .float64, evaluation),
        try judged(folder, on: CPUFloat(threads: 1), .float32, evaluation),
      ] { #expect(judgement.matches, "\(folder.name): \(judgement)") }
    }
  }

  /// A right result that is moved by four times its budget is wrong; the budgets themselves are small.
  @Test func aResultThatIsOffByFourBudgetsIsFound() throws {
    for folder in CaseFolder.all {
      let budget = try folder.budget(in: .float32)
      for tensor in folder.expected.elements {
        // Beside its like a gradient that is nearly nothing is judged on their scale.
        let like = folder.expected.elements.filter { Agreement.kind($0.name) == Agreement.kind(tensor.name) }
        guard Agreement.norm(tensor.values) > 1e-2 * (like.map { Agreement.norm($0.values) }.max() ?? 0) else { continue }
        let allowed = budget.relativeError(of: tensor.name, in: .float32)
        #expect(allowed < (folder.operation == "model" ? 0.04 : 1e-4), "\(folder.name) \(tensor.name): \(allowed)")
        var moved = NamedTensors()
        for other in folder.expected.elements {
          let factor = other.name == tensor.name ? 1 + 4 * max(allowed, 1e-9) : 1
          moved.append(other.name, other.values.map { $0 == 0 && factor != 1 ? factor - 1 : $0 * factor }, shape: other.shape)
        }
        let judgement = Judgement(of: moved, against: folder.expected, within: budget)
        #expect(judgement.tensors.filter { $0.problem != nil }.map(\.name) == [tensor.name], "\(folder.name) \(tensor.name)")
      }
    }
  }

  /// Attributes and inputs without an effect on the numbers of a case: a limit that is not reached, the softmax of one score, the
  /// angle θ₀ = 1, two forms that agree on one layer and one expert a token, a weight that is 1 whatever the gate is.
  private static let idle: Set<String> = [
    "clip-not-reached maximum", "combine experts", "combine-empty-slots experts", "attention-one-row scale", "attention-one-row q",
    "attention-one-row k", "rotary-one-head-of-2 base", "balance-loss-top-1 form", "experts-top-1 gate",
  ]

  /// Every attribute and every input counts: an implementation that does not read it, or reads it wrongly, fails the case.
  @Test(arguments: CaseFolder.all.filter { $0.operation != "model" }) func aWrongAttributeOrInputIsFound(_ folder: CaseFolder) throws {
    var tried = 0
    func expectFailure(_ what: String, _ wrong: CaseFolder) throws {
      tried += 1
      let judgement = try judged(wrong, on: CPUDouble(threads: 1), .float64)
      #expect(!judgement.matches, "\(folder.name) holds with another \(what)")
    }
    for (key, value) in folder.attributes.objectValue?.members.map({ ($0.key, $0.value) }) ?? []
    where !Self.idle.contains("\(folder.name) \(key)") {
      guard let other = Self.other(key, value) else { continue }
      var wrong = folder
      wrong.attributes = Self.replacing(key, in: folder.attributes, with: other)
      try expectFailure(key, wrong)
    }
    for input in folder.inputs.elements where input.precision == .float32 {
      if Self.idle.contains("\(folder.name) \(input.name)") { continue }
      var wrong = folder
      wrong.inputs = NamedTensors()
      for element in folder.inputs.elements {
        let factor = element.name == input.name ? 1.01 : 1
        wrong.inputs.append(element.name, element.values.map { $0 * factor }, shape: element.shape)
      }
      try expectFailure(input.name, wrong)
    }
    #expect(tried >= 1)
  }

  /// A wrong value of an attribute that still fits the shapes; nil for sizes.
  private static func other(_ key: String, _ value: JSON) -> JSON? {
    switch key {
    case "heads", "key_value_heads", "head_width", "experts", "policy", "k": return nil
    case "activation": return value == "silu" ? "gelu_pytorch_tanh" : "silu"
    case "form": return value == "pooledTopK" ? "perLayerArgmax" : "pooledTopK"
    case "window": return JSON((value.intValue ?? 0) + 1)
    case "offset": return JSON(1 - (value.doubleValue ?? 0))
    case "threshold": return JSON(0.05)
    case "temperature": return JSON((value.doubleValue ?? 0) == 0 ? 0.5 : 1)
    case "weight_decay": return JSON((value.doubleValue ?? 0) + 0.01)
    case "offsets":
      let offsets = value.arrayValue ?? []
      return offsets.count > 2 ? .array([offsets[0], offsets[offsets.count - 1]]) : nil
    case "scaling":
      if value["type"] == "longrope" { return replacing("magnitude", in: value, with: 1.2) }
      return replacing("factor", in: value, with: 5)
    default: return value.doubleValue.map { JSON($0 * 1.01) }
    }
  }

  private static func replacing(_ key: String, in object: JSON, with value: JSON) -> JSON {
    var members = object.objectValue ?? JSON.Object()
    members[key] = value
    return .object(members)
  }
}
