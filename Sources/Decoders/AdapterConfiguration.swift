import Checkpoints
import Tensors

/// What `adapter_config.json` says: a MixLoRA adapter by MoE-PEFT's keys, or a plain LoRA adapter by PEFT's.
public struct AdapterConfiguration: Equatable, Sendable {
  /// Rank, scale and dropout of low-rank branches.
  public struct LoRA: Equatable, Sendable {
    /// Rank r.
    public var rank: Int
    /// alpha.
    public var alpha: Double
    /// Probability of dropout while training.
    public var dropout: Double
    /// Whether s is alpha/√r instead of alpha/r (rsLoRA).
    public var isRankStabilized: Bool
    /// How a new A is drawn.
    public var initialization = Initialization.kaiming

    /// The settings of a branch.
    public init(rank: Int, alpha: Double, dropout: Double = 0, isRankStabilized: Bool = false) {
      self.rank = rank
      self.alpha = alpha
      self.dropout = dropout
      self.isRankStabilized = isRankStabilized
    }

    /// s = alpha/r, or alpha/√r.
    public var scale: Double { alpha / (isRankStabilized ? Double(rank).squareRoot() : Double(rank)) }

    /// What a new A (r,I) is drawn from; a new B is zero.
    func initialA(inputs: Int) -> InitialValue {
      switch initialization {
      case .kaiming: .kaimingUniform(inputs: inputs)
      case .gaussian: .random(.normal(deviation: 1 / Double(rank)))
      }
    }
  }

  /// How a new A is drawn, by MoE-PEFT's `lora_init`.
  public enum Initialization: String, Sendable, CaseIterable {
    /// Uniform in ±1/√I: `original`.
    case kaiming
    /// Normal with deviation 1/r: `gaussian`.
    case gaussian
  }

  /// The router and the experts of a MixLoRA adapter.
  public struct Mixture: Equatable, Sendable {
    /// Number of experts E: `num_experts`.
    public var experts: Int
    /// How experts are picked and weighted: `routing_strategy` and its keys.
    public var policy: RoutingPolicy
    /// The branches of the experts: `expert_lora` over the adapter's own.
    public var lora: LoRA
    /// Coefficient of the balance loss, `router_aux_loss_coef`.
    public var balanceCoefficient = 0.001
    /// Whether there is a balance loss: `router_loss`.
    public var hasBalanceLoss = true
    /// The experts' nonlinearity, `act_fn`; nil for the model's own.
    public var activation: Activation?
    /// Noise on the block's input while training: `jitter_noise`. Read, and refused by training, which has none yet.
    public var jitterNoise = 0.0
    /// Deviation of a new router's weights: `router_init_range`.
    public var routerInitializerRange = 0.02

    /// The most experts that a token has: K (`top_k`), or E under a top-p policy.
    public var expertsPerToken: Int { policy.slots(of: experts) }

    /// A mixture of E experts, K of them a token.
    public init(experts: Int, expertsPerToken: Int, lora: LoRA) {
      self.init(experts: experts, policy: .topK(expertsPerToken), lora: lora)
    }

    /// A mixture of E experts, picked by a policy.
    public init(experts: Int, policy: RoutingPolicy, lora: LoRA) {
      self.experts = experts
      self.policy = policy
      self.lora = lora
    }
  }

  /// The branches on layers without experts.
  public var lora: LoRA
  /// The linear layers that have branches: `target_modules`.
  public var targets: Set<LinearName>
  /// Router and experts; nil for plain LoRA.
  public var mixture: Mixture?
  /// Keys that mean nothing to us and whose value is null, false, 0 or empty.
  public var unknownKeys: [String] = []

  /// A configuration for a new adapter.
  public init(lora: LoRA, targets: Set<LinearName> = Set(LinearName.allCases), mixture: Mixture? = nil) {
    self.lora = lora
    self.targets = targets
    self.mixture = mixture
  }

  /// What the names of an adapter's tensors begin with, for one layer.
  func prefix(ofLayer layer: Int) -> String { (mixture == nil ? "base_model.model.model" : "mixlora") + ".layers.\(layer)" }
}
