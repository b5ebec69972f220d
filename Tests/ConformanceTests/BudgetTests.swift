import Conformance
import Testing

/// Budgets, and what is said of tensors that are outside them.
@Suite struct BudgetTests {
  let golden = NamedTensors("model.norm.output", [1, 2, 3, 4, 5, 6] as [Double], shape: [2, 3])

  private func candidate(_ values: [Float], _ name: String = "model.norm.output", _ shape: [Int] = [2, 3]) -> NamedTensors {
    NamedTensors(name, values, shape: shape)
  }

  @Test func theKindOfATensorFollowsFromItsName() {
    let kinds: [(String, Budget.Kind)] = [
      ("model.layers.3.self_attn.q_proj.output", .product), ("model.layers.0.mlp.gate_proj.base.output", .product),
      ("model.layers.0.mlp.moe_gate.output", .product), ("router_logits", .product), ("model.embed_tokens.output", .product),
      ("model.layers.0.mlp.experts.2.hidden", .expert), ("model.layers.0.mlp.experts.2.down_proj.output", .expert),
      ("model.layers.0.mlp.down_proj.input", .expert), ("model.layers.0.mlp.output", .expert), ("model.layers.0.output", .expert),
      ("logits", .logits), ("lm_head.output", .logits), ("loss", .loss), ("aux_loss", .balanceLoss), ("loss_curve", .updated),
      ("grad.model.layers.0.self_attn.output", .activationGradient), ("grad.model.layers.0.mlp.experts.1.hidden", .activationGradient),
      ("grad.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", .parameterGradient),
      ("after.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", .updated),
      ("adapter.1.grad.x.lora_B.weight", .parameterGradient), ("adapter.0.router_logits", .product),
      ("model.layers.0.mlp.moe_gate.choice", .decision), ("model.layers.0.mlp.experts.0.tokens", .decision),
    ]
    for (name, kind) in kinds { #expect(Budget.Kind(ofTensor: name) == kind, "\(name)") }
  }

  @Test func figuresGrowWithTheRoundoff() {
    for kind in Budget.Kind.allCases where kind != .decision {
      let figures = [Precision.float64, .float32, .float16, .bfloat16].map { Budget.figure(kind, in: $0) }
      #expect(figures == figures.sorted() && figures[0] > 0 && Set(figures).count == 4, "\(kind): \(figures)")
    }
    #expect(Budget.figure(of: "logits", in: .float32) == 1.1e-6)
    #expect(Budget.budget.relativeError(of: "logits", in: .float32) == 4.4e-6)
    #expect(Budget.budget(in: .bfloat16).relativeError(of: "logits", in: .float32) == 4 * 3.2e-2)
  }

  @Test func aSumOfProductsIsWithinItsDerivedBudget() {
    var source = RandomSource("budget")
    let n = 200
    let (x, w) = (source.matrix(9, n), source.matrix(11, n))
    let exact = Naive.product(x, w.transposed)
    let cancellation = norm(Naive.product(x.magnitude, w.transposed.magnitude).values) / norm(exact.values)
    let values = (0..<9 * 11).map { place -> Float in
      (0..<n).reduce(Float(0)) { $0 + Float(x[place / 11, $1]) * Float(w[place % 11, $1]) }
    }
    let golden = NamedTensors("y", exact.values, shape: [9, 11])
    let budget = Budget.sum(of: n, in: .float32, cancellation: cancellation)
    #expect(NamedTensors("y", values, shape: [9, 11]).matches(golden, within: budget))
    #expect(budget.relativeError(of: "y", in: .float32) < 1e-3)
    #expect(!NamedTensors("y", values.map { $0 * 1.001 }, shape: [9, 11]).matches(golden, within: budget))
    let stored = Budget.sum(of: n, in: .float32, cancellation: cancellation, storedIn: .bfloat16)
    let difference = stored.relativeError(of: "y", in: .bfloat16) - budget.relativeError(of: "y", in: .bfloat16)
    #expect(abs(difference - 0x1p-8) < 1e-12)
  }

  @Test func budgetsCombine() {
    func number(_ budget: Budget) -> Double { budget.relativeError(of: "y", in: .float32) }
    #expect(number(.relative(3) + .relative(4)) == 7)
    #expect(number(.relative(3).beside(.relative(4))) == 5)
    #expect(number(.relative(3).amplified(by: 2)) == 6)
  }

  @Test func aFailureNamesTensorPlacesErrorAndBudget() {
    let budget = Budget.budget
    #expect(!candidate([1, 2, 3, 4.5, 5, 16]).matches(golden, within: budget))
    #expect(
      "\(budget)"
        == "model.norm.output: error 1.050, budget 5.200e-6, shape [2, 3]; first at [1, 2]: 16.0, expected 6.0; worst at [1, 2]: 16.0, expected 6.0"
    )
    #expect(candidate([1, 2, 3, 4, 5, 6]).matches(golden, within: budget))
    #expect("\(budget)" == "1 tensors within the budget, at most 0 of it")
  }

  @Test func whatIsNotThereDoesNotMatch() {
    #expect(!NamedTensors().matches(NamedTensors(), within: .budget), "nothing matches nothing")
    #expect(!NamedTensors().matches(golden, within: .budget), "missing")
    #expect(!candidate([1, 2, 3, 4, 5, 6], "model.norm.outputs").matches(golden, within: .budget), "another name")
    #expect(!candidate([1, 2, 3, 4, 5, 6], "model.norm.output", [3, 2]).matches(golden, within: .budget), "another shape")
    #expect(!candidate([1, 2, 3, 4, 5], "model.norm.output", [2, 3]).matches(golden, within: .budget), "a value too few")
    #expect(!candidate([1, 2, .nan, 4, 5, 6]).matches(golden, within: .relative(.infinity)), "NaN")
    #expect(!candidate([1, 2, .infinity, 4, 5, 6]).matches(golden, within: .relative(.infinity)), "infinity")
    #expect(!candidate([1, 2, 3, 4, 5, 6.1]).matches(golden, within: .relative(.nan)), "no budget")
    #expect(!candidate([1, 2, 3, 4, 5, 6.0001]).matches(golden, within: .exact))
    #expect(candidate([1, 2, 3, 4, 5, 6]).matches(golden, within: .exact))
  }

  private func norm(_ values: [Double]) -> Double { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
}
