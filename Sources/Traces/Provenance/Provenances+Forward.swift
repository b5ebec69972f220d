import Decoders
import Layers
import Tensors

/// From the tokens to the losses.
extension Provenances {
  mutating func addForward() {
    let embedding = decoder.embedding
    let table = weight(embedding.weight, embedding.path + ".weight")
    forward(embedding.path + ".output", .embedding(weight: table, scale: embedding.scale))
    for (layer, block) in blocks.enumerated() {
      let x = input(ofBlock: layer)
      let attended = add(block.attention, of: x)
      let residual = block.path + ".residual.output"
      forward(residual, .sum([x, attended]))
      let pre = block.feedForward.pre
      forward(pre.path + ".output", .norm(formula(pre, of: residual)))
      addFeedForward(block.feedForward.layer, of: pre.path + ".output")
      let fed = addPost(block.feedForward.post, of: block.feedForward.layer.path + ".output")
      forward(block.path + ".output", .sum([residual, fed]))
    }
    let x = input(ofBlock: decoder.blocks.count)
    forward(decoder.norm.path + ".output", .norm(formula(decoder.norm, of: x)))
    let head = Formula.Linear(
      operation: .head, x: decoder.norm.path + ".output", weight: weight(decoder.head.weight, headName), bias: nil, base: nil, branches: [],
      rows: nil)
    forward(decoder.head.path + ".output", .linear(head))
  }

  /// What a trace always has.
  mutating func addOutputs() {
    let isPlural = decoder.adapters.count > 1
    for (number, adapter) in decoder.adapters.enumerated() where adapter.balanceLoss != nil {
      forward((isPlural ? "adapter.\(number)." : "") + "router_logits", .routerLogits(gates(of: number).map(\.logits)))
    }
    forward("logits", .logits(z: decoder.head.path + ".output", softcap: decoder.head.softcap))
    forward("loss", .loss(logits: "logits"))
    let parts = decoder.adapters.indices.compactMap { number in
      balance(of: number).map { Formula.Part(adapter: number, formula: .balance($0)) }
    }
    forward("aux_loss", !isPlural && parts.count == 1 ? parts[0].formula : .parts(parts))
  }

  /// The balance loss of an adapter, if it has routers.
  func balance(of adapter: Int) -> Formula.Balance? {
    decoder.adapters[adapter].balanceLoss.map { Formula.Balance(form: $0.form, coefficient: $0.coefficient, gates: gates(of: adapter)) }
  }

  private func gates(of adapter: Int) -> [Formula.Gate] {
    blocks.compactMap { block in
      guard case .mixture(let mixture) = block.feedForward.layer.adapters[adapter] else { return nil }
      return formula(mixture.router)
    }
  }

  /// Attention behind its norm; the name of what is added to the stream.
  private mutating func add(_ normalized: Normalized<Attention<B>>, of x: String) -> String {
    let (attention, input) = (normalized.layer, normalized.pre.path + ".output")
    forward(input, .norm(formula(normalized.pre, of: x)))
    for linear in [attention.q, attention.k, attention.v] {
      forward(linear.path + ".output", .linear(formula(linear.linear, linear.path, of: input, linear.branches.map { formula($0) })))
    }
    for linear in [attention.q, attention.k] {
      forward(linear.path + ".rotated.output", .rotary(x: linear.path + ".output", headWidth: attention.form.headWidth))
    }
    let o = attention.o
    forward(o.path + ".input", .attention(inputs(of: attention)))
    forward(o.path + ".output", .linear(formula(o.linear, o.path, of: o.path + ".input", o.branches.map { formula($0) })))
    forward(attention.path + ".output", .same(o.path + ".output"))
    return addPost(normalized.post, of: attention.path + ".output")
  }

  func inputs(of attention: Attention<B>) -> Formula.AttentionInputs {
    Formula.AttentionInputs(
      q: attention.q.path + ".rotated.output", k: attention.k.path + ".rotated.output", v: attention.v.path + ".output",
      form: attention.form)
  }

  /// The norm behind a layer, where the family has one; the name of what comes out.
  private mutating func addPost(_ post: RMSNorm<B>?, of y: String) -> String {
    guard let post else { return y }
    forward(post.path + ".output", .norm(formula(post, of: y)))
    return post.path + ".output"
  }
}
