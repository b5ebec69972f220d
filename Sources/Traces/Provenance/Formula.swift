import Layers
import Tensors

/// How a tensor of a trace is formed, by the names of what it is formed of.
///
/// Text that names a tensor of the trace, a *point*, is typed `Point`, the name of a weight `WeightName`. Rows are tokens (b, t), or of
/// one expert: its r-th row is the r-th token that chose it (``ExpertRows``). The layers' files have the same equations with their
/// derivations; here they say what one element of one tensor is.
public indirect enum Formula: Equatable, Sendable {
  /// The name of a tensor of the trace.
  public typealias Point = String
  /// The name of a weight; see ``Provenance/Input/Source``.
  public typealias WeightName = String

  // MARK: Forward

  /// y = γ W[id].
  case embedding(weight: WeightName, scale: Double)
  /// y = ρ x ⊙ g,  g = offset + w.
  case norm(Norm)
  /// y = W x + b + s B A x.
  case linear(Linear)
  /// Every head's planes turned by the angle of the row's position.
  case rotary(x: Point, headWidth: Int)
  /// o_i = Σ_j P_ij v_j.
  case attention(AttentionInputs)
  /// y = x.
  case same(Point)
  /// y = Σ x.
  case sum([Point])
  /// h = act(a) ⊙ c.
  case gated(a: Point, c: Point, Activation)
  /// p = softmax(z).
  case softmax(Point)
  /// The experts that a token has, by the policy, of p.
  case choice(p: Point, RoutingPolicy)
  /// b · T + t of each token that chose an expert.
  case tokens(choice: Point, expert: Int)
  /// w of a token's experts, in the order of the choice.
  case weights(p: Point, choice: Point, RoutingPolicy)
  /// Σ_k w_k h_k over a token's experts.
  case combine(Gate, values: [Point])
  /// y = W2 v + (Σ_k w_k) b2 + s Σ_k B2_k (w_k A2_k h_k).
  case sharedOutput(SharedOutput)
  /// Rows of each adapter by a formula of its own; nil are the rows of the base alone.
  case parts([Part])
  /// The logits with their soft cap, if they have one.
  case logits(z: Point, softcap: Double?)
  /// The logits of an adapter's routers, layer by layer.
  case routerLogits([Point])
  /// −(1/n) Σ log softmax(logits)[label].
  case loss(logits: Point)
  /// The balance loss of an adapter's routers.
  case balance(Balance)
  /// loss + aux_loss, before each step.
  case lossCurve(loss: Point, balance: Point)

  // MARK: Backward

  /// dz = (softmax(logits) − onehot(label)) / n.
  case lossGradient(z: Point, softcap: Double?)
  /// dx = Σ over its readers of Wᵀ dy + Aᵀ (s Bᵀ dy).
  case inputGradient(InputGradient)
  /// dx = ρ (dy ⊙ g) − x ρ³ ⟨dy ⊙ g, x⟩ / C, + what passes beside the norm.
  case normGradient(Norm, dy: Point, beside: Point?)
  /// The gradient of q, k or v.
  case attentionGradient(AttentionRole, AttentionInputs, output: Point, gradient: Point)
  /// Every head's planes turned back.
  case rotaryGradient(dy: Point, headWidth: Int)
  /// da = dh ⊙ c ⊙ act′(a), or dc = dh ⊙ act(a).
  case gatedGradient(ofUp: Bool, dh: Point, a: Point, c: Point, Activation)
  /// dh_k = w_k (q + A2_kᵀ (s B2_kᵀ dy)).
  case sharedHiddenGradient(ExpertRows, q: Point, dy: Point, branch: Branch?)
  /// de_k = w_k dy.
  case expertOutputGradient(ExpertRows, dy: Point)
  /// Σ_k over a token's experts, and the rows of adapters without experts.
  case expertSum([ExpertTerm], rows: [Point])
  /// dw_k.
  case weightsGradient(WeightsGradient)
  /// dz of a router.
  case routerGradient(RouterGradient)

  // MARK: Parameters

  /// dW = Σ_n dy_nᵀ x_n over the readings.
  case matrixGradient([Reading])
  /// db = Σ_n dy_n, or Σ_n (Σ_k w_k) dy_n where a token's experts share b.
  case biasGradient([BiasReading])
  /// dw = Σ_n ρ_n dy_n ⊙ x_n.
  case gainGradient(Norm, dy: Point)
  /// dW[id_n] += γ dy_n; of a tied head dW of that, too.
  case embeddingGradient(dy: Point, scale: Double, head: Reading?)
  /// dA or dB of a branch.
  case branchGradient(isA: Bool, Branch, Reading)
  /// The moment of that order after one step of AdamW.
  case moment(order: Int, gradient: Point)
  /// The value after a step of AdamW.
  case update(weight: WeightName, moment1: Point, moment2: Point)
}

// MARK: Their parts

extension Formula {
  /// A norm's input and weight.
  public struct Norm: Equatable, Sendable {
    /// x.
    public let x: Point
    /// w.
    public let weight: WeightName
    /// What is added to w to make the gain g: 0 or 1.
    public let offset: Double
    /// ε.
    public let epsilon: Double
  }

  /// A low-rank branch: s B A.
  public struct Branch: Equatable, Sendable {
    /// The adapter whose rows it serves; nil for whatever rows the result has.
    public let adapter: Int?
    /// A (r,I).
    public let a: WeightName
    /// B (O,r).
    public let b: WeightName
    /// s.
    public let scale: Double
  }

  /// A linear layer.
  public struct Linear: Equatable, Sendable {
    /// Linear, experts, router or head.
    public let operation: OperationKind
    /// x.
    public let x: Point
    /// W (O,I), and b (O); nil where `base` is W x + b already.
    public let weight: WeightName?
    /// b.
    public let bias: WeightName?
    /// W x + b, where it is a point of its own.
    public let base: Point?
    /// The branches, one at most an adapter.
    public let branches: [Branch]
    /// The rows of the result, where it is an expert's.
    public let rows: ExpertRows?
  }

  /// The points of a router that a formula reads.
  public struct Gate: Equatable, Sendable {
    /// Path of the router.
    public let path: String
    /// The adapter that it belongs to.
    public let adapter: Int
    /// Number of experts E.
    public let experts: Int

    /// Its logits.
    public var logits: Point { path + ".output" }
    /// Its probabilities.
    public var probabilities: Point { path + ".probabilities.output" }
    /// Its choice.
    public var choice: Point { path + ".choice" }
    /// Its weights.
    public var weights: Point { path + ".weights.output" }
  }

  /// The rows of one expert.
  public struct ExpertRows: Equatable, Sendable {
    /// The router that chose.
    public let gate: Gate
    /// The expert's number.
    public let expert: Int
    /// The point that has its tokens.
    public let tokens: Point
  }

  /// A value of an expert's rows.
  public struct ExpertTerm: Equatable, Sendable {
    /// The value.
    public let value: Point
    /// Its rows.
    public let rows: ExpertRows
  }

  /// Queries, keys and values.
  public struct AttentionInputs: Equatable, Sendable {
    /// q, turned.
    public let q: Point
    /// k, turned.
    public let k: Point
    /// v.
    public let v: Point
    /// Heads, scale, window and soft cap.
    public let form: AttentionForm
  }

  /// What a tensor is to attention.
  public enum AttentionRole: String, Equatable, Sendable {
    /// A query.
    case q
    /// A key.
    case k
    /// A value.
    case v
  }

  /// The output of experts that share W2.
  public struct SharedOutput: Equatable, Sendable {
    /// v = Σ_k w_k h_k.
    public let v: Point
    /// W2.
    public let weight: WeightName
    /// b2.
    public let bias: WeightName?
    /// The router.
    public let gate: Gate
    /// h_k and its rows, expert by expert.
    public let hidden: [ExpertTerm]
    /// A2_k and B2_k, expert by expert; empty without branches.
    public let branches: [Branch]
  }

  /// The rows of one adapter, or of none.
  public struct Part: Equatable, Sendable {
    /// The adapter.
    public let adapter: Int?
    /// How its rows are formed.
    public let formula: Formula
  }

  /// The balance loss of an adapter's routers.
  public struct Balance: Equatable, Sendable {
    /// Which form.
    public let form: BalanceLossForm
    /// Its coefficient.
    public let coefficient: Double
    /// All routers of the adapter.
    public let gates: [Gate]
  }

  /// Something that read x, and the gradient that comes back from it.
  public struct Reader: Equatable, Sendable {
    /// dy.
    public let dy: Point
    /// W; nil where only a branch read x.
    public let weight: WeightName?
    /// The branches.
    public let branches: [Branch]
    /// The rows of dy, where they are an expert's.
    public let rows: ExpertRows?
  }

  /// The gradient of an input by its readers.
  public struct InputGradient: Equatable, Sendable {
    /// The readers.
    public let readers: [Reader]
    /// The rows of the result, where they are an expert's.
    public let rows: ExpertRows?
  }

  /// dw_k = ⟨dy, e_k⟩; where experts share W2 that is ⟨q + A2_kᵀ (s B2_kᵀ dy), h_k⟩ + ⟨dy, b2⟩.
  public struct WeightsGradient: Equatable, Sendable {
    /// The router.
    public let gate: Gate
    /// dy of the feed-forward.
    public let dy: Point
    /// q = W2ᵀ dy; nil where the experts' outputs are points.
    public let q: Point?
    /// h_k, or e_k.
    public let values: [ExpertTerm]
    /// A2_k and B2_k, expert by expert; empty without branches.
    public let branches: [Branch]
    /// b2.
    public let bias: WeightName?
  }

  /// The gradient of a router's logits.
  public struct RouterGradient: Equatable, Sendable {
    /// The router.
    public let gate: Gate
    /// dw.
    public let dw: Point
    /// How w follows from p.
    public let policy: RoutingPolicy
    /// The balance loss, whose gradient joins.
    public let balance: Balance
  }

  /// A product y = W x whose W has a gradient.
  public struct Reading: Equatable, Sendable {
    /// dy.
    public let dy: Point
    /// x.
    public let x: Point
    /// The rows, where they are an expert's; x may be of all tokens.
    public let rows: ExpertRows?
    /// Whether dy is of all tokens and an expert's part of it is w_k dy.
    public let isWeighted: Bool
    /// The adapter whose rows count; nil for all.
    public let adapter: Int?
  }

  /// A sum y = … + b whose b has a gradient.
  public struct BiasReading: Equatable, Sendable {
    /// dy.
    public let dy: Point
    /// The rows of dy, where they are an expert's.
    public let rows: ExpertRows?
    /// The router whose weights' sum b was multiplied with, on its adapter's rows.
    public let gate: Gate?
    /// The adapter whose rows count; nil for all.
    public let adapter: Int?
  }
}
