import Layers
import Tensors

extension Decoder {
  /// Puts a model together from its values.
  ///
  /// - Parameters:
  ///   - weights: the base model's values, by Hugging Face's names.
  ///   - adapter: the settings and values of an adapter, by MoE-PEFT's or PEFT's names.
  ///   - trainsBase: whether the base weights are trained (too).
  ///   - evaluation: how the experts are computed.
  ///   - balanceLoss: which form of the balance loss a MixLoRA adapter has.
  /// - Throws: what a source throws: a missing or mis-shaped tensor.
  public init(
    _ configuration: DecoderConfiguration, weights: some WeightSource<B>,
    adapter: (configuration: AdapterConfiguration, weights: any WeightSource<B>)? = nil, trainsBase: Bool = false,
    evaluation: ExpertEvaluation = .sharedBase, balanceLoss form: BalanceLossForm = .pooledTopK, on backend: B
  ) throws {
    var assembly = Assembly(
      configuration: configuration, weights: weights, adapter: adapter, trainsBase: trainsBase, evaluation: evaluation, backend: backend)
    let (v, c) = (configuration.vocabulary, configuration.channels)
    let matrix = InitialValue.random(.normal(deviation: configuration.initializerRange))
    let table = try assembly.base("model.embed_tokens.weight", Shape(v, c), matrix)
    embedding = Embedding(path: "model.embed_tokens", weight: table)
    blocks = try (0..<configuration.layers).map { try assembly.block("model.layers.\($0)", index: $0) }
    norm = try assembly.norm("model.norm")
    head = LanguageModelHead(weight: configuration.tiesHead ? table : try assembly.base("lm_head.weight", Shape(v, c), matrix))
    self.configuration = configuration
    self.adapter = adapter?.configuration
    balanceLoss = adapter?.configuration.mixture.map { BalanceLoss(form, coefficient: $0.hasBalanceLoss ? $0.balanceCoefficient : 0) }
    trainedTensors = assembly.trained
  }
}

/// Asks the sources for every value by name and shape, and lists what is trained.
private struct Assembly<B: Backend> {
  let configuration: DecoderConfiguration
  let weights: any WeightSource<B>
  let adapter: (configuration: AdapterConfiguration, weights: any WeightSource<B>)?
  let trainsBase: Bool
  let evaluation: ExpertEvaluation
  let backend: B
  var rotary: RotaryEmbedding<B>?
  var trained: [TrainedTensor<B>] = []

  mutating func base(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Weight<B> {
    guard trainsBase else { return .frozen(try weights.frozen(name, shape, initial)) }
    let parameter = Parameter(name, try weights.tensor(name, shape, initial), on: backend)
    trained.append(TrainedTensor(name: name, parameter: parameter, part: nil))
    return .trained(parameter)
  }

  mutating func norm(_ path: String) throws -> RMSNorm<B> {
    let weight = try base(path + ".weight", Shape(configuration.channels), .constant(1))
    return RMSNorm(path: path, weight: weight, epsilon: configuration.normEpsilon)
  }

  mutating func block(_ path: String, index: Int) throws -> DecoderBlock<B> {
    DecoderBlock(
      path: path, inputNorm: try norm(path + ".input_layernorm"), attention: try attention(path + ".self_attn", index),
      postAttentionNorm: try norm(path + ".post_attention_layernorm"), feedForward: try feedForward(path + ".mlp", index))
  }

  private mutating func attention(_ path: String, _ index: Int) throws -> Attention<B> {
    let (q, k) = (try loraLinear(path, .q, index), try loraLinear(path, .k, index))
    let (v, o) = (try loraLinear(path, .v, index), try loraLinear(path, .o, index))
    // Only now is the width of a head known to be more than a number in a configuration, so that its table may be made.
    let rotary =
      self.rotary
      ?? RotaryEmbedding(
        base: configuration.ropeBase, scaling: configuration.ropeScaling, divisors: configuration.ropeDivisors,
        headWidth: configuration.headWidth, on: backend)
    self.rotary = rotary
    return Attention(
      path: path, q: q, k: k, v: v, o: o, heads: configuration.heads, keyValueHeads: configuration.keyValueHeads,
      window: configuration.window(ofLayer: index), rotary: rotary, dropout: adapter?.configuration.lora.dropout ?? 0)
  }

  private mutating func feedForward(_ path: String, _ index: Int) throws -> DecoderBlock<B>.FeedForward {
    guard let adapter, let mixture = adapter.configuration.mixture else {
      return .dense(
        GatedFeedForward(
          path: path, gate: try loraLinear(path, .gate, index), up: try loraLinear(path, .up, index),
          down: try loraLinear(path, .down, index), dropout: adapter?.configuration.lora.dropout ?? 0))
    }
    let gateName = adapter.configuration.prefix(ofLayer: index) + ".mlp.moe_gate.weight"
    let gate = try parameter(
      gateName, Shape(mixture.experts, configuration.channels), .random(.normal(deviation: mixture.routerInitializerRange)))
    let experts = LoRAExperts(
      path: path, w1: try linear(path, .gate), w3: try linear(path, .up), w2: try linear(path, .down),
      lora1: try expertLoRA(.gate, index), lora3: try expertLoRA(.up, index), lora2: try expertLoRA(.down, index),
      experts: mixture.experts, dropout: mixture.lora.dropout, evaluation: evaluation)
    return .mixture(
      MixLoRAFeedForward(
        path: path, router: Router(path: path + ".moe_gate", gate: gate, expertsPerToken: mixture.expertsPerToken), experts: experts,
        dropout: mixture.lora.dropout))
  }

  private mutating func linear(_ module: String, _ name: LinearName) throws -> Linear<B> {
    let path = "\(module).\(name.rawValue)"
    let (o, i) = configuration.linearSizes(name)
    let weight = try base(path + ".weight", Shape(o, i), .random(.normal(deviation: configuration.initializerRange)))
    return Linear(weight: weight, bias: configuration.hasBias(name) ? try base(path + ".bias", Shape(o), .constant(0)) : nil)
  }

  private mutating func loraLinear(_ module: String, _ name: LinearName, _ index: Int) throws -> LoRALinear<B> {
    LoRALinear(path: "\(module).\(name.rawValue)", linear: try linear(module, name), branches: try branches(name, index))
  }

  /// A tensor of the adapter, which is always trained.
  private mutating func parameter(_ name: String, _ shape: Shape, _ initial: InitialValue) throws -> Parameter<B> {
    guard let adapter else { trap("\(name): there is no adapter") }
    let parameter = Parameter(name, try adapter.weights.tensor(name, shape, initial), on: backend)
    trained.append(TrainedTensor(name: name, parameter: parameter, part: nil))
    return parameter
  }

  /// The adapter's branch on a layer without experts, if it targets the layer.
  private mutating func branches(_ name: LinearName, _ index: Int) throws -> [LoRABranch<B>] {
    guard let settings = adapter?.configuration, settings.targets.contains(name) else { return [] }
    let (o, i) = configuration.linearSizes(name)
    let prefix = "\(settings.prefix(ofLayer: index)).\(name.module).\(name.rawValue)"
    let a = try parameter(prefix + ".lora_A.weight", Shape(settings.lora.rank, i), settings.lora.initialA(inputs: i))
    let b = try parameter(prefix + ".lora_B.weight", Shape(o, settings.lora.rank), .constant(0))
    return [LoRABranch(a: a, b: b, scale: settings.lora.scale)]
  }

  /// All experts' branches on a layer, if the adapter targets it: a tensor an expert in the file, one stack here.
  private mutating func expertLoRA(_ name: LinearName, _ index: Int) throws -> ExpertLoRA<B>? {
    guard let adapter, let mixture = adapter.configuration.mixture, adapter.configuration.targets.contains(name) else { return nil }
    let (lora, experts, r) = (mixture.lora, mixture.experts, mixture.lora.rank)
    let (o, i) = configuration.linearSizes(name)
    let prefix = "\(adapter.configuration.prefix(ofLayer: index)).mlp.\(name.rawValue).experts"
    // All are read before the stacks are made: E and r may be mere numbers in a configuration.
    let pairs = try (0..<experts).map { e in
      (
        a: try adapter.weights.tensor("\(prefix).\(e).lora_A.weight", Shape(r, i), lora.initialA(inputs: i)),
        b: try adapter.weights.tensor("\(prefix).\(e).lora_B.weight", Shape(o, r), .constant(0))
      )
    }
    var allA = backend.empty(Shape(experts * r, i))  // (E·r,I)
    var allB = backend.empty(Shape(o, experts * r))  // (O,E·r)
    for (e, pair) in pairs.enumerated() {
      backend.copy(pair.a, into: &allA, rows: e * r..<(e + 1) * r, columns: nil)
      backend.copy(pair.b, into: &allB, rows: nil, columns: e * r..<(e + 1) * r)
    }
    let (a, b) = (Parameter("\(prefix).lora_A", allA, on: backend), Parameter("\(prefix).lora_B", allB, on: backend))
    for e in 0..<experts {
      trained.append(TrainedTensor(name: "\(prefix).\(e).lora_A.weight", parameter: a, part: (e, experts, .rows)))
      trained.append(TrainedTensor(name: "\(prefix).\(e).lora_B.weight", parameter: b, part: (e, experts, .columns)))
    }
    return ExpertLoRA(a: a, b: b, scale: lora.scale)
  }
}
