import Checkpoints
import Tensors

/// One low-rank update s B A of an adapter: of a linear layer, or of one expert in it.
public struct AdapterUpdate: Equatable, Sendable {
  /// The module, by the name that the file has before `.lora_A.weight`.
  public let path: String
  /// A (r,I).
  public let a: TensorEntry
  /// B (O,r).
  public let b: TensorEntry
  /// s.
  public let scale: Double
}

extension AdapterConfiguration {
  /// The updates that an adapter's tensors make, in the order of the file; no model is needed, hence O and I are whatever they are.
  ///
  /// - Throws: `CheckpointError` naming the tensor: one that is neither a router nor one of a pair, one without its partner, one whose
  ///   shape does not have the rank of the configuration, one that is not floating-point, or an expert of a number beyond the last.
  public func updates(in source: any TensorSource) throws -> [AdapterUpdate] {
    let source = mixture == nil ? try PEFTNames(source) : source
    var updates: [AdapterUpdate] = []
    for entry in source.entries {
      func error(_ found: String, _ expected: String) -> CheckpointError {
        CheckpointError(file: source.file, place: .tensor(entry.name), found: found, expected: expected)
      }
      guard WeightFormat(entry.elementType) != nil else { throw error("dtype \(entry.elementType)", "F32, F64, F16 or BF16") }
      if mixture != nil, entry.name.hasSuffix(".mlp.moe_gate.weight") { continue }
      if isOwnOfBase(entry.name) { continue }
      let (endA, endB) = (".lora_A.weight", ".lora_B.weight")
      guard entry.name.hasSuffix(endA) || entry.name.hasSuffix(endB) else {
        throw error("a tensor \(entry.elementType) \(entry.shape) that nothing reads", "names that end with \(endA) or \(endB)")
      }
      let path = String(entry.name.dropLast(endA.count))
      guard let a = source.entry(path + endA), let b = source.entry(path + endB) else {
        throw error("no \(path + (entry.name.hasSuffix(endA) ? endB : endA)) for it", "both matrices of a branch")
      }
      guard entry.name.hasSuffix(endA) else { continue }
      let lora = try branch(of: path, error)
      guard a.shape.count == 2, a.shape[0] == lora.rank, a.shape[1] > 0, b.shape.count == 2, b.shape[1] == lora.rank, b.shape[0] > 0 else {
        throw error("A \(a.shape) and B \(b.shape)", "A of shape [\(lora.rank), inputs] and B [outputs, \(lora.rank)], the rank being r")
      }
      updates.append(AdapterUpdate(path: path, a: a, b: b, scale: lora.scale))
    }
    return updates
  }

  /// Whether a tensor of the file stands in the place of one of the base.
  private func isOwnOfBase(_ name: String) -> Bool {
    guard replacesBase, name.hasPrefix(Self.plainPrefix) else { return false }
    let own = String(name.dropFirst(Self.plainPrefix.count))
    let base = own.hasSuffix(".base_layer.bias") ? own.dropLast(".base_layer.bias".count) + ".bias" : own
    return ownName(ofBase: base) == name
  }

  /// The settings of the branch on a module: experts have their own.
  private func branch(of path: String, _ error: (String, String) -> CheckpointError) throws -> LoRA {
    let parts = path.split(separator: ".")
    guard let mixture else {
      guard path.hasPrefix(Self.plainPrefix), let lora = lora(on: String(path.dropFirst(Self.plainPrefix.count))) else {
        throw error("a branch on a module that the configuration does not name", "one on those of target_modules alone")
      }
      return lora
    }
    guard parts.count >= 2, parts[parts.count - 2] == "experts" else { return lora }
    guard let expert = Int(parts[parts.count - 1]), (0..<mixture.experts).contains(expert) else {
      throw error("expert \(parts[parts.count - 1])", "0 to \(mixture.experts - 1), num_experts being \(mixture.experts)")
    }
    return mixture.lora
  }
}
