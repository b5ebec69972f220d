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
      initialization == .gaussian ? .random(.normal(deviation: 1 / Double(rank))) : .kaimingUniform(inputs: inputs)
    }
  }

  /// How a new branch begins, by MoE-PEFT's `lora_init` or PEFT's `init_lora_weights`.
  public enum Initialization: String, Sendable, CaseIterable {
    /// Uniform in ±1/√I: `original`.
    case kaiming
    /// Normal with deviation 1/r: `gaussian`.
    case gaussian
    /// From the r largest singular values of the layer's own W, which the base then goes without (PiSSA, Meng et al. 2024,
    /// arXiv:2404.02948): s B A = U_r S_r V_rᵀ with A = √(S_r/s) V_rᵀ and B = U_r √(S_r/s), W ← W − s B A. Plain LoRA only.
    case pissa
    /// From Q R of W, which the base then goes without (OLoRA, Büyükakyüz 2024, arXiv:2406.01775): B = Q_r, A = R_r, W ← W − s B A.
    /// Plain LoRA only.
    case olora

    /// What W is factorized by, if it is.
    var factorization: Factorization? {
      switch self {
      case .kaiming, .gaussian: nil
      case .pissa: .singular
      case .olora: .orthogonal
      }
    }
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

  /// Biases of the base that the adapter brings its own of: `bias`.
  enum Biases: String, Sendable {
    /// None.
    case none
    /// All of the model.
    case all
    /// Those of layers with branches.
    case targeted = "lora_only"
  }

  /// The branches on layers without experts.
  public var lora: LoRA
  /// Router and experts; nil for plain LoRA.
  public var mixture: Mixture?
  /// Keys that mean nothing to us and whose value is null, false, 0 or empty, or that PEFT ignores on the layers of our models.
  public var unknownKeys: [String] = []

  /// The modules that have branches: `target_modules` and what narrows it.
  var targets: ModuleSelection
  /// Ranks of some branches: `rank_pattern`.
  var ranks = ModuleNumbers<Int>()
  /// alpha of some branches: `alpha_pattern`.
  var alphas = ModuleNumbers<Double>()
  /// Biases that are trained with the branches.
  var biases = Biases.none
  /// Modules whose weights the adapter brings whole, by what their names end with: `modules_to_save`.
  var saved: [SavedModule] = []

  /// A name in `modules_to_save`.
  struct SavedModule: Equatable, Sendable {
    let name: String
    /// The module and everything in it: PEFT adds no branches there.
    let inside: ModulePattern

    init(_ name: String) throws {
      self.name = name
      inside = try ModulePattern("(^|.*\\.)\(name)($|\\..*)")
    }
  }

  /// A configuration for a new adapter.
  public init(lora: LoRA, targets: Set<LinearName> = Set(LinearName.allCases), mixture: Mixture? = nil) {
    self.init(lora: lora, targets: ModuleSelection(targets), mixture: mixture)
  }

  init(lora: LoRA, targets: ModuleSelection, mixture: Mixture? = nil) {
    self.lora = lora
    self.targets = targets
    self.mixture = mixture
  }

  /// What the names of an adapter's tensors begin with, for one layer.
  func prefix(ofLayer layer: Int) -> String { (mixture == nil ? Self.plainPrefix + "model" : "mixlora") + ".layers.\(layer)" }

  /// What stands before Hugging Face's names in a plain LoRA file.
  static let plainPrefix = "base_model.model."
}

// MARK: What a configuration says of a module

extension AdapterConfiguration {
  /// The settings of the branch, or of the experts' branches, on a linear layer of a block; nil where there is none.
  func lora(on name: LinearName, layer: Int) -> LoRA? {
    if let mixture, name.isFeedForward { return targets.contains(name.path(inLayer: layer)) ? mixture.lora : nil }
    return lora(on: name.path(inLayer: layer))
  }

  /// The linear layers that have branches in any of so many blocks.
  public func targets(in blocks: Int) -> [LinearName] {
    LinearName.allCases.filter { name in
      (0..<(targets.isAlikeInAllBlocks ? min(1, blocks) : blocks)).contains { lora(on: name, layer: $0) != nil }
    }
  }

  /// The settings of the branch on a module; nil where there is none.
  func lora(on path: String) -> LoRA? {
    guard targets.contains(path), !saved.contains(where: { $0.inside.matches(path) }) else { return nil }
    var lora = lora
    lora.rank = ranks.number(of: path) ?? lora.rank
    lora.alpha = alphas.number(of: path) ?? lora.alpha
    return lora
  }

  /// What an adapter's file calls a tensor of the base that it brings its own of; nil where the base's is used.
  func ownName(ofBase tensor: String) -> String? {
    guard replacesBase, let point = tensor.lastIndex(of: ".") else { return nil }
    let path = String(tensor[..<point])
    if isSaved(path) { return Self.plainPrefix + tensor }
    guard biases != .none, tensor.hasSuffix(".bias") else { return nil }
    if lora(on: path) != nil { return Self.plainPrefix + path + ".base_layer.bias" }
    return biases == .all ? Self.plainPrefix + tensor : nil
  }

  /// Whether the adapter brings weights that take the place of the base's: then it serves alone.
  public var replacesBase: Bool { !saved.isEmpty || biases != .none || lora.initialization.factorization != nil }

  /// Whether a module, or one that it is a part of, is saved whole. PEFT compares the ends of names, points or no points: "norm" is
  /// `input_layernorm` too.
  private func isSaved(_ path: String) -> Bool {
    var prefix = path[...]
    while true {
      if saved.contains(where: { prefix.hasSuffix($0.name) }) { return true }
      guard let point = prefix.lastIndex(of: ".") else { return false }
      prefix = prefix[..<point]
    }
  }
}

extension LinearName {
  /// Hugging Face's name of the layer in a block.
  func path(inLayer layer: Int) -> String { "model.layers.\(layer).\(module).\(rawValue)" }
}
