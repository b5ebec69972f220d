import Checkpoints
import Conformance
import Decoders
import Tensors
import Traces

// The first wrong operation with the numbers of that very call, for whoever wants to mend it by itself.
extension OracleComparison {
  /// What the first wrong tensor is formed from, in the candidate's own numbers where it has them, what it should be and what it is.
  ///
  /// Values of tokens are the rows of real tokens, (N,width), in the order of the batch.
  func failingOperation(_ target: TensorJudgement) throws -> FailingOperation? {
    guard let provenance = order[target.name] else { return nil }
    let inputs = provenance.inputs
    let wanted = Set([target.name] + inputs.map(\.name))
    let paths = Set(inputs.map { HookPoint(named: $0.name).path })
    let run = try localRun(CauseFinder<Exact>.Trial(), seeing: paths) { wanted.contains($0) }
    guard let (ours, found) = run[target.name], let found else { return nil }
    let provenances = try Provenances(model.decoder, hasBaseRows: true)
    func elementType(_ name: String) -> ElementType { candidate.tensors[name]?.entry.elementType ?? .float64 }
    func shape(_ name: String, _ count: Int) -> [Int] {
      let width = max(1, records[name]?.shape.last ?? widths[name] ?? count)
      return count % width == 0 && width < count ? [count / width, width] : [count]
    }
    var read: [FailingOperation.Input] = []
    for input in inputs {
      switch input.source {
      case .point(let name):
        guard let (own, theirs) = run[name] else { continue }
        let values = theirs ?? own
        let type = elementType(name)
        read.append(
          .init(name: name, shape: shape(name, values.count), values: values, elementType: type.isFloatingPoint ? type : .float64))
      case .weight(let name):
        if let trained = provenances.trained[name] {
          let view = trained.view(of: trained.parameter.value)
          read.append(.init(name: name, shape: view.shape.sizes, values: try model.backend.download(view), elementType: .float32))
        } else if case .frozen(let matrix)? = provenances.weights[name] {
          read.append(.init(name: name, shape: matrix.shape.sizes, values: model.backend.numbers(of: matrix), elementType: .float32))
        }
      case .batch(let name):
        if name == "labels" || name == "input_ids" {
          let ids = model.packed.order.flatMap { n in
            name == "labels" ? model.batch.sequences[n].labels.map { Double($0 ?? -100) } : model.batch.sequences[n].ids.map { Double($0) }
          }
          read.append(.init(name: name, shape: [ids.count], values: ids, elementType: .int64))
        }
      }
    }
    let positions = model.packed.order.flatMap { n in model.batch.realColumns[n].map { Double($0) } }
    read.append(.init(name: "positions", shape: [positions.count], values: positions, elementType: .int64))
    let offsets = model.packed.plan.offsets.map { Double($0) }
    read.append(.init(name: "sequence_offsets", shape: [offsets.count], values: offsets, elementType: .int64))
    return FailingOperation(
      name: target.name, kind: target.kind, equation: target.equation, attributes: attributes, inputs: read,
      shape: shape(target.name, ours.count), expected: ours,
      found: found, budget: target.localBudget ?? target.budget)
  }
}

extension OracleComparison {
  /// The numbers of the model that an equation may take, under their names in Hugging Face's and PEFT's files.
  private var attributes: [(name: String, value: Double)] {
    let c = model.decoder.configuration
    var all: [(name: String, value: Double)] = [
      ("num_attention_heads", Double(c.attention.heads)), ("num_key_value_heads", Double(c.attention.keyValueHeads)),
      ("head_dim", Double(c.attention.headWidth)), ("attention_scale", c.attention.scale), ("rope_theta", c.rotary.base),
      ("rms_norm_eps", c.norm.epsilon), ("norm_offset", c.norm.offset), ("hidden_size", Double(c.channels)),
      ("embedding_scale", c.embeddingScale),
    ]
    if let softcap = c.attention.softcap { all.append(("attn_logit_softcapping", softcap)) }
    if let softcap = c.head.softcap { all.append(("final_logit_softcapping", softcap)) }
    if let window = c.attention.windows.compactMap({ $0 }).first { all.append(("sliding_window", Double(window))) }
    if let owner = model.layout.owners.first {
      all.append(("num_experts", Double(owner.mixture.experts)))
      if case .topK(let k) = owner.mixture.policy { all.append(("top_k", Double(k))) }
      if let loss = model.decoder.adapters[owner.number].balanceLoss { all.append(("router_aux_loss_coef", loss.coefficient)) }
    }
    if steps.count > 0 { all += [("lr", steps.learningRate), ("weight_decay", steps.weightDecay), ("steps", Double(steps.count))] }
    return all
  }
}

extension ElementType {
  /// True for the types of single numbers with a fraction.
  var isFloatingPoint: Bool { [.float64, .float32, .float16, .bfloat16].contains(self) }
}

extension RoundingBackend {
  /// The numbers of a frozen weight, row after row.
  func numbers(of matrix: Exact.FrozenMatrix) -> [Double] {
    matrix.shape.isVector ? (try? exact.download(exact.vector(matrix))) ?? [] : decoded(matrix)
  }
}
