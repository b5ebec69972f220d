import Decoders
import Layers
import Tensors

/// From the logits back to the tokens, and the gradients of what is trained on the way.
extension Provenances {
  mutating func addBackward() {
    let (head, hidden) = (decoder.head, decoder.norm.path + ".output")
    backward(head.path + ".output", .lossGradient(z: head.path + ".output", softcap: head.softcap))
    let reader = Formula.Reader(dy: gradient(head.path + ".output"), weight: weight(head.weight, headName), branches: [], rows: nil)
    backward(hidden, .inputGradient(Formula.InputGradient(readers: [reader], rows: nil)))
    addNormBackward(decoder.norm, of: input(ofBlock: decoder.blocks.count), beside: nil)
    for (layer, block) in blocks.enumerated().reversed() {
      addBackward(block.feedForward, from: block.path + ".output")
      addNormBackward(block.feedForward.pre, of: block.path + ".residual.output", beside: block.path + ".output")
      addBackward(block.attention, from: block.path + ".residual.output")
      addNormBackward(block.attention.pre, of: input(ofBlock: layer), beside: block.path + ".residual.output")
    }
    addTable()
  }

  /// The table of tokens, and the head's matrix where that is another.
  private mutating func addTable() {
    let (embedding, head) = (decoder.embedding, decoder.head)
    let reading = reading(gradient(head.path + ".output"), decoder.norm.path + ".output")
    let (table, matrix) = (embedding.weight.parameter, head.weight.parameter)
    if let table {
      gradients[name(table)] = .embeddingGradient(
        dy: gradient(embedding.path + ".output"), scale: embedding.scale, head: matrix === table ? reading : nil)
    }
    if let matrix, matrix !== table { gradients[name(matrix)] = .matrixGradient([reading]) }
  }

  // MARK: The stream

  /// The gradient of what a norm reads, with what passes beside it, and of the norm's weight.
  private mutating func addNormBackward(_ norm: RMSNorm<B>, of x: String, beside: String?) {
    let (inputs, dy) = (formula(norm, of: x), gradient(norm.path + ".output"))
    backward(x, .normGradient(inputs, dy: dy, beside: beside.map { gradient($0) }))
    if let weight = norm.weight.parameter { gradients[name(weight)] = .gainGradient(inputs, dy: dy) }
  }

  /// From the stream through the norm behind a layer, where there is one, to what the layer gave.
  private mutating func addPostBackward(_ post: RMSNorm<B>?, of y: String, from sum: String) {
    guard let post else { return backward(y, .same(gradient(sum))) }
    backward(post.path + ".output", .same(gradient(sum)))
    addNormBackward(post, of: y, beside: nil)
  }

  // MARK: Attention

  private mutating func addBackward(_ normalized: Normalized<Attention<B>>, from sum: String) {
    let (attention, x) = (normalized.layer, normalized.pre.path + ".output")
    let (q, k, v, o) = (attention.q, attention.k, attention.v, attention.o)
    addPostBackward(normalized.post, of: attention.path + ".output", from: sum)
    backward(o.path + ".output", .same(gradient(attention.path + ".output")))
    backward(o.path + ".input", .inputGradient(Formula.InputGradient(readers: [reader(o)], rows: nil)))
    let inputs = inputs(of: attention)
    func attended(_ role: Formula.AttentionRole) -> Formula {
      .attentionGradient(role, inputs, output: o.path + ".input", gradient: gradient(o.path + ".input"))
    }
    backward(inputs.k, attended(.k))
    backward(inputs.q, attended(.q))
    backward(v.path + ".output", attended(.v))
    for linear in [k, q] {
      backward(
        linear.path + ".output",
        .rotaryGradient(dy: gradient(linear.path + ".rotated.output"), headWidth: attention.form.headWidth))
    }
    backward(x, .inputGradient(Formula.InputGradient(readers: [v, k, q].map { reader($0) }, rows: nil)))
    for (linear, input) in [(q, x), (k, x), (v, x), (o, o.path + ".input")] {
      let dy = gradient(linear.path + ".output")
      addGradients(of: linear.linear, [reading(dy, input)], [bias(dy)])
      for branch in linear.branches { addGradients(of: branch, reading(dy, input, adapter: branch.adapter)) }
    }
  }

  private mutating func reader(_ linear: LoRALinear<B>) -> Formula.Reader {
    Formula.Reader(
      dy: gradient(linear.path + ".output"), weight: weight(linear.linear.weight, linear.path + ".weight"),
      branches: linear.branches.map { formula($0) }, rows: nil)
  }

  // MARK: The feed-forward

  private mutating func addBackward(_ normalized: Normalized<FeedForward<B>>, from sum: String) {
    let (layer, x) = (normalized.layer, normalized.pre.path + ".output")
    addPostBackward(normalized.post, of: layer.path + ".output", from: sum)
    let readers = addFeedForwardBackward(layer, of: x)
    backward(x, .inputGradient(Formula.InputGradient(readers: readers, rows: nil)))
  }

  // MARK: Parameters

  func reading(
    _ dy: String, _ x: String, rows: Formula.ExpertRows? = nil, isWeighted: Bool = false, adapter: Int? = nil
  ) -> Formula.Reading {
    Formula.Reading(dy: dy, x: x, rows: rows, isWeighted: isWeighted, adapter: adapter)
  }

  func bias(_ dy: String, rows: Formula.ExpertRows? = nil, gate: Formula.Gate? = nil, adapter: Int? = nil) -> Formula.BiasReading {
    Formula.BiasReading(dy: dy, rows: rows, gate: gate, adapter: adapter)
  }

  /// The gradients of a linear layer's matrix and bias, where they are trained.
  mutating func addGradients(of linear: Linear<B>, _ readings: [Formula.Reading], _ sums: [Formula.BiasReading]) {
    if let weight = linear.weight.parameter { gradients[name(weight)] = .matrixGradient(readings) }
    if let bias = linear.bias?.parameter { gradients[name(bias)] = .biasGradient(sums) }
  }

  mutating func addGradients(of branch: LoRABranch<B>, _ reading: Formula.Reading) {
    gradients[name(branch.a)] = .branchGradient(isA: true, formula(branch), reading)
    gradients[name(branch.b)] = .branchGradient(isA: false, formula(branch), reading)
  }

  /// The gradients of expert e's part of a stack.
  mutating func addGradients(of lora: ExpertLoRA<B>?, expert e: Int, _ reading: Formula.Reading) {
    guard let lora, let branch = formula(lora, expert: e) else { return }
    gradients[name(lora.a, expert: e)] = .branchGradient(isA: true, branch, reading)
    gradients[name(lora.b, expert: e)] = .branchGradient(isA: false, branch, reading)
  }
}
