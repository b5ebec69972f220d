import Comparison
import Conformance

/// Reports with made-up numbers that look like a real run's.
enum SampleReport {
  /// Hostile where a name may be: markup, quotes, control characters, text that turns around, and long.
  static let hostile = "model.<script>alert('x')</script>.\"&\u{1B}[31m\n\u{0}\u{202E}" + String(repeating: "a", count: 300)

  /// A report of about so many tensors, of which the q projection of one layer is wrong and what comes after it propagates; `wrong`
  /// false makes all of them right.
  static func make(layers: Int, experts: Int, wrong: Bool = true) -> ComparisonReport {
    var source = RandomSource("report")
    var tensors: [TensorJudgement] = []
    var isBroken = false
    func add(_ name: String, _ phase: String, _ kind: String, _ equation: String, _ shape: [Int], guilty: Bool = false) {
      let budget = 4e-6 * (phase == "forward" ? 1 : 8)
      let clean = budget * (0.02 + 0.2 * abs(source.number()))
      var verdict = TensorJudgement.Verdict.ok
      var error = clean
      if guilty {
        (verdict, error, isBroken) = (.mismatch, 0.031, true)
      } else if isBroken {
        (verdict, error) = (.propagated, 0.004 * (1 + abs(source.number())))
      }
      var metrics = TensorMetrics()
      metrics.count = shape.reduce(1, *)
      metrics.norm = 12
      (metrics.maxAbsolute, metrics.meanAbsolute, metrics.p99Absolute) = (error * 3, error / 2, error * 2)
      metrics.worstIndex = shape.map { $0 / 2 }
      metrics.firstIndex = shape.map { _ in 0 }
      metrics.worstValues = (0.4312, 0.0391)
      metrics.map = [[Double]](repeating: [Double](repeating: error / 100, count: 32), count: 16)
      for r in 0..<16 {
        for c in 0..<32 where c % 8 < 4 { metrics.map[r][c] = error * abs(source.number()) * Double(r + 1) / 16 }
      }
      var tensor = TensorJudgement(
        name: name, phase: phase, kind: kind, equation: equation, shape: shape, error: error, budget: budget, metrics: metrics,
        verdict: verdict)
      tensor.localError = guilty ? 0.029 : clean * 0.5
      tensor.localBudget = budget / 3
      tensors.append(tensor)
    }
    add("model.embed_tokens.output", "forward", "embedding", "y = E[id]", [2, 12, 64])
    for l in 0..<layers {
      let layer = "model.layers.\(l)"
      for (path, kind, equation) in forwardPoints {
        add("\(layer).\(path)", "forward", kind, equation, [2, 12, 64], guilty: wrong && l == 1 && path == guiltyPath)
      }
      for e in 0..<experts {
        for part in ["gate_proj.output", "up_proj.output", "hidden"] {
          add("\(layer).mlp.experts.\(e).\(part)", "forward", "expert", "h = act(a) b", [7, 128])
        }
      }
    }
    add("logits", "forward", "head", "y = x Wᵀ", [2, 12, 256])
    for l in (0..<layers).reversed() {
      for (path, kind, _) in forwardPoints.reversed() {
        add("grad.model.layers.\(l).\(path)", "backward", kind, "∂loss/∂y", [2, 12, 64])
      }
      for e in 0..<experts {
        for part in ["lora_A", "lora_B"] {
          add("grad.mixlora.layers.\(l).mlp.w2.experts.\(e).\(part).weight", "backward", "expert", "dA += dhᵀ u", [8, 64])
        }
      }
    }
    var report = ComparisonReport(
      tensors: tensors, reference: "models/tiny with adapters/mix", candidate: "candidate.safetensors", precision: .float32)
    report.routing = RoutingAgreement(layers: (0..<layers).map { routing($0, experts: experts) })
    if wrong {
      report.causes = [
        Cause(name: "rotary-pairs", text: "rotary embedding pairs 2j with 2j + 1 instead of j with j + D/2", remaining: 3.1e-7)
      ]
      report.missing = ["model.layers.0.residual.output", "loss"]
      report.unknown = ["model.layers.0.self_attn.scores"]
    }
    return report
  }

  static let guiltyPath = "self_attn.q_proj.rotated.output"
  private static let forwardPoints: [(String, String, String)] = [
    ("input_layernorm.output", "norm", "y = x w / √(mean x² + ε)"), ("self_attn.q_proj.output", "linear", "y = x Wᵀ + s h Bᵀ"),
    ("self_attn.k_proj.output", "linear", "y = x Wᵀ + s h Bᵀ"), ("self_attn.v_proj.output", "linear", "y = x Wᵀ + s h Bᵀ"),
    (guiltyPath, "rotary", "(a, b) → (a cos θ − b sin θ, a sin θ + b cos θ), j with j + D/2"),
    ("self_attn.output", "linear", "y = x Wᵀ + s h Bᵀ"), ("post_attention_layernorm.output", "norm", "y = x w / √(mean x² + ε)"),
    ("mlp.moe_gate.output", "router", "z = x Gᵀ"), ("mlp.output", "combine", "y = Σ w_k down(h_k)"), ("output", "residual", "y = x + mlp"),
  ]

  private static func routing(_ layer: Int, experts: Int) -> RoutingAgreement.Layer {
    var agreement = RoutingAgreement.Layer(path: "model.layers.\(layer).mlp.moe_gate")
    (agreement.decisions, agreement.flips, agreement.explained) = (24, layer == 0 ? 2 : 0, layer == 0 ? 1 : 0)
    agreement.matrix = [[Int]](repeating: [Int](repeating: 0, count: experts), count: experts)
    for e in 0..<experts { agreement.matrix[e][e] = 6 }
    if layer == 0, experts > 1 { agreement.matrix[0][1] = 2 }
    if layer == 0, experts > 1 { agreement.widest = (1, 5, 0, 1, 0.02, 0.0011) }
    return agreement
  }
}
