import Checkpoints
import Layers
import Tensors

/// What an adapter puts in the place of the base's weights: then it serves alone.
extension DecoderAssembly {
  /// The adapter's own weight in the place of one of the base, where it brings one; a new adapter begins with the base's.
  mutating func ownWeight(_ name: String, _ shape: Shape, _ initial: InitialValue, source: String) throws -> Weight<B>? {
    guard let (number, adapter) = adapters.enumerated().first(where: { $1.configuration.ownName(ofBase: name) != nil }),
      let ownName = adapter.configuration.ownName(ofBase: name)
    else { return nil }
    try weights.require(source, shape)
    let parameter = Parameter<B>(ownName, shape)
    let tensor = TrainedTensor(name: ownName, parameter: parameter, part: nil)
    if adapter.weights is InitialWeights<B> {
      adapterTensors[number].append(PendingTensor(tensor: tensor, weights: weights, source: source, initial: initial))
    } else {
      try add(tensor, shape, initial, number)
    }
    return .trained(parameter)
  }

  /// Throws where adapters cannot share the base, or one asks for branches outside the blocks.
  func requireSharedBase() throws {
    if adapters.count > 1, let own = adapters.first(where: \.configuration.replacesBase) {
      throw own.error("an adapter that brings weights in the place of the base's, beside others", "it alone over the base")
    }
    for adapter in adapters {
      guard let path = ["model.embed_tokens", "lm_head"].first(where: { adapter.configuration.lora(on: $0) != nil }) else { continue }
      throw adapter.error(key: "target_modules", path, "linear layers of the blocks; branches elsewhere are not built yet")
    }
  }

  /// Throws where an adapter has a branch on no layer at all.
  func requireBranches() throws {
    for (adapter, tensors) in zip(adapters, adapterTensors) where adapter.configuration.mixture == nil {
      guard !tensors.contains(where: { $0.tensor.parameter.role == .b }) else { continue }
      throw adapter.error(
        key: "target_modules", "no linear layer of the model's blocks",
        "one at least of \(configuration.linears.map(\.rawValue).joined(separator: ", "))")
    }
  }

  /// The weight of a linear layer whose branch is made of it (PiSSA, OLoRA): W − s B A of its leading factors, as PEFT leaves it,
  /// whether the adapter is new and begins with these factors or was trained from them. nil for any other layer.
  mutating func remainder(_ path: String, _ shape: Shape, _ initial: InitialValue) throws -> Weight<B>? {
    guard let adapter = adapters.first, adapter.configuration.mixture == nil, let lora = adapter.configuration.lora(on: path),
      lora.initialization.factorization != nil
    else { return nil }
    guard !trainsBase else {
      throw adapter.error(key: "init_lora_weights", lora.initialization.rawValue, "another beginning, where the base is trained, too")
    }
    var w = try weights.tensor(path + ".weight", shape, initial)
    let taken = try lora.takeFactors(outOf: &w, path, on: backend) { adapter.error(key: "init_lora_weights", $0, $1) }
    if adapter.weights is InitialWeights<B> { factors[path] = taken }
    return .frozen(backend.freeze(w))
  }
}

extension AdapterConfiguration.LoRA {
  /// W ← W − s B A for the leading factors of W that a branch begins with; nil, and W as it is, where it begins otherwise.
  ///
  /// - Throws: `CheckpointError` made by `error` of what was found and expected.
  func takeFactors<B: Backend>(
    outOf w: inout Tensor<B>, _ path: String, on backend: B, _ error: (String, String) -> CheckpointError
  ) throws -> (a: Tensor<B>, b: Tensor<B>)? {
    guard let kind = initialization.factorization else { return nil }
    guard let factorizing = backend as? any MatrixFactorizing else {
      throw error(initialization.rawValue, "a backend that factorizes matrices")
    }
    let (o, i) = (w.rowCount, w.columnCount)
    guard rank <= min(o, i), scale > 0 else {
      throw error("rank \(rank) and scale \(scale) on \(path)", "a rank of at most \(min(o, i)) and a scale > 0")
    }
    guard let (l, r) = factorizing.factors(kind, of: try backend.download(w).map { Double($0) }, rows: o, columns: i, rank: rank) else {
      throw error("\(path).weight without factors", "finite numbers, and factors that converge")
    }
    let share = kind == .singular ? 1 / scale.squareRoot() : 1  // of singular values each side has the root
    let b = backend.upload(l.map { B.Scalar($0 * share) }, Shape(o, rank))
    let a = backend.upload(r.map { B.Scalar($0 * share) }, Shape(rank, i))
    backend.addProduct(-scale, b, a, into: &w)
    return (a, b)
  }
}
