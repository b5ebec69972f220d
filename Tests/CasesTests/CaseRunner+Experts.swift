import Checkpoints
import Conformance
import Layers
import Tensors
import Traces

extension CaseRunner {
  private func policy(_ experts: Int) throws -> RoutingPolicy {
    guard folder.attributes["policy"]?.stringValue == "top-p" else { return .topK(try folder.integer("k")) }
    return .topP(threshold: try folder.number("threshold"), temperature: try folder.number("temperature"))
  }

  /// Values by slot (N·S) from those of the rows in expert order; 0 in an empty slot.
  private func slots(_ rows: Tensor<B>, _ routing: Routing<B>) throws -> [B.Scalar] {
    let (values, places) = (try backend.download(rows), try backend.download(routing.slotOfRow))
    let width = rows.shape.isVector ? 1 : rows.columnCount
    var slots = [B.Scalar](repeating: 0, count: routing.tokens * routing.slots * width)
    for (row, slot) in places.enumerated() {
      for c in 0..<width { slots[Int(slot) * width + c] = values[row * width + c] }
    }
    return slots
  }

  mutating func runRouter() throws {
    let (x, gate) = (try tensor("x"), try parameter("gate"))
    let router = Router<B>(path: "router", gate: gate, policy: try policy(gate.shape.rows))
    let recorder = Recorder(on: backend) { _ in true }
    let run = Run(backend, hooks: [recorder])
    let cache = router.forward(x, run)
    let records = recorder.records
    give("logits", records["router.output"]?.values ?? [])
    give("probabilities", records["router.probabilities.output"]?.values ?? [])
    give("choice", decisions: recorder.choices["router.choice"] ?? [])
    give("weights", records["router.weights.output"]?.values ?? [])
    guard has("dweights") else { return }
    let (dweights, places) = (try folder.input("dweights").values, try backend.download(cache.routing.slotOfRow))
    let dw = backend.upload(places.map { B.Scalar(dweights[Int($0)]) }, Shape(places.count))
    var dx = backend.zeros(x.shape)
    router.backward(dw, x, cache, into: &dx, Run(backend))
    try give("dx", dx)
    try give("dgate", gate.gradient)
  }

  mutating func runCombine() throws {
    let choice = try folder.input("choice")
    let (tokens, slots, experts) = (choice.shape[0], choice.shape[1], try folder.integer("experts"))
    let policy: RoutingPolicy = slots == experts ? .topP(threshold: 1, temperature: 0) : .topK(slots)
    let p = backend.upload([B.Scalar](repeating: 1 / B.Scalar(experts), count: tokens * experts), Shape(tokens, experts))
    let plan = backend.route(p, choice: backend.upload(try folder.integers("choice")), policy)
    let (h, weights, width) = (try folder.input("h"), try folder.input("weights").values, try folder.input("h").shape[2])
    let places = try backend.download(plan.slotOfRow).map { Int($0) }
    let rows = backend.upload(
      places.flatMap { slot in h.values[slot * width..<(slot + 1) * width].map { B.Scalar($0) } }, Shape(places.count, width))
    let routing = plan.withWeights(backend.upload(places.map { B.Scalar(weights[$0]) }, Shape(places.count)))
    try give("y", backend.combine(rows, weights: routing.weights, routing))
    let dy = backend.dispatch(try tensor("dy"), routing)
    var dh = backend.dispatch(try tensor("dy"), routing)
    backend.scaleRows(routing.weights, &dh)
    give("dh", try self.slots(dh, routing))
    give("dweights", try self.slots(backend.rowDots(dy, rows), routing))
  }

  mutating func runBalanceLoss() throws {
    let input = try folder.input("logits")
    let (layers, tokens, experts) = (input.shape[0], input.shape[1], input.shape[2])
    guard let form = BalanceLossForm(rawValue: folder.attributes["form"]?.stringValue ?? "") else {
      throw CheckpointError(file: folder.path, found: "another form", expected: "a known one")
    }
    let policy = RoutingPolicy.topK(try folder.integer("k"))
    var (plans, loads): ([(p: Tensor<B>, routing: Routing<B>)], [RouterLoad<B>]) = ([], [])
    for layer in 0..<layers {
      let values = input.values[layer * tokens * experts..<(layer + 1) * tokens * experts]
      let p = backend.softmax(backend.upload(values.map { B.Scalar($0) }, Shape(tokens, experts)))
      let routing = backend.route(p, choice: backend.choose(p, policy), policy)
      plans.append((p, routing))
      loads.append(
        RouterLoad(
          path: "\(layer)", adapter: 0, tokens: tokens, counts: routing.counts, firstCounts: routing.firstCounts, probabilities: p))
    }
    let (loss, balances) = BalanceLoss<B>(form, coefficient: try folder.number("coefficient")).forward(loads, Run(backend))
    try give("loss", loss)
    var dlogits: [B.Scalar] = []
    for (plan, balance) in zip(plans, balances) {
      let noGradient = backend.zeros(Shape(plan.routing.rows))
      dlogits += try backend.download(backend.routerBackward(noGradient, plan.p, plan.routing, balance: balance))
    }
    give("dlogits", dlogits)
  }

  private func gatedLinears() throws -> GatedLinears<B> {
    func linear(_ number: Int) throws -> Linear<B> {
      Linear(weight: try frozen("W\(number)"), bias: try has("b\(number)") ? frozen("b\(number)") : nil)
    }
    return GatedLinears(gate: try linear(1), up: try linear(3), down: try linear(2), activation: try activation())
  }

  mutating func runFeedForward() throws {
    let scale = try folder.number("scale")
    func branch(_ number: Int) throws -> LoRABranch<B> {
      LoRABranch(a: try parameter("A\(number)"), b: try parameter("B\(number)"), scale: scale)
    }
    let (gate, up, down) = (try branch(1), try branch(3), try branch(2))
    let branches = DenseBranches(
      path: "mlp", adapter: 0, gate: gate, up: up, down: down, hiddenDropout: InputDropout(path: "h", probabilities: [0]))
    try give(FeedForward(path: "mlp", frozen: try gatedLinears(), adapters: [.dense(branches)], dropout: [0]))
    for (number, branch) in [(1, gate), (3, up), (2, down)] {
      try give("dA\(number)", branch.a.gradient)
      try give("dB\(number)", branch.b.gradient)
    }
  }

  private mutating func give(_ layer: FeedForward<B>) throws {
    let x = try tensor("x")
    let recorder = Recorder(on: backend) { $0.hasSuffix("choice") }
    let (batch, run) = (rows(x.rowCount), Run(backend, hooks: [recorder]))
    let (y, cache) = layer.forward(x, batch, run)
    try give("y", y)
    if let choice = recorder.choices.values.first { give("choice", decisions: choice) }
    try give("dx", layer.backward(try tensor("dy"), x, cache, batch, run))
  }

  mutating func runExperts() throws {
    let (experts, scale, gate) = (try folder.integer("experts"), try folder.number("scale"), try parameter("gate"))
    /// The matrices of all experts: A_k below each other, B_k (O,r) side by side.
    func lora(_ number: Int) throws -> ExpertLoRA<B>? {
      guard has("A\(number)") else { return nil }
      let (a, b) = (try folder.input("A\(number)"), try folder.input("B\(number)"))
      let stacked = backend.upload(a.values.map { B.Scalar($0) }, Shape(experts * a.shape[1], a.shape[2]))
      let side = backend.upload(
        turned(b.values, experts, b.shape[1], b.shape[2]).map { B.Scalar($0) }, Shape(b.shape[1], experts * b.shape[2]))
      return ExpertLoRA(
        a: Parameter("A", stacked, role: .a, on: backend), b: Parameter("B", side, role: .b, on: backend), experts: experts, scale: scale)
    }
    let loras = [(1, try lora(1)), (3, try lora(3)), (2, try lora(2))]
    let mixture = ExpertMixture(
      router: Router(path: "mlp.moe_gate", gate: gate, policy: try policy(experts)),
      experts: LoRAExperts(
        activation: try activation(), path: "mlp.experts", lora1: loras[0].1, lora3: loras[1].1, lora2: loras[2].1, experts: experts,
        dropout: 0, dropoutPath: "mlp.experts"))
    try give(
      FeedForward(path: "mlp", frozen: try gatedLinears(), adapters: [.mixture(mixture)], evaluation: evaluation, dropout: [0]))
    try give("dgate", gate.gradient)
    for (number, lora) in loras {
      guard let lora else { continue }
      try give("dA\(number)", lora.a.gradient)
      let (o, r) = (lora.b.shape.rows, lora.b.shape.columns / experts)
      give("dB\(number)", turned(try backend.download(lora.b.gradient), o, experts, r))
    }
  }

  /// (a,b,c) → (b,a,c).
  private func turned<S>(_ values: [S], _ a: Int, _ b: Int, _ c: Int) -> [S] {
    var result: [S] = []
    for j in 0..<b {
      for i in 0..<a {
        let begin = (i * b + j) * c
        result += values[begin..<begin + c]
      }
    }
    return result
  }

  // MARK: Optimizers

  mutating func runAdamW() throws {
    let gradients = try folder.input("gradients")
    let count = gradients.shape[1]
    var (x, m, v) = (try tensor("x"), backend.zeros(Shape(count)), backend.zeros(Shape(count)))
    for step in 0..<gradients.shape[0] {
      var settings = AdamWSettings(
        learningRate: try folder.number("learning_rate"), weightDecay: try folder.number("weight_decay"), step: step + 1)
      (settings.beta1, settings.beta2) = (try folder.number("beta1"), try folder.number("beta2"))
      settings.epsilon = try folder.number("epsilon")
      let gradient = backend.upload(gradients.values[step * count..<(step + 1) * count].map { B.Scalar($0) }, Shape(count))
      backend.adamW(&x, gradient: gradient, factor: nil, &m, &v, settings, range: nil)
    }
    try give("x", x)
    try give("m", m)
    try give("v", v)
  }

  mutating func runSGD() throws {
    let gradients = try folder.input("gradients")
    let count = gradients.shape[1]
    var (x, b) = (try tensor("x"), backend.zeros(Shape(count)))
    let settings = SGDSettings(
      learningRate: try folder.number("learning_rate"), weightDecay: try folder.number("weight_decay"),
      momentum: try folder.number("momentum"))
    for step in 0..<gradients.shape[0] {
      let gradient = backend.upload(gradients.values[step * count..<(step + 1) * count].map { B.Scalar($0) }, Shape(count))
      backend.sgd(&x, gradient: gradient, factor: nil, momentum: &b, settings, range: nil)
    }
    try give("x", x)
    try give("b", b)
  }

  mutating func runClip() throws {
    let input = try folder.input("gradient")
    var gradient = backend.upload(input.values.map { B.Scalar($0) }, Shape(1, input.values.count))
    let (factor, norm) = backend.clipFactor(
      backend.dot(gradient, gradient), loss: backend.zeros(Shape(1)), maximum: try folder.number("maximum"))
    backend.scaleRows(factor, &gradient)
    try give("norm", norm)
    try give("gradient", gradient)
  }
}
