import Conformance

/// What a comparison found: a judgement of every tensor that both sides have, in the order of the run, and what follows from them.
///
/// The order of the run is forward, backward, optimizer. The first tensor whose own operation is wrong is where to look; what
/// comes after it carries its error along.
public struct ComparisonReport: Sendable {
  /// The judgements in the order of the run.
  public var tensors: [TensorJudgement]
  /// Names that the reference has and the candidate lacks.
  public var missing: [String]
  /// Names of the candidate that nothing of the reference answers to.
  public var unknown: [String]
  /// How the routers' decisions agree; nil where the candidate has none or the model no router.
  public var routing: RoutingAgreement?
  /// What the first wrong operation probably does instead, best first.
  public var causes: [Cause]
  /// What the reader should know: which budget was taken, what could not be judged.
  public var notes: [String]
  /// The two sides, as the user named them.
  public var reference, candidate: String
  /// The precision that the candidate is judged in.
  public var precision: Precision

  /// The first tensor whose own operation is wrong; nil if there is none.
  public var first: TensorJudgement? { tensors.first { $0.verdict == .mismatch } }
  /// True if every tensor is right, or wrong only because a decision within rounding fell the other way.
  public var matches: Bool { !tensors.isEmpty && tensors.allSatisfy { $0.verdict == .ok || $0.verdict == .routing } }

  /// A report of judgements.
  public init(tensors: [TensorJudgement], reference: String, candidate: String, precision: Precision) {
    (self.tensors, self.reference, self.candidate, self.precision) = (tensors, reference, candidate, precision)
    (missing, unknown, causes, notes) = ([], [], [], [])
  }

  /// Behind several steps every number has gone through every parameter, so which rule was wrong is not seen tensor by tensor. What is
  /// furthest outside of its budget is taken for the wrong one, and what stands before it for what follows; a loss that was right before
  /// the first step is never taken for it.
  mutating func settleOptimizer(steps: Int) {
    let wrong = tensors.indices.filter { tensors[$0].verdict == .mismatch }
    guard steps > 1, let first = wrong.first, tensors[first].phase == "optimizer" else { return }
    func excess(_ i: Int) -> Double { tensors[i].ratio.isNaN ? .infinity : tensors[i].ratio }
    let rules = wrong.filter { tensors[$0].name != "loss_curve" }
    guard let worst = rules.max(by: { excess($0) < excess($1) }) else { return }
    for i in wrong where i < worst {
      let (metrics, budget) = (tensors[i].metrics, tensors[i].budget)
      if tensors[i].name == "loss_curve", metrics.startDifference > budget * metrics.norm { return }
      tensors[i].verdict = .propagated
    }
  }
}

/// How one tensor of the candidate compares with the reference.
public struct TensorJudgement: Sendable {
  /// What is said of a tensor.
  public enum Verdict: String, Sendable, CaseIterable {
    /// Within its budget.
    case ok
    /// Its own operation is wrong.
    case mismatch
    /// It differs because a decision flipped whose margin is within rounding.
    case routing
    /// Its own operation is right on the candidate's inputs; the error came from before.
    case propagated
  }

  /// Its name in a trace.
  public var name: String
  /// `forward`, `backward` or `optimizer`.
  public var phase: String
  /// The kind of its operation: `linear`, `norm`, `attention`, …
  public var kind: String
  /// The equation that forms it.
  public var equation: String
  /// Its sizes as the reference has them.
  public var shape: [Int]
  /// ‖candidate − reference‖₂ / ‖reference‖₂.
  public var error: Double
  /// The same with the reference's operation run on the candidate's own inputs; nil where only two files were compared.
  public var localError: Double?
  /// What rounding explains of `error`.
  public var budget: Double
  /// What rounding explains of `localError`.
  public var localBudget: Double?
  /// Numbers beside the judgement.
  public var metrics: TensorMetrics
  /// The judgement.
  public var verdict: Verdict
  /// What its elements are held against instead of the budget; nil for the budget.
  var rule: ElementRule?

  /// error / budget.
  public var ratio: Double { error == 0 ? 0 : error / budget }
  /// What forms it: the name without `grad.`, `after.` and its last part.
  public var operation: String {
    var parts = Self.path(name)
    if parts.count > 1, ["output", "weight", "bias", "choice", "tokens", "input"].contains(parts.last) { parts.removeLast() }
    return parts.joined(separator: ".")
  }
  /// The module that it belongs to, as Hugging Face names it: `model.layers.1.self_attn.q_proj`.
  public var module: String {
    let inside: Set = [
      "output", "weight", "bias", "choice", "tokens", "input", "rotated", "probabilities", "weights", "hidden", "base", "lora_A", "lora_B",
      "residual",
    ]
    var parts = Self.path(name)
    while parts.count > 1, let last = parts.last, inside.contains(last) { parts.removeLast() }
    return parts.joined(separator: ".")
  }

  private static func path(_ name: String) -> [String] {
    name.split(separator: ".").map(String.init).filter { !["grad", "after", "exp_avg", "exp_avg_sq"].contains($0) }
  }

  /// A judgement of a tensor.
  public init(
    name: String, phase: String, kind: String, equation: String, shape: [Int], error: Double, budget: Double, metrics: TensorMetrics,
    verdict: Verdict
  ) {
    (self.name, self.phase, self.kind, self.equation, self.shape) = (name, phase, kind, equation, shape)
    (self.error, self.budget, self.metrics, self.verdict) = (error, budget, metrics, verdict)
  }
}

/// How far two tensors are apart, element by element.
public struct TensorMetrics: Sendable {
  /// Elements.
  public var count = 0
  /// The largest |candidate − reference|.
  public var maxAbsolute = 0.0
  /// The 99th percentile of |candidate − reference|, and the mean.
  public var p99Absolute = 0.0, meanAbsolute = 0.0
  /// The largest |candidate − reference| / |reference|, of reference values that are not 0.
  public var maxRelative = 0.0
  /// Where the largest absolute difference is, an index an axis, and both values there.
  public var worstIndex: [Int] = []
  /// The candidate's and the reference's value at `worstIndex`.
  public var worstValues: (candidate: Double, reference: Double) = (0, 0)
  /// The first element whose difference is more than a tenth of the largest, an index an axis.
  public var firstIndex: [Int] = []
  /// ⟨candidate, reference⟩ / (‖candidate‖ ‖reference‖).
  public var cosine = 1.0
  /// The largest difference in units in the last place of the candidate's own element type at the reference's value, and its
  /// 99th percentile.
  public var maxULP = 0.0, p99ULP = 0.0
  /// Values that are not finite where the reference's are.
  public var nonfinite = 0
  /// Values that are NaN, or the same infinity, on both sides: they are no difference.
  public var nonfiniteOnBothSides = 0
  /// The largest difference in the first column: of a loss curve, before any step.
  var startDifference = 0.0
  /// ‖reference‖₂.
  public var norm = 0.0
  /// A small map of where the differences are, at most 32 × 32 of |candidate − reference| (largest of each cell), rows first.
  public var map: [[Double]] = []
  /// Of logits: the share of rows with the same largest element, and the mean Kullback–Leibler divergence in nats.
  public var logits: (agreement: Double, divergence: Double)?

  /// Of nothing yet.
  public init() {}
}

/// How the candidate's routing decisions agree with those of the oracle by itself and on the candidate's own inputs.
public struct RoutingAgreement: Sendable {
  /// Of one router.
  public struct Layer: Sendable {
    /// The router's path.
    public var path: String
    /// Decisions, flips, and the flips that rounding explains.
    public var decisions = 0, flips = 0, explained = 0
    /// Row r, column c: how many times the reference chose expert r where the candidate chose c, in the same place of the order; the
    /// diagonal agrees.
    public var matrix: [[Int]] = []
    /// The flip with the widest margin, one that is not explained before others: its token (b, t), the two experts, the margin between
    /// them in logits, and what rounding explains.
    public var widest: (row: Int, column: Int, reference: Int, candidate: Int, margin: Double, budget: Double)?

    /// Of a router.
    public init(path: String) { self.path = path }
  }

  /// Router by router.
  public var layers: [Layer]
  /// Decisions of all routers: a token's choice of experts is one.
  public var decisions: Int { layers.reduce(0) { $0 + $1.decisions } }
  /// Decisions that differ.
  public var flips: Int { layers.reduce(0) { $0 + $1.flips } }
  /// Flips whose margin is within rounding.
  public var explained: Int { layers.reduce(0) { $0 + $1.explained } }

  /// Of routers.
  public init(layers: [Layer]) { self.layers = layers }
}

/// What an operation probably does instead of what it should, found by trying.
public struct Cause: Sendable, Equatable {
  /// In words: `rotary embedding pairs 2j with 2j + 1 instead of j with j + D/2`.
  public var text: String
  /// A short name for machines: `rotary-pairs`.
  public var name: String
  /// The error that remains with the transformation, ‖·‖₂ / ‖·‖₂, beside `localError` without it; nil where nothing can be undone.
  public var remaining: Double?

  /// A cause.
  public init(name: String, text: String, remaining: Double?) { (self.name, self.text, self.remaining) = (name, text, remaining) }
}
