import Checkpoints
import Conformance
import Decoders
import Layers
import Tensors
import Traces

/// Runs cases on a backend of ours.
struct CaseRunner<B: Backend> {
  let folder: CaseFolder
  let backend: B
  /// Of the cases that have experts.
  var evaluation = ExpertEvaluation.sharedBase
  private(set) var results = NamedTensors()

  init(_ folder: CaseFolder, on backend: B, evaluation: ExpertEvaluation = .sharedBase) {
    (self.folder, self.backend, self.evaluation) = (folder, backend, evaluation)
  }

  /// The results that the case's description names.
  static func results(of folder: CaseFolder, on backend: B, evaluation: ExpertEvaluation = .sharedBase) throws -> NamedTensors {
    var runner = CaseRunner(folder, on: backend, evaluation: evaluation)
    try runner.run()
    return runner.results
  }

  mutating func run() throws {
    switch folder.operation {
    case "linear", "lora-linear": try runLinear()
    case "rms-norm": try runNorm()
    case "rotary": try runRotary()
    case "attention": try runAttention()
    case "gated": try runGated()
    case "router": try runRouter()
    case "combine": try runCombine()
    case "experts": try runExperts()
    case "feed-forward": try runFeedForward()
    case "head": try runHead()
    case "balance-loss": try runBalanceLoss()
    case "embedding": try runEmbedding()
    case "adamw": try runAdamW()
    case "sgd": try runSGD()
    case "clip": try runClip()
    case "model": try runModel()
    default: throw CheckpointError(file: folder.path, found: "the operation \(folder.operation)", expected: "a known one")
    }
  }

  // MARK: Tensors

  func tensor(_ key: String) throws -> Tensor<B> {
    let input = try folder.input(key)
    let shape = input.shape.count == 1 ? Shape(input.shape[0]) : Shape(input.shape[0], input.shape.dropFirst().reduce(1, *))
    return backend.upload(input.values.map { B.Scalar($0) }, shape)
  }

  func parameter(_ key: String) throws -> Parameter<B> { Parameter(key, try tensor(key), on: backend) }

  func frozen(_ key: String) throws -> Weight<B> { .frozen(backend.freeze(try tensor(key))) }

  func has(_ key: String) -> Bool { folder.inputs[key] != nil }

  mutating func give(_ name: String, _ values: [B.Scalar]) {
    results.append(name, values, shape: folder.expected[name]?.shape ?? [values.count])
  }

  mutating func give(_ name: String, _ tensor: Tensor<B>) throws { give(name, try backend.download(tensor)) }

  mutating func give(_ name: String, decisions: [Int32]) {
    results.append(name, decisions.map { Double($0) }, shape: folder.expected[name]?.shape ?? [decisions.count])
  }

  /// A batch whose rows have these positions and labels, each row a sequence of its own.
  func batch(positions: [Int32], labels: [Int32?]? = nil) -> PackedBatch<B> {
    let sequences = positions.indices.map { row in
      PackedSequence(ids: [0], firstPosition: Int(positions[row]), labels: [labels?[row]])
    }
    return PackedBatch(sequences, on: backend)
  }

  func rows(_ count: Int) -> PackedBatch<B> { batch(positions: [Int32](repeating: 0, count: count)) }

  // MARK: Layers

  private mutating func runLinear() throws {
    let (x, dy) = (try tensor("x"), try tensor("dy"))
    let isLoRA = folder.operation == "lora-linear"
    let weight = try isLoRA ? frozen("weight") : .trained(parameter("weight"))
    let bias = try has("bias") ? (isLoRA ? frozen("bias") : .trained(parameter("bias"))) : nil
    var branches: [LoRABranch<B>] = []
    if isLoRA { branches = [LoRABranch(a: try parameter("A"), b: try parameter("B"), scale: try folder.number("scale"))] }
    let layer = LoRALinear(path: "linear", linear: Linear(weight: weight, bias: bias), branches: branches)
    let (batch, run, dropout) = (rows(x.rowCount), Run(backend), InputDropout<B>(path: "x", probabilities: [0]))
    let input = dropout.forward(x, batch, run)
    let (y, cache) = layer.forward(input, batch, run)
    var gradient = LoRAGradient<B>(adapters: 1)
    layer.backward(dy, input, cache, into: &gradient, batch, run)
    try give("y", y)
    try give("dx", dropout.backward(&gradient, batch, run))
    if let weight = weight.parameter { try give("dweight", weight.gradient) }
    if let bias = bias?.parameter { try give("dbias", bias.gradient) }
    for branch in branches {
      try give("dA", branch.a.gradient)
      try give("dB", branch.b.gradient)
    }
  }

  private mutating func runNorm() throws {
    let (weight, run) = (try parameter("weight"), Run(backend))
    let norm = RMSNorm<B>(
      path: "norm", weight: .trained(weight), offset: try folder.number("offset"), epsilon: try folder.number("epsilon"))
    let (y, cache) = norm.forward(try tensor("x"), run)
    var dx: Tensor<B>?
    norm.backward(try tensor("dy"), cache, into: &dx, run)
    try give("y", y)
    if let dx { try give("dx", dx) }
    try give("dweight", weight.gradient)
  }

  private mutating func runRotary() throws {
    let rotary = RotaryEmbedding(
      base: try folder.number("base"), scaling: try scaling(), headWidth: try folder.integer("head_width"), on: backend)
    let (batch, run) = (batch(positions: try folder.integers("positions")), Run(backend))
    try give("y", rotary.forward(try tensor("x"), batch, run))
    try give("dx", rotary.backward(try tensor("dy"), batch, run))
  }

  private func scaling() throws -> RotaryScaling? {
    guard let s = folder.attributes["scaling"] else { return nil }
    func number(_ key: String) -> Double { s[key]?.doubleValue ?? .nan }
    func list(_ key: String) -> [Double] { s[key]?.arrayValue?.compactMap(\.doubleValue) ?? [] }
    let original = s["original_positions"]?.intValue ?? 0
    switch s["type"]?.stringValue {
    case "linear": return .linear(factor: number("factor"))
    case "dynamic": return .dynamic(factor: number("factor"), originalPositions: original)
    case "yarn":
      var yarn = RotaryScaling.YaRN(factor: number("factor"), originalPositions: original)
      (yarn.fast, yarn.slow) = (number("beta_fast"), number("beta_slow"))
      return .yarn(yarn)
    case "longrope":
      return .longRoPE(.init(short: list("short"), long: list("long"), originalPositions: original, magnitude: number("magnitude")))
    case "llama3":
      return .llama3(
        .init(
          factor: number("factor"), lowFrequencyFactor: number("low_frequency_factor"),
          highFrequencyFactor: number("high_frequency_factor"), originalPositions: Double(original)))
    default: throw CheckpointError(file: folder.path, found: "scaling \(s.excerpt)", expected: "a known one")
    }
  }

  private mutating func runAttention() throws {
    let (q, k, v) = (try tensor("q"), try tensor("k"), try tensor("v"))
    let form = AttentionForm(
      heads: try folder.integer("heads"), keyValueHeads: try folder.integer("key_value_heads"), headWidth: try folder.integer("head_width"),
      scale: try folder.number("scale"), window: folder.attributes["window"]?.intValue, softcap: folder.attributes["softcap"]?.doubleValue)
    let plan = SequencePlan(offsets: folder.attributes["offsets"]?.arrayValue?.compactMap(\.intValue) ?? [0, q.rowCount], on: backend)
    let (y, logSumExp) = backend.attention(q, k, v, plan, form)
    let (dq, dk, dv) = backend.attentionBackward(try tensor("dy"), q, k, v, output: y, logSumExp: logSumExp, plan, form)
    try give("y", y)
    try give("dq", dq)
    try give("dk", dk)
    try give("dv", dv)
  }

  private mutating func runGated() throws {
    let (a, c, activation) = (try tensor("a"), try tensor("c"), try self.activation())
    let (da, dc) = backend.gatedBackward(activation, try tensor("dh"), a, c)
    try give("h", backend.gated(activation, a, c))
    try give("da", da)
    try give("dc", dc)
  }

  func activation() throws -> Activation {
    guard let activation = Activation(rawValue: folder.attributes["activation"]?.stringValue ?? "") else {
      throw CheckpointError(file: folder.path, found: "another activation", expected: "a known one")
    }
    return activation
  }

  private mutating func runEmbedding() throws {
    let weight = try parameter("weight")
    let embedding = Embedding<B>(path: "embedding", weight: .trained(weight), scale: try folder.number("scale"))
    let ids = backend.upload(try folder.integers("ids"))
    try give("y", embedding.forward(ids, Run(backend)))
    embedding.backward(try tensor("dy"), ids, Run(backend))
    try give("dweight", weight.gradient)
  }

  private mutating func runHead() throws {
    let (x, weight) = (try tensor("x"), try parameter("weight"))
    let head = LanguageModelHead<B>(weight: .trained(weight), softcap: folder.attributes["softcap"]?.doubleValue)
    let labels = try folder.integers("labels").map { $0 < 0 ? nil : Optional($0) }
    let batch = batch(positions: [Int32](repeating: 0, count: labels.count), labels: labels)
    var dx = backend.zeros(x.shape)
    let owner = batch.labels(of: 0)
    let losses = head.gradients(x, [(owner, Double(owner.count))], into: &dx, Run(backend))
    try give("logits", head.logits(x, Run(backend)))
    try give("loss", losses[0])
    try give("dx", dx)
    try give("dweight", weight.gradient)
  }

  // MARK: Whole models

  private mutating func runModel() throws {
    func file(_ key: String) -> String? { folder.attributes[key]?.stringValue.map { "\(folder.path)/\($0)" } }
    guard let model = file("model") else { throw CheckpointError(file: folder.path, found: "no model", expected: "its folder") }
    let adapter = file("adapter").map { AdapterOrigin.folder($0) } ?? .none
    let decoder = try ModelFolder.load(model, adapter: adapter, trainsBase: file("adapter") == nil, evaluation: evaluation, on: backend)
    let batch = try TraceBatch(contentsOf: folder.path + "/inputs.safetensors", vocabulary: decoder.configuration.vocabulary)
    var request = TraceRequest()
    request.backward = true
    results = NamedTensors(try Trace.record(decoder, batch, request, on: backend) { _ in }.tensors)
  }
}
