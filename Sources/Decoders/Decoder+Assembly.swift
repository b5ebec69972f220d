import Checkpoints
import Layers
import Tensors

/// Where an adapter's settings and values come from.
public struct AdapterSource<B: Backend> {
  /// Its settings.
  public let configuration: AdapterConfiguration
  /// Its values, by MoE-PEFT's or PEFT's names.
  public let weights: any WeightSource<B>
  /// The file that messages name.
  let file: String

  /// Settings and values; `file` is where the settings stand.
  public init(_ configuration: AdapterConfiguration, _ weights: any WeightSource<B>, file: String = "adapter_config.json") {
    self.configuration = configuration
    self.weights = weights
    self.file = file
  }

  func error(key: String? = nil, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: key.map { .key($0) } ?? .file, found: found, expected: expected)
  }
}

extension Decoder {
  /// Puts a model together from its values.
  ///
  /// - Parameters:
  ///   - weights: the base model's values, by Hugging Face's names.
  ///   - adapters: the adapters over it, whose numbers are their places here.
  ///   - trainsBase: whether the base weights are trained (too).
  ///   - evaluation: how the experts are computed.
  ///   - balanceLoss: which form of the balance loss MixLoRA adapters have.
  /// - Throws: what a source throws: a missing or mis-shaped tensor.
  public init(
    _ configuration: DecoderConfiguration, weights: some WeightSource<B>, adapters: [AdapterSource<B>] = [], trainsBase: Bool = false,
    evaluation: ExpertEvaluation = .sharedBase, balanceLoss form: BalanceLossForm = .pooledTopK, on backend: B
  ) throws {
    var assembly = DecoderAssembly(
      configuration, weights: weights, adapters: adapters, trainsBase: trainsBase, evaluation: evaluation, on: backend)
    (embedding, blocks, norm, head) = try assembly.build()
    self.configuration = configuration
    let (baseTensors, adapterTensors) = (assembly.baseTensors, assembly.adapterTensors)
    base = trainsBase ? try TrainedPart(baseTensors, on: backend) : nil
    self.adapters = try zip(adapters, adapterTensors).map { source, tensors in
      let balance = source.configuration.mixture.map { BalanceLoss<B>(form, coefficient: $0.hasBalanceLoss ? $0.balanceCoefficient : 0) }
      var settings = source.configuration
      if settings.mixture != nil, settings.mixture?.activation == nil {
        settings.mixture?.activation = configuration.feedForward.activation
      }
      return Adapter(configuration: settings, trained: try TrainedPart(tensors, on: backend), balanceLoss: balance)
    }
  }
}

/// What families build blocks with: asks the sources for every value by name and shape, and lists what is trained.
struct DecoderAssembly<B: Backend> {
  let configuration: DecoderConfiguration
  let weights: any WeightSource<B>
  let adapters: [AdapterSource<B>]
  let trainsBase: Bool
  private let evaluation: ExpertEvaluation
  let backend: B
  private var rotary: RotaryEmbedding<B>?
  /// What new branches begin with that were made of their layers' weights, by the layers' names.
  var factors: [String: (a: Tensor<B>, b: Tensor<B>)] = [:]
  /// Trained tensors of the base.
  private(set) var baseTensors: [PendingTensor<B>] = []
  /// Tensors of each adapter.
  var adapterTensors: [[PendingTensor<B>]]

  init(
    _ configuration: DecoderConfiguration, weights: any WeightSource<B>, adapters: [AdapterSource<B>], trainsBase: Bool,
    evaluation: ExpertEvaluation, on backend: B
  ) {
    self.configuration = configuration
    self.weights = weights
    self.adapters = adapters
    self.trainsBase = trainsBase
    self.evaluation = evaluation
    self.backend = backend
    adapterTensors = adapters.map { _ in [] }
  }

  // MARK: Layers

  /// All layers of the model, every tensor being asked for by name and shape.
  mutating func build() throws -> (Embedding<B>, [any DecoderBlock<B>], RMSNorm<B>, LanguageModelHead<B>) {
    let (v, c) = (configuration.vocabulary, configuration.channels)
    let matrix = InitialValue.random(.normal(deviation: configuration.initializerRange))
    try requireSharedBase()
    let table = try base("model.embed_tokens.weight", Shape(v, c), matrix)
    let blocks = try (0..<configuration.layers).map { try configuration.family.block($0, &self) }
    try requireBranches()
    let norm = try self.norm("model.norm")
    let weight = try self.head("lm_head.weight", Shape(v, c), matrix, embedding: ("model.embed_tokens.weight", table))
    return (
      Embedding(path: "model.embed_tokens", weight: table, scale: configuration.embeddingScale), blocks, norm,
      LanguageModelHead(weight: weight, softcap: configuration.head.softcap)
    )
  }

  /// A weight of the base, or the adapter's own in its place.
  mutating func base(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Weight<B> {
    if let own = try ownWeight(name, shape, initial, source: name) { return own }
    return try given(name, shape, initial)
  }

  /// The head's weight. A tied one is the embedding's, unless an adapter brings its own of either: then they are two.
  mutating func head(
    _ name: String, _ shape: Shape, _ initial: InitialValue, embedding: (name: String, weight: Weight<B>)
  ) throws -> Weight<B> {
    guard configuration.head.isTied else { return try base(name, shape, initial) }
    if let own = try ownWeight(name, shape, initial, source: embedding.name) { return own }
    let isOwn = adapters.contains { $0.configuration.ownName(ofBase: embedding.name) != nil }
    return isOwn ? try given(embedding.name, shape, initial) : embedding.weight
  }

  /// A weight of the base as its files have it.
  private mutating func given(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Weight<B> {
    guard trainsBase else { return .frozen(try weights.frozen(name, shape, initial)) }
    try weights.require(name, shape)
    let parameter = Parameter<B>(name, shape)
    let tensor = TrainedTensor(name: name, parameter: parameter, part: nil)
    baseTensors.append(PendingTensor(tensor: tensor, weights: weights, initial: initial))
    return .trained(parameter)
  }

  /// A norm over the channels.
  mutating func norm(_ path: String) throws -> RMSNorm<B> {
    let offset = configuration.norm.offset
    let weight = try base(path + ".weight", Shape(configuration.channels), .constant(1 - offset))
    return RMSNorm(path: path, weight: weight, offset: offset, epsilon: configuration.norm.epsilon)
  }

  /// Attention with the adapters' branches on its four projections.
  mutating func attention(_ path: String, _ layer: Int) throws -> Attention<B> {
    let (q, k) = (try loraLinear(path, .q, layer), try loraLinear(path, .k, layer))
    let (v, o) = (try loraLinear(path, .v, layer), try loraLinear(path, .o, layer))
    let rotary =
      self.rotary
      ?? RotaryEmbedding(
        base: configuration.rotary.base, scaling: configuration.rotary.scaling, divisors: configuration.rotary.divisors,
        headWidth: configuration.attention.headWidth, on: backend)
    self.rotary = rotary
    let form = AttentionForm(
      heads: configuration.attention.heads, keyValueHeads: configuration.attention.keyValueHeads,
      headWidth: configuration.attention.headWidth, scale: configuration.attention.scale, window: configuration.attention.windows[layer],
      softcap: configuration.attention.softcap)
    return Attention(path: path, q: q, k: k, v: v, o: o, form: form, rotary: rotary, dropout: adapters.map(\.configuration.lora.dropout))
  }

  /// The feed-forward with the adapters' branches or experts.
  mutating func feedForward(_ path: String, _ layer: Int) throws -> FeedForward<B> {
    let frozen = GatedLinears(
      gate: try linear(path, .gate, layer), up: try linear(path, .up, layer), down: try linear(path, .down, layer),
      activation: configuration.feedForward.activation)
    let hiddenDropout = InputDropout<B>(path: path + ".down_proj.input", probabilities: adapters.map(\.configuration.lora.dropout))
    let adapted = try adapters.indices.map { number in
      let settings = adapters[number].configuration
      guard let mixture = settings.mixture else {
        return AdaptedFeedForward.dense(
          DenseBranches(
            path: prefix(number) + path, adapter: number, gate: try branch(.gate, layer, number), up: try branch(.up, layer, number),
            down: try branch(.down, layer, number), hiddenDropout: hiddenDropout))
      }
      let gate = try parameter(
        settings.prefix(ofLayer: layer) + ".mlp.moe_gate.weight", Shape(mixture.experts, configuration.channels),
        .random(.normal(deviation: mixture.routerInitializerRange)), .router, number)
      let experts = LoRAExperts(
        activation: mixture.activation ?? configuration.feedForward.activation, path: prefix(number) + path, adapter: number,
        lora1: try expertLoRA(.gate, layer, number),
        lora3: try expertLoRA(.up, layer, number),
        lora2: try expertLoRA(.down, layer, number), experts: mixture.experts, dropout: mixture.lora.dropout, dropoutPath: path + ".experts"
      )
      let router = Router(path: prefix(number) + path + ".moe_gate", adapter: number, gate: gate, policy: mixture.policy)
      return .mixture(ExpertMixture(router: router, experts: experts))
    }
    return FeedForward(
      path: path, frozen: frozen, adapters: adapted, evaluation: evaluation,
      dropout: adapters.map { ($0.configuration.mixture?.lora ?? $0.configuration.lora).dropout })
  }

  // MARK: Their tensors

  /// What hooks know an adapter's own modules by, where there are several.
  private func prefix(_ number: Int) -> String { adapters.count > 1 ? "adapter.\(number)." : "" }

  /// A frozen linear layer, or a trained one.
  mutating func linear(_ module: String, _ name: LinearName, _ layer: Int) throws -> Linear<B> {
    let path = "\(module).\(name.rawValue)"
    let (o, i) = configuration.linearSizes(name)
    let initial = InitialValue.random(.normal(deviation: configuration.initializerRange))
    let weight = try remainder(name.path(inLayer: layer), Shape(o, i), initial) ?? base(path + ".weight", Shape(o, i), initial)
    return Linear(weight: weight, bias: configuration.hasBias(name) ? try base(path + ".bias", Shape(o), .constant(0)) : nil)
  }

  /// A linear layer with each adapter's branch on it.
  mutating func loraLinear(_ module: String, _ name: LinearName, _ layer: Int) throws -> LoRALinear<B> {
    let linear = try linear(module, name, layer)
    return LoRALinear(
      path: "\(module).\(name.rawValue)", linear: linear, branches: try adapters.indices.compactMap { try branch(name, layer, $0) })
  }

  /// A tensor of an adapter, which is always trained.
  private mutating func parameter(
    _ name: String, _ shape: Shape, _ initial: InitialValue, _ role: Parameter<B>.Role, _ number: Int, _ value: Tensor<B>? = nil
  ) throws -> Parameter<B> {
    let parameter = Parameter<B>(name, shape, role: role)
    try add(TrainedTensor(name: name, parameter: parameter, part: nil), shape, initial, number, value)
    return parameter
  }

  /// Lists a tensor of an adapter, which its source must have.
  mutating func add(
    _ tensor: TrainedTensor<B>, _ shape: Shape, _ initial: InitialValue, _ number: Int, _ value: Tensor<B>? = nil
  ) throws {
    try adapters[number].weights.require(tensor.name, shape)
    adapterTensors[number].append(PendingTensor(tensor: tensor, weights: adapters[number].weights, initial: initial, value: value))
  }

  /// An adapter's branch on a layer without experts, if it targets the layer.
  private mutating func branch(_ name: LinearName, _ layer: Int, _ number: Int) throws -> LoRABranch<B>? {
    let settings = adapters[number].configuration
    guard let lora = settings.lora(on: name, layer: layer) else { return nil }
    let (o, i) = configuration.linearSizes(name)
    let prefix = "\(settings.prefix(ofLayer: layer)).\(name.module).\(name.rawValue)"
    let factors = factors.removeValue(forKey: name.path(inLayer: layer))
    let a = try parameter(prefix + ".lora_A.weight", Shape(lora.rank, i), lora.initialA(inputs: i), .a, number, factors?.a)
    let b = try parameter(prefix + ".lora_B.weight", Shape(o, lora.rank), .constant(0), .b, number, factors?.b)
    return LoRABranch(adapter: number, a: a, b: b, scale: lora.scale)
  }

  /// All experts' branches on a layer, if the adapter targets it: a tensor an expert in the file, one stack here.
  private mutating func expertLoRA(_ name: LinearName, _ layer: Int, _ number: Int) throws -> ExpertLoRA<B>? {
    let settings = adapters[number].configuration
    guard let mixture = settings.mixture, let lora = settings.lora(on: name, layer: layer) else { return nil }
    let (experts, r) = (mixture.experts, lora.rank)
    let (o, i) = configuration.linearSizes(name)
    let prefix = "\(settings.prefix(ofLayer: layer)).mlp.\(name.rawValue).experts"
    let a = Parameter<B>("\(prefix).lora_A", Shape(experts * r, i), role: .a)  // (E·r,I)
    let b = Parameter<B>("\(prefix).lora_B", Shape(o, experts * r), role: .b)  // (O,E·r)
    for e in 0..<experts {
      let (partA, partB) = (
        TrainedTensor(name: "\(prefix).\(e).lora_A.weight", parameter: a, part: (e, experts, .rows)),
        TrainedTensor(name: "\(prefix).\(e).lora_B.weight", parameter: b, part: (e, experts, .columns))
      )
      try add(partA, Shape(r, i), lora.initialA(inputs: i), number)
      try add(partB, Shape(o, r), .constant(0), number)
    }
    return ExpertLoRA(a: a, b: b, experts: experts, scale: lora.scale)
  }
}
